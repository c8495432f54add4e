//! What a running load counts, cheap enough for every delivery, and the last second's delays. It keeps no history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// A look at a running load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Messages sent, resends not counted.
    pub sent: u64,
    /// Answered `ok`.
    pub acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Given up without an answer.
    pub unknown: u64,
    /// Sent and neither answered nor given up.
    pub unanswered: u64,
    /// Messages that came.
    pub delivered: u64,
    /// Connections made after the first of each client.
    pub reconnects: u64,
    /// Attempts to connect that failed.
    pub failed_connects: u64,
    /// Clients with a connection.
    pub connected: u32,
    /// The same, by instance.
    pub connected_by_instance: BTreeMap<String, u32>,
    /// From sending to `ok`, 99th percentile of the last full second, ms; `None` = there was none.
    pub ack_p99_ms: Option<f64>,
    /// From a beacon's sending to each delivery, likewise.
    pub delivery_p99_ms: Option<f64>,
}

/// Counters.
#[derive(Debug, Default)]
pub(super) struct LoadCounters {
    pub sent: AtomicU64,
    pub acked: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    pub delivered: AtomicU64,
    pub reconnects: AtomicU64,
    pub failed_connects: AtomicU64,
    pub acks: Delays,
    pub deliveries: Delays,
}

impl LoadCounters {
    pub(super) fn progress(&self, now_us: u64) -> Progress {
        let (acked, refused) = (self.acked.load(Relaxed), self.refused.load(Relaxed));
        let (unknown, sent) = (self.unknown.load(Relaxed), self.sent.load(Relaxed));
        Progress {
            sent,
            acked,
            refused,
            unknown,
            // Read one after the other, not at one instant: the sum may be ahead of `sent`.
            unanswered: sent.saturating_sub(acked + refused + unknown),
            delivered: self.delivered.load(Relaxed),
            reconnects: self.reconnects.load(Relaxed),
            failed_connects: self.failed_connects.load(Relaxed),
            connected: 0,
            connected_by_instance: BTreeMap::new(),
            ack_p99_ms: self.acks.p99_ms(now_us),
            delivery_p99_ms: self.deliveries.p99_ms(now_us),
        }
    }
}

pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Eight buckets for each doubling, so a percentile is right within 12 %.
const BUCKETS: usize = 8 * 48;
/// Seconds kept: the one that runs, the last full one, and one for latecomers.
const SECONDS: usize = 3;

/// Delays by second.
#[derive(Debug)]
pub(super) struct Delays(Mutex<[Second; SECONDS]>);

#[derive(Debug, Clone)]
struct Second {
    which: u64,
    buckets: Vec<u32>,
}

impl Default for Delays {
    fn default() -> Self {
        let second = || Second { which: 0, buckets: vec![0; BUCKETS] };
        Self(Mutex::new([second(), second(), second()]))
    }
}

impl Delays {
    pub(super) fn took(&self, now_us: u64, us: u64) {
        let which = now_us / 1_000_000;
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = &mut seconds[which as usize % SECONDS];
        // A place is used again every three seconds: what it holds then is of another second.
        if second.which != which {
            second.which = which;
            second.buckets.fill(0);
        }
        second.buckets[bucket(us)] += 1;
    }

    fn p99_ms(&self, now_us: u64) -> Option<f64> {
        let which = (now_us / 1_000_000).checked_sub(1)?;
        let seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = seconds.iter().find(|second| second.which == which)?;
        let total: u64 = second.buckets.iter().map(|count| u64::from(*count)).sum();
        let mut left = total - total * 99 / 100;
        let reaches = |(place, count): (usize, &u32)| {
            left = left.saturating_sub(u64::from(*count));
            (left == 0).then(|| upper_ms(place))
        };
        (total > 0).then(|| second.buckets.iter().enumerate().rev().find_map(reaches)).flatten()
    }
}

fn bucket(us: u64) -> usize {
    let us = us.max(8);
    let doubling = us.ilog2();
    let eighth = (us >> (doubling - 3)) & 7;
    (((doubling - 3) * 8) as usize + eighth as usize).min(BUCKETS - 1)
}

fn upper_ms(place: usize) -> f64 {
    let (doubling, eighth) = (place / 8, place % 8);
    ((9 + eighth) as f64) * f64::from(1_u32 << doubling.min(31)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_full_second_is_told_within_an_eighth() {
        let delays = Delays::default();
        assert_eq!(delays.p99_ms(5_000_000), None);
        for n in 1..=1_000_u64 {
            delays.took(7_000_000 + n, n * 1_000);
        }
        delays.took(8_000_000, 9_000_000);
        let p99 = delays.p99_ms(8_500_000).unwrap();
        assert!((990.0..1_120.0).contains(&p99), "{p99}");
        assert_eq!(delays.p99_ms(7_500_000), None, "a second without any says nothing");
        assert!(delays.p99_ms(9_100_000).unwrap() >= 9_000.0);
        assert_eq!(delays.p99_ms(20_000_000), None);
    }
}
