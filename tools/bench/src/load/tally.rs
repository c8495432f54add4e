//! What a worker counts. Latencies are kept as they are, up to a bound, until the next mark.

use std::time::Instant;

use sluice_load::samples::Samples;

use crate::spec::Snapshot;

/// Counters of all connections of a worker.
pub(super) struct Tally {
    start: Instant,
    /// Clients that are greeted and subscribed.
    pub(super) ready: usize,
    /// Whether publishers publish.
    pub(super) going: bool,
    pub(super) published: u64,
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) reads: u64,
    pub(super) gaps: u64,
    pub(super) skipped: u64,
    pub(super) troubles: u64,
    pub(super) trouble: Option<String>,
    acks: Samples,
    deliveries: Samples,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            ready: 0,
            going: false,
            published: 0,
            acked: 0,
            delivered: 0,
            reads: 0,
            gaps: 0,
            skipped: 0,
            troubles: 0,
            trouble: None,
            acks: Samples::default(),
            deliveries: Samples::default(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now_ns(&self) -> u64 {
        self.ns_at(Instant::now())
    }

    pub(super) fn ns_at(&self, at: Instant) -> u64 {
        at.duration_since(self.start).as_nanos() as u64
    }

    pub(super) fn acked_after(&mut self, ns: u64) {
        self.acked += 1;
        self.acks.took(ns);
    }

    pub(super) fn delivered_after(&mut self, ns: u64) {
        self.deliveries.took(ns);
    }

    pub(super) fn trouble(&mut self, what: impl FnOnce() -> String) {
        self.troubles += 1;
        self.trouble.get_or_insert_with(what);
    }

    pub(super) fn snapshot(&mut self, mark: bool) -> Snapshot {
        let mut looked = |which: fn(&mut Self) -> &mut Samples| mark.then(|| which(self).take()).flatten();
        let (ack, delivery) = (looked(|all| &mut all.acks), looked(|all| &mut all.deliveries));
        Snapshot {
            at_s: self.start.elapsed().as_secs_f64(),
            published: self.published,
            acked: self.acked,
            delivered: self.delivered,
            reads: self.reads,
            gaps: self.gaps,
            skipped: self.skipped,
            troubles: self.troubles,
            trouble: self.trouble.clone(),
            ack,
            delivery,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_forgets_latencies_and_keeps_counters() {
        let mut tally = Tally::new();
        for ms in 1..=100 {
            tally.acked_after(ms * 1_000_000);
        }
        assert!(tally.snapshot(false).ack.is_none());
        let seen = tally.snapshot(true).ack.map(|ack| (ack.p50, ack.p99, ack.max));
        assert_eq!(seen, Some((51.0, 100.0, 100.0)));
        assert!(tally.snapshot(true).ack.is_none());
        assert_eq!(tally.snapshot(true).acked, 100);
    }
}
