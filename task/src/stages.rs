//! The stop of task as data: which stage, how long at most, what it waits for.
//!
//! | Stage | waits for |
//! |---|---|
//! | not-ready | duties given back, state `draining` written; the last task: draining gateways to leave |
//! | notify | nothing: fetching stops |
//! | drain | notices in hand: pushed, acknowledged by their gateways, acknowledged to NATS |
//! | flush | push streams ended |
//! | release | lease, NATS, Redis given back, in parallel |

use std::time::Duration;

use sluice_lifecycle::{Plan, Stage};

use crate::defaults::{CLOSE_WITHIN, GOODBYE, LAGS_AFTER, LAST_STAY};

/// [`LAST_STAY`], and a moment for a call of a duty that began just before.
const NOT_READY: Duration = Duration::from_millis(3_000);
/// Nothing is waited for.
const NOTIFY: Duration = Duration::from_millis(100);
/// A gateway that does not acknowledge is given up after [`LAGS_AFTER`].
const DRAIN: Duration = Duration::from_millis(1_100);
/// Nothing is left to be sent after the drain.
const FLUSH: Duration = Duration::from_millis(200);
/// [`CLOSE_WITHIN`] each, in parallel, and a moment for their errors.
const RELEASE: Duration = Duration::from_millis(600);

/// A shorter total would cut stages that are not even waiting for anybody.
pub const TOTAL_MIN: Duration = Duration::from_secs(2);

const _: () = assert!(LAST_STAY.as_millis() < NOT_READY.as_millis());
const _: () = assert!(LAGS_AFTER.as_millis() < DRAIN.as_millis());
const _: () = assert!(GOODBYE.as_millis() < FLUSH.as_millis());
const _: () = assert!(CLOSE_WITHIN.as_millis() < RELEASE.as_millis());

/// The plan for a total.
#[must_use]
pub fn plan(total: Duration) -> Plan {
    Plan::new(total)
        .stage(Stage::NotReady, NOT_READY)
        .stage(Stage::Notify, NOTIFY)
        .stage(Stage::Drain, DRAIN)
        .stage(Stage::Flush, FLUSH)
        .stage(Stage::Release, RELEASE)
        .stage(Stage::Gone, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_gone_before_the_logic_it_calls() {
        let plan = plan(sluice_lifecycle::TOTAL_DEFAULT);
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().filter(|s| s.stage != Stage::Gone).map(|s| s.allowed).sum();
        assert_eq!(sum, Duration::from_secs(5));
    }
}
