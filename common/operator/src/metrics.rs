//! What the registry of instances looks like from this process, read when metrics are asked for.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_cluster::{Cluster, InstanceState, Service};
use sluice_service::metrics::Registry;

const INSTANCES: (&str, &str) = ("instances", "Instances that are registered, by service and state");
const LEASES_LOST: (&str, &str) = ("leases_lost", "Times this process lost its registration");
const OWNED: (&str, &str) = ("duties_owned", "Duties this process does now");
const TAKEN: (&str, &str) =
    ("duties_taken", "Duties taken, by whose they were: of nobody, given back, or taken over from who ended");
const GIVEN_BACK: (&str, &str) = ("duties_given_back", "Duties given back");
const LOST: (&str, &str) = ("duties_lost", "Duties lost without being given back");

/// Adds them to `metrics`.
pub fn register(metrics: &Registry, cluster: Arc<dyn Cluster>) {
    for ((name, help), kind) in [
        (INSTANCES, "gauge"),
        (LEASES_LOST, "counter"),
        (OWNED, "gauge"),
        (TAKEN, "counter"),
        (GIVEN_BACK, "counter"),
        (LOST, "counter"),
    ] {
        metrics.describe(name, kind, help);
    }
    metrics.with(|registry| registry.register_collector(Box::new(Membership(cluster))));
}

struct Membership(Arc<dyn Cluster>);

impl Membership {
    fn instances(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.0.view().borrow().clone();
        let kind = ConstGauge::new(0_i64).metric_type();
        let mut family = encoder.encode_descriptor(INSTANCES.0, INSTANCES.1, None, kind)?;
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            for (state, label) in [(InstanceState::Serving, "serving"), (InstanceState::Draining, "draining")]
            {
                let these = view.of(service).filter(|one| one.state == state && !one.is_seed()).count();
                let labels = [("service", service.as_str()), ("state", label)];
                let gauge = ConstGauge::new(i64::try_from(these).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn taken(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.counts();
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor(TAKEN.0, TAKEN.1, None, kind)?;
        for (from, count) in [
            ("nobody", counts.from_nobody),
            ("given_back", counts.given_by_others),
            ("ended", counts.taken_over),
        ] {
            ConstCounter::new(count).encode(family.encode_family(&[("from", from)])?)?;
        }
        Ok(())
    }
}

impl Collector for Membership {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.instances(&mut encoder)?;
        self.taken(&mut encoder)?;
        let owned = ConstGauge::new(i64::try_from(self.0.owned().borrow().len()).unwrap_or(i64::MAX));
        let kind = owned.metric_type();
        owned.encode(encoder.encode_descriptor(OWNED.0, OWNED.1, None, kind)?)?;
        let counts = self.0.counts();
        for ((name, help), count) in
            [(LEASES_LOST, counts.leases_lost), (GIVEN_BACK, counts.given_back), (LOST, counts.lost)]
        {
            let counter = ConstCounter::new(count);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Membership")
    }
}
