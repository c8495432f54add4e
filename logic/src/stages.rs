//! The stop of logic as data: which stage, how long at most, what it waits for.
//!
//! | Stage | waits for |
//! |---|---|
//! | not-ready | state `draining` written; the last logic: draining gateways to leave |
//! | notify | GOAWAY sent; from here on the API refuses what is new |
//! | drain | accepted calls and their commits, the last lines of exports; connections closed |
//! | flush | notices handed to NATS, outbox rows forgotten |
//! | release | lease, NATS, Redis, store given back, in parallel |

use sluice_lifecycle::Plan;
use sluice_service::config::sections::{Shutdown, StageTimes};

use crate::defaults::CLOSE_WITHIN;

/// Unless configured; the default total of 8 s holds their sum exactly.
///
/// Not-ready is how long the last logic stays for draining gateways, which need 4 s at most. A commit takes
/// milliseconds; a stuck one is the store's (`statement_timeout` 3 s), found again by the gateway's retry. What is not
/// handed over stays in the outbox. Resources get [`CLOSE_WITHIN`] each, in parallel, and a moment for their errors.
pub const TIMES: StageTimes = StageTimes {
    not_ready_ms: 5_000,
    notify_ms: 200,
    drain_ms: 1_700,
    flush_ms: 500,
    release_ms: 600,
    gone_ms: 0,
};
/// Shorter ones would cut stages that are not even waiting for anybody.
pub const TIMES_MIN: StageTimes = StageTimes {
    not_ready_ms: 500,
    notify_ms: 100,
    drain_ms: 500,
    flush_ms: 200,
    release_ms: 600,
    gone_ms: 0,
};

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
    fn the_default_total_has_room_for_every_stage() {
        let plan = plan(&Shutdown::with(TIMES));
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().filter(|s| s.stage != Stage::Gone).map(|s| s.allowed).sum();
        assert!(sum <= plan.total, "{sum:?}");
    }
}
