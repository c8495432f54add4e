//! What is known about a stop: its reason, the outcome of each stage, the final report.
//!
//! Values only: nothing here waits or decides, except what the exit code is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use tokio::time::Instant;
use tracing::field;

use crate::stage::{ProcessState, Stage};
use crate::work::Work;

/// Names and what belongs to each, as a field of a line in the log; none: no field.
pub(crate) fn list<N: fmt::Display, V: fmt::Display>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Option<String> {
    let shown: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

/// Names and how many of each: `{connection=3 shard=1}`, which a log of JSON shows as an object of numbers.
pub(crate) fn numbers<N: fmt::Display, V: Into<u64>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Option<field::DisplayValue<String>> {
    list(pairs.into_iter().map(|(name, number)| (name, number.into())))
        .map(|list| field::display(format!("{{{list}}}")))
}

pub(crate) fn counted((name, count): &(String, usize)) -> (&String, u64) {
    (name, *count as u64)
}

/// Why the process stops. The first reason stays; later ones are logged and ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A signal, by name: `"SIGTERM"`.
    Signal(&'static str),
    /// An operator asked over the admin port.
    Admin,
    /// The program itself decided so (a test, a launcher, the end of a command).
    Manual(String),
    /// A task ended that should have lived: its name and its error.
    Failed(String, String),
    /// The start failed: why, and the exit code that says so.
    NotStarted(String, i32),
}

impl StopReason {
    /// The number of the signal that stops, if it is one.
    pub(crate) fn signal_number(&self) -> Option<i32> {
        let StopReason::Signal(name) = self else { return None };
        let kind = match *name {
            "SIGTERM" => SignalKind::terminate(),
            "SIGINT" => SignalKind::interrupt(),
            "SIGQUIT" => SignalKind::quit(),
            "SIGHUP" => SignalKind::hangup(),
            _ => return None,
        };
        Some(kind.as_raw_value())
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Signal(name) => f.write_str(name),
            StopReason::Admin => f.write_str("asked by an operator"),
            StopReason::Manual(why) => f.write_str(why),
            StopReason::Failed(task, error) => write!(f, "task {task} died: {error}"),
            StopReason::NotStarted(why, _) => f.write_str(why),
        }
    }
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageOutcome {
    /// Everything it waited for was done.
    Done,
    /// The time was over; who was still at it, by name and number. Its tasks were aborted.
    Late(Vec<(String, usize)>),
    /// It ended in time, but some of it failed: see [`StageReport::failures`].
    Failed,
    /// Nothing was left of the total (or none was planned): its hooks did not run, its tasks were aborted.
    Skipped,
}

impl StageOutcome {
    /// The name used in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            StageOutcome::Done => "done",
            StageOutcome::Late(_) => "late",
            StageOutcome::Failed => "failed",
            StageOutcome::Skipped => "skipped",
        }
    }
}

/// One stage of a stop, when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// Whether the stage was done in time.
    pub outcome: StageOutcome,
    /// Hooks and tasks that failed while it ran: name and error. A late stage may have some too.
    pub failures: Vec<(String, String)>,
    /// How long it took.
    pub elapsed: Duration,
    /// How long it was allowed to take: its own time or what was left of the total.
    pub allowed: Duration,
    /// What was counted while it ran, see [`Lifecycle::note`](crate::Lifecycle::note).
    pub counts: BTreeMap<&'static str, u64>,
}

impl StageReport {
    /// The line when this stage is over.
    pub(crate) fn log(&self) {
        let late = if let StageOutcome::Late(who) = &self.outcome { who.as_slice() } else { &[] };
        tracing::info!(
            stage = self.stage.as_str(),
            outcome = self.outcome.as_str(),
            elapsed_ms = millis(self.elapsed),
            allowed_ms = millis(self.allowed),
            late = numbers(late.iter().map(counted)),
            failures = list(self.failures.iter().map(|(name, error)| (name, error))),
            counts = numbers(self.counts.iter().map(|(name, count)| (name, *count))),
            "Stage is over"
        );
    }
}

/// The whole stop, when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why the process stopped.
    pub reason: StopReason,
    /// Every planned stage, in order.
    pub stages: Vec<StageReport>,
    /// Everything that was counted during the life of the process.
    pub counts: BTreeMap<&'static str, u64>,
    /// What the process did in its life, and left undone.
    pub work: Work,
    /// Tasks that did not even obey their abort, because they never yield, and guards still held.
    pub abandoned: Vec<(String, usize)>,
    /// From the moment the stop was asked for to its end.
    pub elapsed: Duration,
}

impl Report {
    /// 1 when a task died by itself, that of a start that failed, else 0, also with late, failed and skipped stages:
    /// the stop ended inside its budget and the report says what was wrong. (The watchdog exits with 1.)
    pub const fn exit_code(&self) -> i32 {
        match self.reason {
            StopReason::Failed(..) => 1,
            StopReason::NotStarted(_, code) => code,
            StopReason::Signal(_) | StopReason::Admin | StopReason::Manual(_) => 0,
        }
    }

    /// Whether every stage did all it had to.
    pub fn is_clean(&self) -> bool {
        self.abandoned.is_empty() && self.stages.iter().all(|stage| stage.outcome == StageOutcome::Done)
    }

    /// The outcome of a planned stage.
    pub fn outcome(&self, stage: Stage) -> Option<&StageOutcome> {
        self.stages.iter().find(|report| report.stage == stage).map(|report| &report.outcome)
    }

    /// The summary line: an error when the exit code is one.
    pub(crate) fn log(&self) {
        let unclean = self.stages.iter().filter(|stage| stage.outcome != StageOutcome::Done);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    reason = %self.reason,
                    exit_code = self.exit_code(),
                    elapsed_ms = millis(self.elapsed),
                    unclean = list(unclean.map(|stage| (stage.stage, stage.outcome.as_str()))),
                    abandoned = numbers(self.abandoned.iter().map(counted)),
                    processed_count = self.work.processed(),
                    counts = numbers(self.counts.iter().map(|(name, count)| (name, *count))),
                    "Stopped"
                )
            };
        }
        // The level of an event is part of the program, so there are two.
        if self.exit_code() == 0 { line!(info) } else { line!(error) }
    }
}

/// Where the process stands now: behind `/readyz`, `/status`, metrics, systemd and tests.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// When the stage began.
    pub since: Instant,
    /// When it will be cut short. None before a stop.
    pub deadline: Option<Instant>,
    /// When the whole stop will have ended. None before a stop is asked for.
    pub total_deadline: Option<Instant>,
    /// The stages that are over.
    pub outcomes: Vec<StageReport>,
    /// Why the process stops; set as soon as a stop is asked for, before its first stage begins.
    pub reason: Option<StopReason>,
}

impl Progress {
    /// The coarse state.
    pub const fn state(&self) -> ProcessState {
        self.stage.state()
    }

    /// Whether the process wants work: ready, and no stop asked for.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready && self.reason.is_none()
    }

    /// Whether new work is taken: also before a stop is told to others, who may not know of it yet.
    pub const fn takes_work(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::NotReady)
    }

    /// What is left for the whole stop; None before a stop is asked for.
    pub fn remaining(&self) -> Option<Duration> {
        self.total_deadline.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether a stop is so far that nobody would notice a kill: clients are gone, data is flushed. What a kill of a
    /// process that works would cost, only the service knows.
    pub fn safe_to_kill(&self) -> bool {
        self.stage >= Stage::Release
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
