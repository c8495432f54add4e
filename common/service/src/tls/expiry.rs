//! How long others will believe a service's certificate: measured, and said each day of its last thirty. Renews nothing.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_lifecycle::Scope;

use super::Identity;
use crate::metrics::Registry;

const NAME: &str = "tls_certificate_left_seconds";
const HELP: &str =
    "Time until the certificate of tls.cert, or its authority's, is believed no more; absent without TLS";
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Before its end a certificate is worth a warning for so long.
pub(super) const SOON: Duration = Duration::from_secs(30 * DAY);

/// What is left, as it is said: in days, on the last one in hours. The same words for the same warning, so that it is
/// said once; `None`: long enough.
pub(super) fn notice(left: Duration) -> Option<String> {
    let seconds = left.as_secs();
    match seconds {
        0 => Some("has expired".to_owned()),
        _ if left >= SOON => None,
        _ if seconds >= DAY => Some(format!("expires within {} days", seconds / DAY + 1)),
        _ if seconds >= HOUR => Some(format!("expires within {} hours", seconds / HOUR + 1)),
        _ => Some("expires within the hour".to_owned()),
    }
}

/// Looks at the files of an identity until the scope's stage, and measures what is left; without one there is no value.
pub fn look_after(identity: Option<Identity>, metrics: &Registry, scope: &Scope) {
    measure(identity.clone(), metrics);
    if let Some(identity) = identity {
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
    fn it_is_said_each_day_and_on_the_last_one_each_hour() {
        let said = |seconds: u64| notice(Duration::from_secs(seconds));
        assert_eq!([said(30 * DAY), said(400 * DAY)], [None, None]);
        assert_eq!(said(30 * DAY - 1).as_deref(), Some("expires within 30 days"));
        assert_eq!(said(DAY).as_deref(), Some("expires within 2 days"));
        assert_eq!(said(DAY - 1).as_deref(), Some("expires within 24 hours"));
        assert_eq!(
            (said(1).as_deref(), said(0).as_deref()),
            (Some("expires within the hour"), Some("has expired"))
        );
    }

    #[test]
    fn without_tls_nothing_is_measured() {
        let metrics = Registry::new("test");
        measure(None, &metrics);
        assert!(!metrics.encode().contains(NAME) && metrics.descriptors().len() == 1);
    }
}
