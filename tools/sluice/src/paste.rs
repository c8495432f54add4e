//! Words of commands that people are told: what is said is to be pasted as it is.

use std::borrow::Cow;
use std::path::Path;

/// The program as it was called.
pub(crate) fn program() -> String {
    let called = std::env::args().next();
    called.map_or_else(|| "sluice".to_owned(), |called| word(&called).into_owned())
}

/// A path as one word of a shell.
pub(crate) fn path(path: &Path) -> String {
    word(&path.display().to_string()).into_owned()
}

/// As one word of a shell.
fn word(text: &str) -> Cow<'_, str> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=@,+%".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        for (text, said) in
            [("./data", "./data"), ("my data", "'my data'"), ("it's $HOME", r"'it'\''s $HOME'"), ("", "''")]
        {
            assert_eq!(word(text), said);
        }
    }
}
