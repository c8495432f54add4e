//! The stop of task as data: which stage, how long at most, what it waits for.
//!
//! | Stage | waits for |
//! |---|---|
//! | not-ready | the calls of duties under way; duties given back, state `draining` written; the last task: draining gateways to leave |
//! | notify | nothing: fetching stops |
//! | drain | notices in hand: pushed, acknowledged by their gateways, acknowledged to NATS |
//! | flush | push streams ended |
//! | release | lease, NATS, Redis given back, in parallel |

use sluice_lifecycle::Plan;
use sluice_service::config::sections::{Shutdown, StageTimes};

use crate::defaults::{CLOSE_WITHIN, GOODBYE, LAGS_AFTER, STAY_MARGIN};

/// Unless configured; 5 s together, so that a task is gone before the logic it calls.
///
/// Not-ready is how long the last task stays for draining gateways, and a moment for a call of a duty that began just
/// before. A gateway that does not acknowledge is given up after [`LAGS_AFTER`]. Nothing is left to be sent after the
/// drain. Resources get [`CLOSE_WITHIN`] each, in parallel, and a moment for their errors.
pub const TIMES: StageTimes = StageTimes {
    not_ready_ms: 3_000,
    notify_ms: 100,
    drain_ms: 1_100,
    flush_ms: 200,
    release_ms: 600,
    gone_ms: 0,
};
/// Shorter ones would cut stages that are not even waiting for anybody.
pub const TIMES_MIN: StageTimes = StageTimes {
    not_ready_ms: 500,
    notify_ms: 50,
    drain_ms: 1_100,
    flush_ms: 200,
    release_ms: 600,
    gone_ms: 0,
};

const _: () = assert!(STAY_MARGIN.as_millis() < TIMES_MIN.not_ready_ms as u128);
const _: () = assert!(LAGS_AFTER.as_millis() < TIMES_MIN.drain_ms as u128);
const _: () = assert!(GOODBYE.as_millis() < TIMES_MIN.flush_ms as u128);
const _: () = assert!(CLOSE_WITHIN.as_millis() < TIMES_MIN.release_ms as u128);

/// The plan.
#[must_use]
pub fn plan(shutdown: &Shutdown) -> Plan {
    shutdown.plan(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_lifecycle::Stage;

    use super::*;

    #[test]
    fn a_task_is_gone_before_the_logic_it_calls() {
        let plan = plan(&Shutdown::with(TIMES));
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().filter(|s| s.stage != Stage::Gone).map(|s| s.allowed).sum();
        assert_eq!(sum, Duration::from_secs(5));
    }
}
