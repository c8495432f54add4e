//! How a gateway stops, as data. What happens in each stage is registered where it belongs.

use std::time::Duration;

use sluice_lifecycle::{Plan, Stage};

use crate::defaults::budget;

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
pub fn plan(total: Duration, accept_grace: Duration) -> Plan {
    Plan::new(total)
        .stage(Stage::NotReady, budget::NOT_READY + accept_grace)
        .stage(Stage::Notify, budget::NOTIFY)
        .stage(Stage::Drain, budget::DRAIN)
        .stage(Stage::Flush, budget::FLUSH)
        .stage(Stage::Release, budget::RELEASE)
        .stage(Stage::Gone, budget::GONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_take_half_of_the_total() {
        let plan = plan(Duration::from_secs(8), Duration::ZERO);
        assert_eq!(plan.check(), Ok(()));
        let sum: Duration = plan.stages.iter().map(|stage| stage.allowed).sum();
        assert_eq!(sum, Duration::from_secs(4));
        assert!(sum * 2 <= plan.total);
        // Without peers: what remains besides draining, and the short drain.
        assert!(sum - budget::DRAIN + budget::DRAIN_LAST <= Duration::from_millis(2_700));
    }
}
