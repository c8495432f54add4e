//! Sums of a shard since the last tick, added to those of the gateway then: never once per message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_service::metrics::LatencyTally;

use super::Shard;
use super::deliveries::Told;
use crate::metrics::Departure;
use crate::uplink::Outcome;

/// What happened since the last tick, and levels as last told.
#[derive(Debug, Default)]
pub(super) struct Counters {
    frames_in: u64,
    slow: u64,
    ping_timeouts: u64,
    accepted: u64,
    completed: u64,
    rejected: u64,
    retries: u64,
    unknown: u64,
    moved: u64,
    closed: u64,
    dropped: u64,
    longest_turn: Duration,
    publish: LatencyTally,
    delivery: LatencyTally,
    levels: Levels,
}

/// Levels as last added to the sums of the gateway.
#[derive(Debug, Default)]
struct Levels {
    subscriptions: i64,
    rooms: i64,
    publishes: i64,
    queued_bytes: i64,
    event_streams: i64,
    catching_up: i64,
}

impl Counters {
    /// A frame of a client.
    pub(super) fn frame(&mut self) {
        self.frames_in += 1;
    }

    /// A publish was accepted.
    pub(super) fn publish(&mut self) {
        self.accepted += 1;
    }

    /// A publish has its outcome, so long after it was taken.
    pub(super) fn outcome(&mut self, outcome: &Outcome, took: Option<Duration>) {
        // Of an `ok` alone: what is to be sent again was given up at a deadline, or before it was sent.
        if outcome.is_ok()
            && let Some(took) = took
        {
            self.publish.observe(took);
        }
        match outcome {
            Outcome::Stored { .. }
            | Outcome::Duplicate { .. }
            | Outcome::Scheduled { .. }
            | Outcome::Cancelled
            | Outcome::TooLate => self.completed += 1,
            Outcome::Conflict | Outcome::Refused { .. } => self.rejected += 1,
            Outcome::NotSent => self.retries += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Subscribers have a message so long after it was stored.
    pub(super) fn delivery(&mut self, took: Duration) {
        self.delivery.observe(took);
    }

    /// A connection is closed because it took no byte.
    pub(super) fn slow(&mut self) {
        self.slow += 1;
    }

    /// A connection is closed because it did not answer a ping.
    pub(super) fn ping_timeout(&mut self) {
        self.ping_timeouts += 1;
    }

    /// A client left while the gateway stops.
    pub(super) fn departure(&mut self, departure: Departure) {
        match departure {
            Departure::Moved => self.moved += 1,
            Departure::Closed => self.closed += 1,
            Departure::Dropped => self.dropped += 1,
        }
    }

    /// A turn took so long.
    pub(super) fn turn(&mut self, took: Duration) {
        self.longest_turn = self.longest_turn.max(took);
    }
}

impl Shard {
    /// What live subscribers were to get has been written: the kernel has it, or it waits for a client that is slow.
    pub(super) fn measure_deliveries(&mut self) {
        let mut now_ms = None;
        for stored_ms in self.views.deliveries().take_samples() {
            let now_ms = *now_ms.get_or_insert_with(|| self.shared.clock.now_ms());
            // The clocks of two machines: where this one is behind, a message arrives before it was stored.
            let took_ms = u64::try_from(now_ms.saturating_sub(stored_ms)).unwrap_or(0);
            self.counters.delivery(Duration::from_millis(took_ms));
        }
    }

    /// Adds what happened to the sums of the gateway.
    pub(super) fn count(&mut self) {
        let (metrics, stats) = (&self.shared.metrics, &self.shared.stats);
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (delivered, events, written) = self.connections.take_sums();
        metrics.deliveries.inc_by(delivered);
        metrics.event_deliveries.inc_by(events);
        metrics.bytes_out.inc_by(written);
        // Levels are told by their change: no shard knows the sum that the others have added to.
        let levels = Levels {
            subscriptions: level(self.views.subscriptions),
            rooms: level(self.driver.rooms_len()),
            publishes: level(self.unanswered.items()),
            queued_bytes: level(self.connections.queued_bytes()),
            event_streams: level(self.connections.event_streams()),
            catching_up: level(self.views.deliveries().catching_up()),
        };
        let Told { recovered, not_recovered, skips, skipped } = self.views.deliveries().take_told();
        metrics.resumed(true).inc_by(recovered);
        metrics.resumed(false).inc_by(not_recovered);
        metrics.skips.inc_by(skips);
        metrics.skipped.inc_by(skipped);
        let former = std::mem::take(&mut self.counters);
        metrics.frames_in.inc_by(former.frames_in);
        metrics.slow.inc_by(former.slow);
        metrics.silent.inc_by(former.ping_timeouts);
        metrics.publishes.inc_by(former.accepted);
        metrics.retries.inc_by(former.retries + former.unknown);
        stats.accepted.fetch_add(former.accepted, Ordering::Relaxed);
        stats.completed.fetch_add(former.completed, Ordering::Relaxed);
        stats.rejected.fetch_add(former.rejected, Ordering::Relaxed);
        stats.unknown.fetch_add(former.unknown, Ordering::Relaxed);
        metrics.publish_seconds.add(&former.publish);
        metrics.delivery_seconds.add(&former.delivery);
        metrics.departed(Departure::Moved).inc_by(former.moved);
        metrics.departed(Departure::Closed).inc_by(former.closed);
        metrics.departed(Departure::Dropped).inc_by(former.dropped);
        stats.moved.fetch_add(former.moved, Ordering::Relaxed);
        stats.closed.fetch_add(former.closed, Ordering::Relaxed);
        stats.dropped.fetch_add(former.dropped, Ordering::Relaxed);
        let before = former.levels;
        stats.subscriptions.fetch_add(levels.subscriptions - before.subscriptions, Ordering::Relaxed);
        stats.rooms.fetch_add(levels.rooms - before.rooms, Ordering::Relaxed);
        stats.publishes.fetch_add(levels.publishes - before.publishes, Ordering::Relaxed);
        stats.queued_bytes.fetch_add(levels.queued_bytes - before.queued_bytes, Ordering::Relaxed);
        let event_streams = levels.event_streams - before.event_streams;
        stats.event_streams.fetch_add(event_streams, Ordering::Relaxed);
        metrics.event_streams.inc_by(event_streams);
        metrics.subscriptions.inc_by(levels.subscriptions - before.subscriptions);
        metrics.catching_up.inc_by(levels.catching_up - before.catching_up);
        metrics.connections.set(level(stats.connections.load(Ordering::Relaxed)));
        metrics.longest_turn.observe(former.longest_turn.as_secs_f64());
        stats.turn(former.longest_turn);
        self.counters.levels = levels;
    }
}
