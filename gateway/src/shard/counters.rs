//! Sums of a shard since the last tick, added to those of the gateway: never once per message.

use std::sync::atomic::Ordering;

use super::Shard;

/// Outcomes since the last tick.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) completed: u64,
    pub(super) rejected: u64,
    pub(super) retries: u64,
    pub(super) unknown: u64,
}

/// Levels as last added to the sums of the gateway.
#[derive(Debug, Default)]
pub(super) struct Levels {
    subscriptions: i64,
    rooms: i64,
    publishes: i64,
    queued_bytes: i64,
}

impl Shard {
    /// Adds what happened to the sums of the gateway.
    pub(super) fn count(&mut self) {
        let metrics = &self.shared.metrics;
        let stats = &self.shared.stats;
        metrics.frames_in.inc_by(std::mem::take(&mut self.frames_in));
        metrics.deliveries.inc_by(std::mem::take(&mut self.connections.delivered));
        metrics.bytes_out.inc_by(std::mem::take(&mut self.connections.written));
        metrics.slow.inc_by(std::mem::take(&mut self.slow));
        metrics.silent.inc_by(std::mem::take(&mut self.ping_timeouts));
        let tally = std::mem::take(&mut self.tally);
        metrics.publishes.inc_by(tally.accepted);
        metrics.retries.inc_by(tally.retries + tally.unknown);
        stats.accepted.fetch_add(tally.accepted, Ordering::Relaxed);
        stats.completed.fetch_add(tally.completed, Ordering::Relaxed);
        stats.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
        stats.unknown.fetch_add(tally.unknown, Ordering::Relaxed);
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let levels = Levels {
            subscriptions: level(self.views.subscriptions),
            rooms: level(self.home.rooms_len()),
            publishes: level(self.unanswered),
            queued_bytes: level(self.connections.queued_bytes()),
        };
        let former = std::mem::replace(&mut self.levels, levels);
        let now = &self.levels;
        stats.subscriptions.fetch_add(now.subscriptions - former.subscriptions, Ordering::Relaxed);
        stats.rooms.fetch_add(now.rooms - former.rooms, Ordering::Relaxed);
        stats.publishes.fetch_add(now.publishes - former.publishes, Ordering::Relaxed);
        stats.queued_bytes.fetch_add(now.queued_bytes - former.queued_bytes, Ordering::Relaxed);
        metrics.subscriptions.inc_by(now.subscriptions - former.subscriptions);
        metrics.connections.set(level(stats.connections.load(Ordering::Relaxed)));
    }
}
