//! What a shard does besides serving connections: orders, time, reports, sums for others to see.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_proto::grpc::StatusChange;
use tokio::time::Instant;

use super::handle::Order;
use super::wheel::Tick;
use super::{Cell, Incoming, Levels, Shard, greeting};
use crate::defaults::{SHARD_UNANSWERED_BYTES_MAX, SHARD_UNANSWERED_ITEMS_MAX, TICK};
use crate::push::Missed;
use crate::status::Told;

/// Between two looks at rooms and lanes while something is under way.
const BUSY_TICK: Duration = Duration::from_millis(20);

impl Shard {
    /// A message from the queue.
    pub(super) fn take(&mut self, message: Incoming) {
        match message {
            Incoming::Letter(letter) => self.take_letter(letter),
            Incoming::Order(order) => self.obey(order),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Socket(socket) => {
                let around = self.around.clone();
                self.local(|cell: Cell| greeting::greet(cell, around, socket));
            }
            Order::Pushed { epoch, runs } => {
                self.home(|home, now, ports| home.pushed(now, epoch, &runs, ports));
            }
            Order::TellAll { generation } => self.reports.begin(generation),
            Order::FullSetEnded => self.reports.end(),
            Order::TellRest => self.reports.finish(),
            Order::Notify(pace, told) => self.notify_all(pace, told),
            Order::Close(close, empty) => self.close_all(close, empty),
        }
    }

    /// Pushes may have been missed.
    pub(super) fn missed(&mut self, before: Missed, now: Missed) {
        let all = before.resync != now.resync;
        self.home(|home, at, ports| home.missed(at, all, ports));
    }

    /// When the timer has to wake.
    pub(super) fn arm(&mut self) -> Instant {
        self.armed = self.wakes_at();
        self.armed
    }

    fn wakes_at(&self) -> Instant {
        let now = Instant::now();
        let now_ms = self.now();
        let tick = self.began + TICK.saturating_mul(self.floor.wheel.now().saturating_add(1));
        let busy = if self.home.is_busy(now_ms) { now + BUSY_TICK } else { tick };
        let view = self.hub.next_deadline().map_or(tick, |at| self.began + Duration::from_millis(at));
        tick.min(busy).min(view)
    }

    /// Wakes the timer if something is due before it would wake.
    pub(super) fn rearm(&self) {
        if self.wakes_at() < self.armed {
            self.earlier.notify_one();
        }
    }

    /// The timer has come.
    pub(super) fn on_time(&mut self) {
        self.look_at_clock();
        let now = self.now();
        let tick = Tick::try_from(u128::from(now) / TICK.as_millis()).unwrap_or(Tick::MAX);
        if tick > self.floor.wheel.now() {
            let mut due = Vec::new();
            self.floor.wheel.advance(tick, &mut due);
            for entry in due {
                self.on_deadline(entry);
            }
            self.count();
        }
        self.hub.on_tick(&mut self.floor, now);
        let clock = self.clock();
        self.home(|home, now, ports| home.on_tick(now, clock, ports));
    }

    /// Too many publishes wait: sockets are not read until half of them have their outcome.
    pub(super) fn look_whether_starved(&mut self) {
        self.starved |= self.unanswered >= SHARD_UNANSWERED_ITEMS_MAX
            || self.unanswered_bytes >= SHARD_UNANSWERED_BYTES_MAX;
    }

    pub(super) fn feed_the_starved(&mut self) {
        if !self.starved
            || self.unanswered > SHARD_UNANSWERED_ITEMS_MAX / 2
            || self.unanswered_bytes > SHARD_UNANSWERED_BYTES_MAX / 2
        {
            return;
        }
        self.starved = false;
        for (_, connection) in &mut self.floor.connections {
            connection.resume(false);
        }
    }

    /// A change for logic.
    pub(super) fn report(&mut self, change: StatusChange) {
        self.reports.push(change);
    }

    /// The next thing for the reporter.
    pub(super) fn next_report(&mut self) -> Option<Told> {
        let (home, connections) = (&self.home, &self.floor.connections);
        self.reports.next(|full| full.part(home, connections))
    }

    /// Adds what happened to the sums of the gateway.
    pub(super) fn count(&mut self) {
        let metrics = &self.around.metrics;
        let stats = &self.around.stats;
        metrics.frames_in.inc_by(std::mem::take(&mut self.frames_in));
        metrics.deliveries.inc_by(std::mem::take(&mut self.floor.delivered));
        metrics.bytes_out.inc_by(std::mem::take(&mut self.floor.written));
        metrics.slow.inc_by(std::mem::take(&mut self.slow));
        metrics.silent.inc_by(std::mem::take(&mut self.silent));
        let tally = std::mem::take(&mut self.tally);
        metrics.publishes.inc_by(tally.accepted);
        metrics.retries.inc_by(tally.retries + tally.unknown);
        stats.accepted.fetch_add(tally.accepted, Ordering::Relaxed);
        stats.completed.fetch_add(tally.completed, Ordering::Relaxed);
        stats.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
        stats.unknown.fetch_add(tally.unknown, Ordering::Relaxed);
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let levels = Levels {
            subscriptions: level(self.hub.subscriptions),
            rooms: level(self.home.rooms_len()),
            publishes: level(self.unanswered),
            queued_bytes: level(self.floor.queued_bytes()),
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
