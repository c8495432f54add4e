//! The stop plan as data: which stages, in which order, how long each may take.
//!
//! Knows nothing of tasks or clocks; position in the list is the order of the stop.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::stage::Stage;

/// The usual total: Docker kills 10 s after SIGTERM; 2 s remain for the watchdog and a slow machine.
pub const TOTAL_DEFAULT: Duration = Duration::from_secs(8);

/// One stage of a [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// The stage.
    pub stage: Stage,
    /// How long it may take at most. What it does not use is passed on; what the total has no room for is cut.
    /// Zero means that the stage is skipped.
    pub allowed: Duration,
}

/// The ordered stages of a stop and the time for all of them together.
///
/// The sum of the stages may exceed the total: the total always wins, and a stage that finds nothing left of
/// it is skipped. A plan whose sum fits gives every stage its time whatever the earlier ones do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Time for the whole stop, counted from the moment it is asked for.
    pub total: Duration,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
}

impl Plan {
    /// A plan without stages yet.
    pub const fn new(total: Duration) -> Plan {
        Plan { total, stages: Vec::new() }
    }

    /// Appends a stage that may take `allowed`.
    #[must_use]
    pub fn stage(mut self, stage: Stage, allowed: Duration) -> Plan {
        self.stages.push(StagePlan { stage, allowed });
        self
    }

    /// Whether the plan can be run.
    ///
    /// # Errors
    /// No stage at all, a stage out of order or twice, or one that is not part of a stop
    /// ([`Stage::Starting`], [`Stage::Ready`]): correct the plan, it is a constant of the program.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.stages.is_empty() {
            return Err(PlanError::Empty);
        }
        let mut before = Stage::Ready;
        for planned in &self.stages {
            if planned.stage <= Stage::Ready {
                return Err(PlanError::NotAStop(planned.stage));
            }
            // Equal is wrong too: the second of two would never be found by name.
            if planned.stage <= before {
                return Err(PlanError::Order { before, after: planned.stage });
            }
            before = planned.stage;
        }
        Ok(())
    }

    /// Whether the stop ends before somebody (`TimeoutStopSec`, `stop_grace_period`,
    /// `terminationGracePeriodSeconds`) kills the process.
    ///
    /// # Errors
    /// The total is not below `killed_after`: warn loudly, a stop that uses its budget would be cut.
    pub fn check_kill_timer(&self, killed_after: Duration) -> Result<(), PlanError> {
        if self.total < killed_after {
            return Ok(());
        }
        Err(PlanError::KillTimer { total: self.total, killed_after })
    }

    /// Where tasks and hooks of `stage` belong: its own place, else the next planned stage, else the last.
    pub(crate) fn position(&self, stage: Stage) -> usize {
        let found = self.stages.iter().position(|planned| planned.stage >= stage);
        found.unwrap_or(self.stages.len().saturating_sub(1))
    }
}

/// What is wrong with a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// There is no stage in it.
    Empty,
    /// The stage is no part of a stop.
    NotAStop(Stage),
    /// The stages are not in the order of [`Stage::STOPPING`], or one is there twice.
    Order {
        /// The one that stands first.
        before: Stage,
        /// The one that stands behind it and must not.
        after: Stage,
    },
    /// The process would be killed before its stop is over.
    KillTimer {
        /// Time the plan may take.
        total: Duration,
        /// Time until the kill.
        killed_after: Duration,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::Empty => f.write_str("the stop plan has no stage"),
            PlanError::NotAStop(stage) => write!(f, "the stop plan has {stage}, which is no part of a stop"),
            PlanError::Order { before, after } => write!(f, "the stop plan has {after} behind {before}"),
            PlanError::KillTimer { total, killed_after } => {
                write!(f, "a stop may take {total:?}, but the process is killed after {killed_after:?}")
            }
        }
    }
}

impl Error for PlanError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_whole_vocabulary_is_a_plan() {
        let plan = Stage::STOPPING
            .into_iter()
            .fold(Plan::new(TOTAL_DEFAULT), |plan, stage| plan.stage(stage, SECOND));
        assert_eq!(plan.check(), Ok(()));
        for (index, stage) in Stage::STOPPING.into_iter().enumerate() {
            assert_eq!(plan.position(stage), index);
        }
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        let plan = || Plan::new(SECOND);
        assert_eq!(plan().check(), Err(PlanError::Empty));
        for stage in [Stage::Starting, Stage::Ready] {
            assert_eq!(plan().stage(stage, SECOND).check(), Err(PlanError::NotAStop(stage)));
        }
        for before in Stage::STOPPING {
            for after in Stage::STOPPING {
                let checked = plan().stage(before, SECOND).stage(after, SECOND).check();
                let expected = if before < after { Ok(()) } else { Err(PlanError::Order { before, after }) };
                assert_eq!(checked, expected);
            }
        }
    }

    #[test]
    fn a_stage_left_out_stands_for_the_next_or_the_last() {
        let plan = Plan::new(SECOND).stage(Stage::Notify, SECOND).stage(Stage::Flush, SECOND);
        let expected = [(Stage::Starting, 0), (Stage::NotReady, 0), (Stage::Drain, 1), (Stage::Gone, 1)];
        for (stage, index) in expected {
            assert_eq!(plan.position(stage), index, "{stage}");
        }
    }

    #[test]
    fn a_kill_timer_has_to_leave_room() {
        let plan = Plan::new(8 * SECOND);
        assert_eq!(plan.check_kill_timer(10 * SECOND), Ok(()));
        let short = PlanError::KillTimer { total: 8 * SECOND, killed_after: 8 * SECOND };
        assert_eq!(short.to_string(), "a stop may take 8s, but the process is killed after 8s");
        assert_eq!(plan.check_kill_timer(8 * SECOND), Err(short));
    }
}
