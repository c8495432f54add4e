//! Words of commands that people are told: what is said is to be pasted as it is.

use std::borrow::Cow;

/// The program as it was called.
pub(crate) fn program() -> String {
    let called = std::env::args().next();
    called.map_or_else(|| "sluice".to_owned(), |called| word(&called).into_owned())
}

/// The command that was given, for records that others read: a secret in it is theirs to fill in.
#[cfg(feature = "servers")]
pub(crate) fn command() -> String {
    line(std::env::args())
}

#[cfg(feature = "servers")]
fn line(arguments: impl Iterator<Item = String>) -> String {
    const SECRETS: [&str; 2] = ["--token-secret", "--secret"];
    const HIDDEN: &str = r#""$SECRET""#;
    let mut is_secret = false;
    let words = arguments.map(|argument| {
        let flag = argument.split_once('=').map(|(flag, _)| flag).filter(|flag| SECRETS.contains(flag));
        let said = match flag {
            _ if is_secret => HIDDEN.to_owned(),
            Some(flag) => format!("{flag}={HIDDEN}"),
            None => word(&argument).into_owned(),
        };
        is_secret = SECRETS.contains(&argument.as_str());
        said
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A path as one word of a shell.
#[cfg(any(feature = "dev", feature = "servers"))]
pub(crate) fn path(path: &std::path::Path) -> String {
    word(&path.display().to_string()).into_owned()
}

/// As one word of a shell.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=@,+%".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "servers")]
    #[test]
    fn a_command_is_the_same_when_it_is_pasted_and_tells_no_secret() {
        let given = ["sluice", "drill", "--only", "kill gateway", "--token-secret", "s", "--secret=s"];
        let said = r#"sluice drill --only 'kill gateway' --token-secret "$SECRET" --secret="$SECRET""#;
        assert_eq!(line(given.into_iter().map(str::to_owned)), said);
    }

    #[test]
    fn a_word_stays_one_word() {
        for (text, said) in
            [("./data", "./data"), ("my data", "'my data'"), ("it's $HOME", r"'it'\''s $HOME'"), ("", "''")]
        {
            assert_eq!(word(text), said);
        }
    }
}
