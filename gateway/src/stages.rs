//! How a gateway stops, as data. What happens in each stage is registered where it belongs.

use sluice_lifecycle::Plan;
use sluice_service::config::sections::{Shutdown, StageTimes};

/// Unless configured. The sum is 4 s, half of the total of 8 s, so that tasks and logics that were signalled at the same
/// time end after us and inside theirs.
pub const TIMES: StageTimes = StageTimes {
    not_ready_ms: 100,
    notify_ms: 400,
    drain_ms: 2_300,
    flush_ms: 500,
    release_ms: 500,
    gone_ms: 200,
};
/// A drain ends by giving up publishes and dropping who is left; the others bound one call each.
pub const TIMES_MIN: StageTimes = StageTimes {
    not_ready_ms: 50,
    notify_ms: 100,
    drain_ms: 1_000,
    flush_ms: 100,
    release_ms: 500,
    gone_ms: 0,
};

/// The plan:
///
/// | Stage | ends when |
/// |---|---|
/// | not-ready | etcd says `draining`, logics know, the accept grace is over |
/// | notify | upgrades are refused, the listener is closed, every client has its `drain` frame |
/// | drain | every accepted publish has its outcome, every connection is closed |
/// | flush | status reports have reached logic |
/// | release | push streams ended, lease revoked |
/// | gone | admin HTTP closed |
#[must_use]
pub fn plan(shutdown: &Shutdown, accept_grace_ms: u64) -> Plan {
    shutdown.plan(accept_grace_ms)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::defaults::budget;

    #[test]
    fn the_stages_take_half_of_the_total() {
        let plan = plan(&Shutdown::with(TIMES), 0);
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().map(|stage| stage.allowed).sum();
        assert_eq!(sum, Duration::from_secs(4));
        assert!(sum * 2 <= plan.total);
        // Without peers: what remains besides draining, and the short drain.
        let drain = Duration::from_millis(TIMES.drain_ms);
        assert!(sum - drain + budget::DRAIN_LAST <= Duration::from_millis(2_700));
    }
}
