//! The stop of logic as data: which stage, how long at most, what it waits for.
//!
//! | Stage | waits for |
//! |---|---|
//! | not-ready | state `draining` written; the last logic: draining gateways to leave |
//! | notify | GOAWAY sent |
//! | drain | accepted calls and their commits; connections closed |
//! | flush | notices handed to NATS, outbox rows forgotten |
//! | release | lease, NATS, Redis, store given back, in parallel |

use std::time::Duration;

use sluice_lifecycle::{Plan, Stage};

use crate::defaults::{CLOSE_WITHIN, LAST_STAY};

/// The answering of calls while nobody new should come.
const NOT_READY: Duration = LAST_STAY;
/// GOAWAY frames are small.
const NOTIFY: Duration = Duration::from_millis(200);
/// A commit takes milliseconds; a stuck one is the store's (`statement_timeout` 3 s), found again by the
/// gateway's retry.
pub const DRAIN: Duration = Duration::from_millis(1_700);
/// What is not handed over stays in the outbox.
const FLUSH: Duration = Duration::from_millis(500);
/// [`CLOSE_WITHIN`] each, in parallel, and a moment for their errors.
const RELEASE: Duration = Duration::from_millis(600);

/// A shorter total would cut stages that are not even waiting for anybody.
pub const TOTAL_MIN: Duration = Duration::from_secs(2);

const _: () = assert!(CLOSE_WITHIN.as_millis() < RELEASE.as_millis());

/// The plan for a total; the default of 8 s holds the sum of the stages exactly.
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
    fn the_default_total_has_room_for_every_stage() {
        let plan = plan(sluice_lifecycle::TOTAL_DEFAULT);
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().filter(|s| s.stage != Stage::Gone).map(|s| s.allowed).sum();
        assert!(sum <= plan.total, "{sum:?}");
    }
}
