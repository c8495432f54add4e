//! Places that standard output leads to and that take nothing.

use std::fs::File;
use std::process::{Command, Output, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// A pipe whose reader has gone.
    Closed,
    /// A full disk.
    Full,
}

impl Sink {
    pub const ALL: [Self; 2] = [Self::Closed, Self::Full];

    pub fn stdio(self) -> Stdio {
        match self {
            Self::Closed => std::io::pipe().unwrap().1.into(),
            Self::Full => File::options().write(true).open("/dev/full").unwrap().into(),
        }
    }
}

/// Runs it to its end with its standard output in there; its exit code and what it says on standard error.
pub fn into(sink: Sink, command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.stdout(sink.stdio()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    (status.code(), said)
}

/// With a reader that has gone it ends in silence with its own exit code, with a full disk in one line and with 1.
pub fn ends_well(command: &mut Command, code: i32) {
    assert_eq!(into(Sink::Closed, command), (Some(code), String::new()), "{command:?}");
    let (code, said) = into(Sink::Full, command);
    assert_eq!(code, Some(1), "{command:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    assert_eq!(said.matches("No space left on device").count(), 1, "{command:?}: {said}");
}
