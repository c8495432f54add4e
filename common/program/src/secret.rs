//! The secret that tokens are signed with, as a program is given it: by value, or in a file of its own, which neither
//! `ps` nor the environment shows. The one rule for services and tools; whether a secret is good is for its user to say.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::output::note;

/// More than any secret: a device or a wrong file is not read without an end.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why there is no secret. The texts are for people; each name is the one under which they gave it.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// Nobody knows which one is meant.
    #[error("{value} and {file} are both set: leave one of them")]
    Both {
        /// How the value is given.
        value: &'static str,
        /// How the file is given.
        file: &'static str,
    },
    /// The file cannot be read.
    #[error("{file} {path:?} cannot be read: {why}")]
    File {
        /// How the file is given.
        file: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system said; no source, which `{:#}` would say again.
        why: io::Error,
    },
    /// The file has nothing in it.
    #[error("{file} {path:?} is empty: write the secret into it, for example with openssl rand -hex 32")]
    Empty {
        /// How the file is given.
        file: &'static str,
        /// Its path.
        path: PathBuf,
    },
}

/// The secret: the value, or what the file holds; empty when neither is given. `names` are those of value and file.
///
/// # Errors
/// [`BadSecret`]
pub fn one_of(value: &str, file: &Path, names: [&'static str; 2]) -> Result<String, BadSecret> {
    let [value_name, file_name] = names;
    if file.as_os_str().is_empty() {
        return Ok(value.to_owned());
    }
    if !value.is_empty() {
        return Err(BadSecret::Both { value: value_name, file: file_name });
    }
    let path = || file.to_owned();
    let text = read(file).map_err(|why| BadSecret::File { file: file_name, path: path(), why })?;
    // Editors and `openssl rand -hex 32 > file` end with one.
    let line = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    match line.unwrap_or(&text) {
        "" => Err(BadSecret::Empty { file: file_name, path: path() }),
        secret => Ok(secret.to_owned()),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes, which is no secret")));
    }
    Ok(text)
}

/// What is hardly meant: a sentence about white space in a secret. Spaces between words are meant.
#[must_use]
pub fn warning(name: &str, secret: &str) -> Option<String> {
    let what = if secret.trim() != secret {
        "begins or ends with white space"
    } else if secret.contains(char::is_control) {
        "has a line break or another control character in it"
    } else {
        return None;
    };
    Some(format!("{name} {what}, which is part of it: tokens signed without it are refused"))
}

/// The flags and variables of a tool.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TokenSecret {
    /// Secret that tokens are signed with, as logic has it
    #[arg(
        long,
        alias = "secret",
        env = "SLUICE_TOKEN_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    token_secret: Option<String>,
    /// A file that holds it, instead; one line break at its end is not part of it
    #[arg(long, env = "SLUICE_TOKEN_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    token_secret_file: Option<PathBuf>,
}

/// What people gave, whichever way.
const NAMES: [&str; 2] =
    ["--token-secret (SLUICE_TOKEN_SECRET)", "--token-secret-file (SLUICE_TOKEN_SECRET_FILE)"];

impl TokenSecret {
    /// The secret; `None` when none is given. White space around it is said on standard error.
    ///
    /// # Errors
    /// [`BadSecret`]
    pub fn read(&self, program: &str) -> Result<Option<String>, BadSecret> {
        let file = self.token_secret_file.as_deref().unwrap_or(Path::new(""));
        let secret = one_of(self.token_secret.as_deref().unwrap_or_default(), file, NAMES)?;
        if let Some(warning) = warning("the token secret", &secret) {
            note(format_args!("{program}: warning: {warning}"));
        }
        Ok(Some(secret).filter(|secret| !secret.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<String, BadSecret> {
        let name = format!("sluice-secret-{}-{:x}", std::process::id(), text.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let secret = one_of("", &path, NAMES);
        std::fs::remove_file(&path).unwrap();
        secret
    }

    #[test]
    fn a_file_loses_one_line_break_and_no_more() {
        for (text, secret) in
            [("s", "s"), ("s2\n", "s2"), ("s\r\n ", "s\r\n "), ("s34\r\n", "s34"), (" se \n\n", " se \n")]
        {
            assert_eq!(of_file(text).unwrap(), secret);
        }
        let error = of_file("\n").unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
        let error = of_file(&"x".repeat(70_000)).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn a_value_and_a_file_are_one_too_many() {
        assert_eq!(one_of("value", Path::new(""), NAMES).unwrap(), "value");
        assert_eq!(one_of("", Path::new(""), NAMES).unwrap(), "");
        let error = one_of("value", Path::new("file"), NAMES).unwrap_err().to_string();
        assert!(error.contains("--token-secret (") && error.contains("--token-secret-file ("), "{error}");
        let error = one_of("", Path::new("/nowhere/secret"), NAMES).unwrap_err().to_string();
        assert!(error.contains("\"/nowhere/secret\" cannot be read: No such file"), "{error}");
    }

    #[test]
    fn white_space_that_is_hardly_meant_is_said() {
        assert_eq!(warning("it", "correct horse battery staple"), None);
        for odd in ["s ", " s", "s\n", "one\ntwo", "tab\tbed"] {
            assert!(warning("it", odd).is_some_and(|said| said.starts_with("it ")), "{odd:?}");
        }
    }
}
