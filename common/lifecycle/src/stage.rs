//! The vocabulary of a process' life: eight stages in one order, five states for people.
//!
//! Holds no time and no policy: how long a stage may take is the plan's business.

use std::fmt;

/// Where a process stands. The order of the variants is the order in which they are passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Connecting, migrating, binding; not ready for work.
    Starting,
    /// The process serves. Lasts until a stop is asked for.
    Ready,
    /// Balancers learn that this process is leaving; it still works.
    NotReady,
    /// Clients and peers are told; nothing new is accepted.
    Notify,
    /// What was accepted gets its outcome; clients leave.
    Drain,
    /// Data that is owed to others leaves.
    Flush,
    /// Leases, pools and connections are given back.
    Release,
    /// Telemetry and the admin port close, the report is written.
    Gone,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 8] = [
        Stage::Starting,
        Stage::Ready,
        Stage::NotReady,
        Stage::Notify,
        Stage::Drain,
        Stage::Flush,
        Stage::Release,
        Stage::Gone,
    ];

    /// The stages a stop goes through, in order.
    pub const STOPPING: [Stage; 6] =
        [Stage::NotReady, Stage::Notify, Stage::Drain, Stage::Flush, Stage::Release, Stage::Gone];

    /// The name used in logs, metrics, `/status` and `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Ready => "ready",
            Stage::NotReady => "not-ready",
            Stage::Notify => "notify",
            Stage::Drain => "drain",
            Stage::Flush => "flush",
            Stage::Release => "release",
            Stage::Gone => "gone",
        }
    }

    /// The coarse state for people.
    pub const fn state(self) -> ProcessState {
        match self {
            Stage::Starting => ProcessState::Starting,
            Stage::Ready => ProcessState::Running,
            Stage::NotReady | Stage::Notify | Stage::Drain => ProcessState::Draining,
            Stage::Flush | Stage::Release => ProcessState::Cleaning,
            Stage::Gone => ProcessState::Stopped,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// [`Stage`] for people who do not want to know eight words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessState {
    /// The process is not ready yet.
    Starting,
    /// The process serves.
    Running,
    /// Work and clients are leaving.
    Draining,
    /// Data and resources are leaving.
    Cleaning,
    /// Nothing is left to do.
    Stopped,
}

impl ProcessState {
    /// The name used in logs, metrics and `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProcessState::Starting => "starting",
            ProcessState::Running => "running",
            ProcessState::Draining => "draining",
            ProcessState::Cleaning => "cleaning",
            ProcessState::Stopped => "stopped",
        }
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
