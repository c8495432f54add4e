//! How long others will believe a service's certificate: measured, and looked after. Renews nothing; what is said of it
//! is in `notice.rs`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_lifecycle::Scope;

use super::Identity;
use crate::metrics::Registry;

const NAME: &str = "tls_certificate_left_seconds";
const HELP: &str =
    "Time until the certificate of tls.cert, or its authority's, is believed no more; absent without TLS";

/// Looks at the files of an identity until the scope's stage, and measures what is left; without one there is no value.
pub fn look_after(identity: Option<Identity>, metrics: &Registry, scope: &Scope) {
    measure(identity.clone(), metrics);
    if let Some(identity) = identity.filter(Identity::has_files) {
        scope.spawn("tls-files", identity.follow(scope.token()));
    }
}

/// Registers the metric.
pub fn measure(identity: Option<Identity>, metrics: &Registry) {
    metrics.describe(NAME, "gauge", HELP);
    metrics.with(|registry| registry.register_collector(Box::new(Left(identity))));
}

#[derive(Debug)]
struct Left(Option<Identity>);

impl Collector for Left {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(identity) = &self.0 else { return Ok(()) };
        let left = ConstGauge::new(i64::try_from(identity.left().as_secs()).unwrap_or(i64::MAX));
        left.encode(encoder.encode_descriptor(NAME, HELP, None, left.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_nothing_is_measured() {
        let metrics = Registry::new("test");
        measure(None, &metrics);
        assert!(!metrics.encode().contains(NAME) && metrics.descriptors().len() == 1);
    }
}
