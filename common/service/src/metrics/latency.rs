//! Latencies that are counted where they are measured, without a lock, and added to their histogram now and then: a
//! shard measures each publish and may not pay for it.

use std::fmt;
use std::iter::once;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::SECONDS;

/// One for each bound, and one for what is above all of them.
const BUCKETS: usize = SECONDS.len() + 1;

/// What one thread measured since it last added it to its histogram.
#[derive(Debug, Default)]
pub struct LatencyTally {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl LatencyTally {
    /// Something took so long.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        // A bound belongs to its bucket: `le` is "less or equal".
        let at = SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// A histogram of seconds with the bounds [`SECONDS`]; clones share it.
#[derive(Debug, Clone, Default)]
pub struct LatencyHistogram(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl LatencyHistogram {
    /// Adds what a thread has measured.
    pub fn add(&self, tally: &LatencyTally) {
        for (sum, count) in self.0.counts.iter().zip(tally.counts).filter(|(_, count)| *count > 0) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_add(tally.sum_us, Ordering::Relaxed);
    }

    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for LatencyHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = SECONDS.into_iter().chain(once(f64::INFINITY));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Of the buckets just read: one that is added to meanwhile must not make the sum of all differ from `_count`.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.0.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for LatencyHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn tallies_of_several_threads_are_one_histogram() {
        let registry = Registry::new("gateway");
        let histogram = registry.latency("publish_seconds", "How long");
        for took in [[500, 501], [2_000, 20_000_000]] {
            let mut tally = LatencyTally::default();
            took.into_iter().for_each(|us| tally.observe(Duration::from_micros(us)));
            histogram.add(&tally);
        }
        assert_eq!(histogram.count(), 4);
        let text = registry.encode();
        for line in [
            "# TYPE sluice_gateway_publish_seconds histogram",
            "sluice_gateway_publish_seconds_sum 20.003001",
            "sluice_gateway_publish_seconds_count 4",
            "sluice_gateway_publish_seconds_bucket{le=\"0.0005\"} 1",
            "sluice_gateway_publish_seconds_bucket{le=\"0.001\"} 2",
            "sluice_gateway_publish_seconds_bucket{le=\"0.002\"} 3",
            "sluice_gateway_publish_seconds_bucket{le=\"8.192\"} 3",
            "sluice_gateway_publish_seconds_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
