//! How an instance is and how its stop ended, the same for containers and processes. It asks nobody.

use std::fmt;
use std::time::Duration;

use sluice_drill::target::{Ended, Ending};

/// How it is right now, as far as the platform knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Running; whether its health check, if it has one, agrees.
    Running { healthy: bool },
    /// Not running, and why.
    Ended(String),
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    /// The exit code; `None` where only the parent of a process can know it.
    pub(super) code: Option<i32>,
    pub(super) took: Duration,
}

impl Stopped {
    /// As the drill says it.
    pub(super) fn ended(self) -> Ended {
        let how = match self.code {
            Some(code) if code > 128 => Ending::Signal(code - 128),
            Some(code) => Ending::Code(code),
            None => Ending::Unseen,
        };
        Ended { how, took: self.took }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f32();
        match self.code {
            Some(code) => write!(f, "exit code {code} after {seconds:.1} s"),
            None => write!(f, "ended after {seconds:.1} s"),
        }
    }
}
