//! A turn: what a shard does without a pause, while nothing else of it can happen. Every way into a shard
//! is a turn here, so that each is measured, and begins with a look at the clock.

use std::cell::RefCell;
use std::future::Future;
use std::rc::{Rc, Weak};

use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::Shard;
use crate::defaults::TURN;

/// How long a turn may go on: what it has no time for is done in the next one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    until: Instant,
    now: fn() -> Instant,
}

impl Budget {
    /// Of a turn that begins now.
    pub(super) fn begin() -> Self {
        Self::by(Instant::now)
    }

    /// A turn that is measured by another clock.
    pub(super) fn by(now: fn() -> Instant) -> Self {
        Self { until: now() + TURN, now }
    }

    /// Whether it is others' turn.
    pub(super) fn is_spent(self) -> bool {
        (self.now)() >= self.until
    }
}

/// A shard, as its own tasks hold it.
#[derive(Clone)]
pub(crate) struct ShardCell(Rc<RefCell<Shard>>);

/// As the shard itself holds it, for the tasks it starts.
#[derive(Clone)]
pub(super) struct WeakCell(Weak<RefCell<Shard>>);

impl ShardCell {
    /// A shard made with its own handle.
    pub(super) fn new(make: impl FnOnce(WeakCell) -> Shard) -> Self {
        // The shard holds its own cell weakly: a strong one would never let it go, nor what its tasks hold.
        Self(Rc::new_cyclic(|cell| RefCell::new(make(WeakCell(cell.clone())))))
    }

    /// Runs one turn and measures it.
    pub(super) fn turn<R>(&self, act: impl FnOnce(&mut Shard) -> R) -> R {
        let began = Instant::now();
        // Cannot be held already: a turn never waits, and all tasks of a shard are on one thread.
        let shard = &mut *self.0.borrow_mut();
        // Before anything acts: after a freeze the lease may be another's.
        shard.check_freeze(began);
        let result = act(shard);
        shard.counters.turn(began.elapsed());
        result
    }
}

impl Shard {
    /// Starts a task of this shard; it ends with the shard's thread at the latest.
    pub(super) fn local<F>(&self, task: impl FnOnce(ShardCell) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(self.abortable(task));
    }

    /// Starts a task of this shard that can be dropped before its end.
    pub(super) fn abortable<F>(&self, task: impl FnOnce(ShardCell) -> F) -> Option<AbortHandle>
    where
        F: Future<Output = ()> + 'static,
    {
        let cell = self.cell.0.upgrade()?;
        Some(spawn_local(task(ShardCell(cell))).abort_handle())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// By which no time passes.
    pub(in crate::shard) fn stopped() -> Instant {
        static AT: OnceLock<Instant> = OnceLock::new();
        *AT.get_or_init(Instant::now)
    }

    /// Each look at it takes a millisecond.
    pub(in crate::shard) fn clock() -> Instant {
        NOW.with(|now| {
            let next = now.get().map_or_else(Instant::now, |now| now + Duration::from_millis(1));
            now.set(Some(next));
            next
        })
    }

    #[test]
    fn a_turn_ends_when_its_time_is_over() {
        let budget = Budget::by(clock);
        let steps = (0..).take_while(|_| !budget.is_spent()).count();
        assert_eq!(steps as u128, TURN.as_millis() - 1);
    }
}
