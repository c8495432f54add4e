//! One metrics registry per node, so that several services can live in one process. No globals.
//!
//! Counters, gauges and histograms only; base units; never a user or a room as a label.

mod latency;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry as Inner};

pub use self::latency::{LatencyHistogram, LatencyTally};

/// The content type of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Every name begins with it.
pub const PREFIX: &str = "sluice";

/// Seconds from 0.5 ms to 8 s, doubling: a commit takes 1…50 ms, a deadline is seconds.
pub const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
];
/// Sizes of batches, doubling up to the most items of a call.
pub const ITEMS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// What a metric is, whether or not it has a value yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The name that a scraper sees, suffix included.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// For people.
    pub help: String,
}

/// The metrics of one node; clones share them.
#[derive(Clone)]
pub struct Registry(Arc<RegistryState>);

struct RegistryState {
    prefix: String,
    inner: Mutex<Inner>,
    /// Beside `inner`, which does not show a family without children.
    descriptors: Mutex<Vec<Descriptor>>,
}

impl Registry {
    /// An empty registry with names `sluice_<service>_…`.
    #[must_use]
    pub fn new(service: &str) -> Self {
        let prefix = format!("{PREFIX}_{service}");
        let inner = Mutex::new(Inner::with_prefix(prefix.clone()));
        Self(Arc::new(RegistryState { prefix, inner, descriptors: Mutex::default() }))
    }

    /// Registers any metric. `name` without prefix, with its base unit last; `_total` is added to counters.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.describe(name, metric.metric_type().as_str(), help);
        self.with(|inner| inner.register(name, help, metric.clone()));
        metric
    }

    /// Enters a metric that is registered by [`Registry::with`], as a collector is.
    pub fn describe(&self, name: &str, kind: &str, help: &str) {
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let name = format!("{}_{name}{suffix}", self.0.prefix);
        let descriptor = Descriptor { name, kind: kind.to_owned(), help: help.to_owned() };
        self.0.descriptors.lock().unwrap_or_else(PoisonError::into_inner).push(descriptor);
    }

    /// All metrics in the order of their registration.
    #[must_use]
    pub fn descriptors(&self) -> Vec<Descriptor> {
        self.0.descriptors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A histogram with these upper bounds, for instance [`SECONDS`] or [`ITEMS`].
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(bounds.iter().copied()))
    }

    /// A histogram of seconds with the bounds [`SECONDS`], for what is measured too often for a lock.
    #[must_use]
    pub fn latency(&self, name: &str, help: &str) -> LatencyHistogram {
        self.register(name, help, LatencyHistogram::default())
    }

    /// Counters by label.
    #[must_use]
    pub fn counters<L>(&self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: Clone + std::hash::Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
    {
        self.register(name, help, Family::default())
    }

    /// The underlying registry, for what the shortcuts do not cover.
    pub fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        // Held for a registration or one scrape; recording takes no lock.
        f(&mut self.0.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.with(|inner| encode(&mut text, inner));
        text
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_shown_with_prefix_and_unit() {
        let registry = Registry::new("gateway");
        registry.counter("messages", "Messages passed on").inc_by(3);
        registry.gauge("connections", "Open connections").set(2);
        registry.histogram("batch_items", "Items of a batch", &ITEMS).observe(3.0);
        let text = registry.encode();
        for line in [
            "sluice_gateway_messages_total 3",
            "sluice_gateway_connections 2",
            "sluice_gateway_batch_items_bucket{le=\"4.0\"} 1",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
