//! Text of strangers in the log: cut, so that nobody can fill a disk, and without control characters, so that nobody
//! can write lines of their own.

use std::fmt::{self, Write};

/// How much of it is shown, bytes.
const SHOWN_BYTES_MAX: usize = 128;

/// Shows the beginning of a text that somebody else wrote.
#[derive(Clone, Copy)]
pub struct Untrusted<T>(pub T);

impl<T: AsRef<str>> fmt::Display for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref();
        let mut left = SHOWN_BYTES_MAX;
        for c in text.chars() {
            let width = if c.is_control() { c.escape_default().len() } else { c.len_utf8() };
            if width > left {
                return write!(f, "… ({} bytes)", text.len());
            }
            left -= width;
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl<T: AsRef<str>> fmt::Debug for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_is_short_and_one_line() {
        assert_eq!(Untrusted("Grüße").to_string(), "Grüße");
        assert_eq!(Untrusted("a\r\n\u{1b}[31mb\u{9b}").to_string(), "a\\r\\n\\u{1b}[31mb\\u{9b}");
        let cut = Untrusted("ä".repeat(10_000)).to_string();
        assert_eq!(cut, format!("{}… (20000 bytes)", "ä".repeat(64)));
        assert!(Untrusted("\n".repeat(10_000)).to_string().len() < 160);
    }
}
