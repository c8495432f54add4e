//! When a shard has to wake, and what is due then: connections, views, the home. Also notices when the
//! process stood still.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shard;
use super::turn::Budget;
use crate::defaults::TICK;
use crate::room::link::Ms;
use crate::tick::Tick;

/// Between two looks at rooms and lanes while something is under way.
const BUSY_TICK: Duration = Duration::from_millis(20);

/// The clock of a shard, and its one timer.
#[derive(Debug)]
pub(super) struct Timers {
    began: Instant,
    /// When the timer wakes next.
    armed: Instant,
    /// Wakes the timer, as something is due earlier.
    earlier: Rc<Notify>,
    /// When the clock was last looked at: a gap above the lease's life is a freeze.
    clock_read_at: Instant,
}

impl Timers {
    /// A shard begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, armed: now, earlier: Rc::default(), clock_read_at: now }
    }

    /// Milliseconds since the shard began.
    pub(super) fn now(&self) -> Ms {
        let elapsed = Instant::now().saturating_duration_since(self.began);
        Ms::try_from(elapsed.as_millis()).unwrap_or(Ms::MAX)
    }

    /// How long the clock was not looked at.
    pub(super) fn read_clock(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(std::mem::replace(&mut self.clock_read_at, now))
    }

    /// Told when something is due before the timer would wake.
    pub(super) fn earlier(&self) -> Rc<Notify> {
        Rc::clone(&self.earlier)
    }
}

impl Shard {
    /// When the timer has to wake.
    pub(super) fn arm(&mut self) -> Instant {
        self.timers.armed = self.wakes_at();
        self.timers.armed
    }

    fn wakes_at(&self) -> Instant {
        let now = Instant::now();
        let (began, now_ms) = (self.timers.began, self.timers.now());
        let tick = began + TICK.saturating_mul(self.connections.tick().saturating_add(1));
        let busy = if self.driver.is_busy(now_ms) { now + BUSY_TICK } else { tick };
        let view = self.views.next_deadline().map_or(tick, |at| began + Duration::from_millis(at));
        tick.min(busy).min(view)
    }

    /// Wakes the timer if something is due before it would wake.
    pub(super) fn rearm(&self) {
        if self.wakes_at() < self.timers.armed {
            self.timers.earlier.notify_one();
        }
    }

    /// The timer has come. `true` = there was more than one turn has time for: call it again.
    pub(super) fn on_time(&mut self, budget: Budget) -> bool {
        let now = self.timers.now();
        let tick = Tick::try_from(u128::from(now) / TICK.as_millis()).unwrap_or(Tick::MAX);
        // Views and lanes wake this timer more often than the wheel moves.
        if tick > self.connections.tick() {
            self.connections.advance(tick);
            self.count();
            self.refuse_late_pages();
        }
        while let Some(entry) = self.connections.next_due() {
            self.on_deadline(entry);
            if budget.is_spent() {
                // The rest at once, but after the sockets: the caller lets them have their turn.
                return true;
            }
        }
        let more_views = self.views.on_tick(&mut self.connections, now);
        let clock = self.clock();
        let mut more_rooms = false;
        self.home(|home, now, ports| more_rooms = home.on_tick(now, clock, ports));
        more_views || more_rooms
    }

    /// A process that stood still for longer than its lease was declared dead, and what it still holds must
    /// not be stored (A11). Looked at first in every turn: whatever the turn does comes after.
    pub(super) fn check_freeze(&mut self, now: Instant) {
        let gap = self.timers.read_clock(now);
        if gap > self.shared.config.etcd.lease_ttl() {
            tracing::warn!(
                gap_ms = gap.as_millis(),
                shard = self.me,
                "This process stood still; its connections are closed."
            );
            self.shared.metrics.freezes.inc();
            self.on_freeze();
        }
    }
}
