//! How everything stops, as data: each stage is the end of one kind of service, which goes through its own stages in it.
//!
//! | Stage | ends when |
//! |---|---|
//! | not-ready | every gateway knows that none will stay, so that nobody waits for clients to move |
//! | drain | the gateways are gone: every accepted publish has its outcome, every client was told and closed |
//! | flush | the task is gone |
//! | release | the logic is gone |
//! | gone | the store is closed, the page too |

use sluice_lifecycle::{Plan, Stage};
use sluice_service::config::sections::{Shutdown, StageTimes};

/// Unless configured, and no less. The sum is the usual total.
pub(crate) const TIMES: StageTimes = StageTimes {
    // The registry is in this process: nothing to wait for.
    not_ready_ms: 100,
    notify_ms: 0,
    // The sum of a gateway's stages.
    drain_ms: 4_000,
    // Nobody is left to be waited for: no gateway has a stream open.
    flush_ms: 1_200,
    // Nobody calls any more.
    release_ms: 1_200,
    // The store's own bound is 2 s for calls in flight; there are none.
    gone_ms: 1_500,
};

/// The plan of the whole process.
#[must_use]
pub fn plan() -> Plan {
    plan_of(&Shutdown::with(TIMES))
}

/// The same with these times. Gateways tell their clients in their own stages: here there is nothing to be done for it, and
/// a stage that is skipped is no clean one.
pub(crate) fn plan_of(shutdown: &Shutdown) -> Plan {
    let mut plan = shutdown.plan(0);
    plan.stages.retain(|stage| stage.stage != Stage::Notify);
    plan
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(needed <= Duration::from_millis(TIMES.drain_ms), "{needed:?}");
    }
}
