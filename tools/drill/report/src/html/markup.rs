//! Text inside markup. Whatever comes from a run goes through [`text`]. Pure.

use std::fmt::{self, Display, Write};

use crate::words;

/// Text for an element or an attribute.
pub(super) fn text(words: &str) -> Text<'_> {
    Text(words)
}

/// A line of text, cut.
pub(super) fn cut(text: &str, max: usize) -> String {
    Text(&words::line(text, max)).to_string()
}

/// Displays as text that is no markup.
pub(super) struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A section with a heading and a sentence about how to read it.
pub(super) fn section(title: &str, note: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n{body}</section>\n", text(title), text(note))
}
