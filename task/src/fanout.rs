//! From a notice to the gateways that want it. A notice is done when each of them has acknowledged, has gone or
//! lags; then, and only then, NATS hears so.

mod interest;
mod notice;
mod traced;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sluice_lifecycle::Scope;
use sluice_presence::Presence;
use sluice_proto::ids::InstanceId;
use sluice_queue::Delivery;
use sluice_trace::Tracer;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::interest::{InterestedGateways, Lookups};
use self::notice::Notice;
use crate::metrics::Metrics;
use crate::outlet::{Directory, NoticePart, Outlets, Ticket};

/// Carries notices to outlets.
pub struct FanOut {
    lookups: Lookups,
    outlets: Outlets,
    metrics: Metrics,
    tracer: Tracer,
}

impl FanOut {
    /// Carries to `outlets` what is wanted according to `presence`, until the stage of `scope`.
    #[must_use]
    pub fn start(scope: &Scope, presence: Arc<dyn Presence>, outlets: Outlets, metrics: Metrics) -> Self {
        let lookups = Lookups::start(scope, presence, metrics.clone());
        Self { lookups, outlets, metrics, tracer: Tracer::default() }
    }

    /// Traces what logics trace.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Brings one notice to its end. Dropped before, the notice is delivered again.
    pub async fn carry(&self, delivery: Delivery) {
        let begun = Instant::now();
        match Notice::read(delivery.payload.clone()) {
            Ok(mut notice) => {
                traced::carry(&self.tracer, &mut notice);
                let rooms = notice.runs.iter().map(|run| run.room.clone()).collect();
                let interest = self.lookups.of(rooms).await;
                self.push(notice, interest).await;
                self.metrics.notices.inc();
            }
            // Acknowledged all the same: it would come back unreadable for ever.
            Err(error) => {
                self.metrics.notices_bad.inc();
                tracing::error!(%error, bytes = delivery.payload.len(), "A notice is unreadable and dropped.");
            }
        }
        // After every outlet is done with it: a task killed before has it delivered again (C5).
        delivery.ack().await;
        self.metrics.notice_seconds.observe(begun.elapsed().as_secs_f64());
    }

    /// Hands every outlet its part and waits until no outlet holds one.
    async fn push(&self, notice: Notice, interest: InterestedGateways) {
        // One picture for the whole notice: places are numbers in it.
        let directory = self.outlets.directory();
        let (waited, mut done) = mpsc::channel(1);
        for (place, runs) in parts(notice.runs.len(), interest.as_deref(), &*directory) {
            let (gateway, mut spans) = (directory.address(place), Vec::new());
            let run = |run: usize| traced::for_gateway(&notice.runs[run], gateway, &mut spans);
            let runs: Vec<Bytes> = runs.into_iter().map(run).collect();
            let ticket = Ticket { _waited: waited.clone(), _spans: spans };
            directory.offer(place, NoticePart { epoch: notice.epoch, runs, ticket });
        }
        // Ours too, or the channel would never end.
        drop(waited);
        // Nothing is ever sent: the channel ends when the last ticket is dropped.
        let _: Option<std::convert::Infallible> = done.recv().await;
    }
}

/// Who knows which outlet leads to an instance.
pub trait Places {
    /// The outlet of an instance, if there is one.
    fn of(&self, instance: &InstanceId) -> Option<usize>;
    /// Outlets that may be anybody's: they get everything.
    fn unnamed(&self) -> &[usize];
    /// How many outlets there are.
    fn count(&self) -> usize;
}

impl Places for Directory {
    fn of(&self, instance: &InstanceId) -> Option<usize> {
        self.place(instance)
    }

    fn unnamed(&self) -> &[usize] {
        self.unnamed()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// Which runs of a notice go to which outlet, by index, in order, each once. Without interest all go everywhere.
fn parts(
    runs: usize,
    interest: Option<&[Vec<InstanceId>]>,
    places: &impl Places,
) -> BTreeMap<usize, Vec<usize>> {
    let everything = |place| (place, (0..runs).collect());
    // Nobody knows who wants it: everybody gets it, and drops what it does not want.
    let Some(interest) = interest else { return (0..places.count()).map(everything).collect() };
    let mut parts: BTreeMap<usize, Vec<usize>> = places.unnamed().iter().copied().map(everything).collect();
    for (run, instances) in interest.iter().enumerate().take(runs) {
        for place in instances.iter().filter_map(|instance| places.of(instance)) {
            let part = parts.entry(place).or_default();
            // Two ids of one gateway lead to one outlet.
            if part.last() != Some(&run) {
                part.push(run);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    struct Map(HashMap<InstanceId, usize>, Vec<usize>, usize);

    impl Places for Map {
        fn of(&self, instance: &InstanceId) -> Option<usize> {
            self.0.get(instance).copied()
        }

        fn unnamed(&self) -> &[usize] {
            &self.1
        }

        fn count(&self) -> usize {
            self.2
        }
    }

    fn id(n: usize) -> InstanceId {
        InstanceId::parse(&format!("gateway-{n}")).expect("valid")
    }

    proptest! {
        #[test]
        fn each_run_goes_once_and_in_order_to_all_who_want_it_and_to_no_other(
            interest in prop::collection::vec(prop::collection::vec(0..8_usize, 0..6), 0..12),
            // Instances 0…5 have outlets, two of them the same; 6 and 7 are gone.
            outlets in prop::collection::vec(0..4_usize, 6),
        ) {
            let named = outlets.iter().enumerate().map(|(n, place)| (id(n), *place)).collect();
            let map = Map(named, vec![4], 5);
            let ids: Vec<Vec<InstanceId>> =
                interest.iter().map(|room| room.iter().copied().map(id).collect()).collect();
            let parts = parts(ids.len(), Some(&ids), &map);
            for place in 0..4 {
                let wanted: Vec<usize> = (0..interest.len())
                    .filter(|run| interest[*run].iter().any(|n| outlets.get(*n) == Some(&place)))
                    .collect();
                prop_assert_eq!(parts.get(&place).cloned().unwrap_or_default(), wanted);
            }
            prop_assert_eq!(parts.get(&4), Some(&(0..interest.len()).collect()));
            prop_assert!(parts.iter().all(|(place, part)| *place == 4 || !part.is_empty()));
        }

        #[test]
        fn without_interest_everybody_gets_everything(runs in 0..5_usize, count in 0..5_usize) {
            let parts = parts(runs, None, &Map(HashMap::new(), Vec::new(), count));
            prop_assert_eq!(parts.keys().copied().collect::<BTreeSet<_>>(), (0..count).collect());
            prop_assert!(parts.values().all(|part| part.len() == runs));
        }
    }
}
