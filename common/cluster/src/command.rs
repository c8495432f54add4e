//! What operators ask of instances and duties, and what they are told of them: plain data.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_proto::ids::InstanceId;

use crate::Duty;

/// What an operator wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Stop in order, as after SIGTERM.
    Stop,
    /// Give work and clients to others, and stay.
    Drain,
    /// Take work and clients again.
    Undrain,
}

impl Command {
    /// The name in paths, keys and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no command: stop, drain, undrain")]
pub struct UnknownCommand(String);

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(text: &str) -> Result<Self, UnknownCommand> {
        let named = |command: &Self| command.as_str() == text;
        let found = [Self::Stop, Self::Drain, Self::Undrain].into_iter().find(named);
        found.ok_or_else(|| UnknownCommand(text.into()))
    }
}

/// A command that was carried to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commanded {
    /// What is wanted.
    pub command: Command,
    /// The instance that an operator asked.
    pub by: InstanceId,
    /// Grows with each command, so that one that is seen twice is followed once.
    pub revision: i64,
}

/// Why something was not carried to the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCarried(pub String);

/// What an emergency release removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Every duty that had an owner, and whom.
    pub duties: Vec<(Duty, InstanceId)>,
    /// Registrations of those who are gone.
    pub registrations: Vec<InstanceId>,
}

/// How long an instance stays listed when nothing more is heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLeft {
    /// After the last renewal.
    pub granted: Duration,
    /// From now on.
    pub left: Duration,
}

/// What became of the registration and the duties of this process since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    /// Duties taken that nobody had.
    pub from_nobody: u64,
    /// Duties taken that a living instance gave back.
    pub given_by_others: u64,
    /// Duties taken over from an instance that ended.
    pub taken_over: u64,
    /// Duties given back.
    pub given_back: u64,
    /// Duties lost without being given back.
    pub lost: u64,
    /// Leases lost.
    pub leases_lost: u64,
}
