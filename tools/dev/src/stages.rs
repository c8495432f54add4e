//! How everything stops, as data: each stage is the end of one kind of service, which goes through its own stages in it.
//!
//! | Stage | ends when |
//! |---|---|
//! | not-ready | every gateway knows that none will stay, so that nobody waits for clients to move |
//! | drain | the gateways are gone: every accepted publish has its outcome, every client was told and closed |
//! | flush | the task is gone |
//! | release | the logic is gone |
//! | gone | the store is closed, the page too |

use std::time::Duration;

use sluice_lifecycle::{Plan, Stage, TOTAL_DEFAULT};

/// The registry is in this process: nothing to wait for.
const NOT_READY: Duration = Duration::from_millis(100);
/// The sum of a gateway's stages.
pub(crate) const GATEWAYS: Duration = Duration::from_millis(4_000);
/// Nobody is left to be waited for: no gateway has a stream open.
pub(crate) const TASK: Duration = Duration::from_millis(1_200);
/// Nobody calls any more.
pub(crate) const LOGIC: Duration = Duration::from_millis(1_200);
/// The store's own bound is 2 s for calls in flight; there are none.
const GONE: Duration = Duration::from_millis(1_500);

/// The plan of the whole process.
#[must_use]
pub fn plan() -> Plan {
    Plan::new(TOTAL_DEFAULT)
        .stage(Stage::NotReady, NOT_READY)
        .stage(Stage::Drain, GATEWAYS)
        .stage(Stage::Flush, TASK)
        .stage(Stage::Release, LOGIC)
        .stage(Stage::Gone, GONE)
}

#[cfg(test)]
mod tests {
    use sluice_service::process::Settings;

    use super::*;

    #[test]
    fn every_kind_of_service_has_its_time_within_the_total() {
        let plan = plan();
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().map(|stage| stage.allowed).sum();
        assert_eq!(sum, plan.total);
        let gateway = sluice_gateway::config::Config::default().plan();
        let needed: Duration = gateway.stages.iter().map(|stage| stage.allowed).sum();
        assert!(needed <= GATEWAYS, "{needed:?}");
    }
}
