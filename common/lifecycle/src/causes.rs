//! The text of an error with its causes. Knows no error in particular.

use std::error::Error;

/// An error with its causes, each said once, on one line: what a log line or a message on stderr shows of it.
///
/// Some errors have the text of their cause in their own, some leave it to the reader to ask on, and who prints one
/// cannot know which it is.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let shown = next.to_string();
        if !text.contains(&shown) {
            text.push_str(": ");
            text.push_str(&shown);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// An error of this text, and its cause.
    #[derive(Debug)]
    struct Failed(&'static str, Option<Box<Failed>>);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    fn chain(texts: &[&'static str]) -> Failed {
        let [first, rest @ ..] = texts else { unreachable!("an error has a text") };
        Failed(first, (!rest.is_empty()).then(|| Box::new(chain(rest))))
    }

    #[test]
    fn each_cause_is_said_once_whether_the_error_names_it_or_not() {
        for (texts, said) in [
            (&["no port"][..], "no port"),
            (&["cannot start", "no port"], "cannot start: no port"),
            (&["cannot start: no port", "no port"], "cannot start: no port"),
            (&["no port; choose another", "no port"], "no port; choose another"),
            (&["cannot start", "cannot listen: refused", "refused"], "cannot start: cannot listen: refused"),
            // as `#[error(transparent)]` and errors that only pass another one on
            (&["refused", "refused", "refused"], "refused"),
        ] {
            assert_eq!(error_chain(&chain(texts)), said);
        }
    }
}
