//! When a shard has to wake, and what is due then: connections, views, the home.

use std::time::Duration;

use tokio::time::Instant;

use super::Shard;
use crate::defaults::TICK;
use crate::tick::Tick;

/// Between two looks at rooms and lanes while something is under way.
const BUSY_TICK: Duration = Duration::from_millis(20);

impl Shard {
    /// When the timer has to wake.
    pub(super) fn arm(&mut self) -> Instant {
        self.armed = self.wakes_at();
        self.armed
    }

    fn wakes_at(&self) -> Instant {
        let now = Instant::now();
        let now_ms = self.now();
        let tick = self.began + TICK.saturating_mul(self.connections.wheel.now().saturating_add(1));
        let busy = if self.home.is_busy(now_ms) { now + BUSY_TICK } else { tick };
        let view = self.views.next_deadline().map_or(tick, |at| self.began + Duration::from_millis(at));
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
        self.check_freeze();
        let now = self.now();
        let tick = Tick::try_from(u128::from(now) / TICK.as_millis()).unwrap_or(Tick::MAX);
        if tick > self.connections.wheel.now() {
            let mut due = Vec::new();
            self.connections.wheel.advance(tick, &mut due);
            for entry in due {
                self.on_deadline(entry);
            }
            self.count();
        }
        self.views.on_tick(&mut self.connections, now);
        let clock = self.clock();
        self.home(|home, now, ports| home.on_tick(now, clock, ports));
    }
}
