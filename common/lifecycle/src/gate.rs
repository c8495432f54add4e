//! Gates: for calls too short to be tasks. Close it, and nobody new comes in; then wait for those inside.
//!
//! A gate has no time limit of its own: the stage of the hook that waits has.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The lowest bit says closed, the others count who is inside.
const CLOSED: usize = 1;
const ONE: usize = 2;

/// A door with a counter. Cheap to clone; clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    name: &'static str,
    state: AtomicUsize,
    /// How many are waiting for it to be empty.
    waiters: AtomicUsize,
    emptied: Notify,
}

impl Shared {
    /// How many are inside, if somebody waits for them.
    pub(crate) fn blocking(&self) -> Option<(&'static str, usize)> {
        let inside = self.state.load(Ordering::SeqCst) / ONE;
        (inside > 0 && self.waiters.load(Ordering::SeqCst) > 0).then_some((self.name, inside))
    }

    fn is_over(&self) -> bool {
        self.state.load(Ordering::SeqCst) == CLOSED
    }
}

impl Gate {
    pub(crate) fn new(name: &'static str) -> Gate {
        let shared =
            Shared { name, state: AtomicUsize::new(0), waiters: AtomicUsize::new(0), emptied: Notify::new() };
        Gate { shared: Arc::new(shared) }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Goes in, unless the gate is closed.
    pub fn enter(&self) -> Option<GateGuard> {
        let before = self.shared.state.fetch_add(ONE, Ordering::SeqCst);
        let guard = GateGuard { shared: Arc::clone(&self.shared) };
        // A refused guard leaves by its drop, like any other.
        (before & CLOSED == 0).then_some(guard)
    }

    /// Refuses whoever comes from now on. Twice is once.
    pub fn close(&self) {
        self.shared.state.fetch_or(CLOSED, Ordering::SeqCst);
        if self.shared.is_over() {
            self.shared.emptied.notify_waiters();
        }
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.shared.state.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.shared.state.load(Ordering::SeqCst) / ONE
    }

    /// Waits until the gate is closed and the last one has left. Whoever it waits for is named in
    /// [`Lifecycle::blockers`](crate::Lifecycle::blockers).
    pub async fn closed_and_empty(&self) {
        let _waiting = Waiting::new(&self.shared);
        loop {
            let mut emptied = pin!(self.shared.emptied.notified());
            emptied.as_mut().enable();
            if self.shared.is_over() {
                return;
            }
            emptied.await;
        }
    }
}

/// Being inside a [`Gate`]; dropping it is leaving.
#[must_use = "dropping the guard leaves the gate"]
pub struct GateGuard {
    shared: Arc<Shared>,
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        if self.shared.state.fetch_sub(ONE, Ordering::SeqCst) == ONE | CLOSED {
            self.shared.emptied.notify_waiters();
        }
    }
}

struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Waiting<'a> {
        shared.waiters.fetch_add(1, Ordering::SeqCst);
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
