//! Outlets: one push stream to each gateway, with a circuit breaker. Who waits for a push holds no more than a ticket;
//! an outlet that lags or has no stream holds none.

mod outlets;
mod queue;
mod registry;
mod stream;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sluice_trace::Spans;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use self::outlets::Outlets;
pub use self::queue::NoticePart;
use self::queue::{Next, OutletQueue, OutletState};
pub use self::registry::Directory;
use crate::metrics::Metrics;

/// Dropped when nobody has to wait any longer.
#[derive(Debug)]
pub struct Ticket {
    /// Nothing is ever sent by it.
    pub _waited: mpsc::Sender<std::convert::Infallible>,
    /// They end with the wait.
    pub _spans: Vec<Spans>,
}

/// The way to one address.
pub struct Outlet {
    address: Arc<str>,
    queue: Mutex<OutletQueue<Ticket>>,
    /// Wakes the stream: something waits to be sent.
    wake: Notify,
    metrics: Metrics,
}

impl Outlet {
    fn new(address: Arc<str>, metrics: Metrics) -> Self {
        Self { address, queue: Mutex::new(OutletQueue::new()), wake: Notify::new(), metrics }
    }

    /// Queues a part of a notice, or drops it: then nobody waits, and the gateway is told when it is back.
    fn offer(&self, part: NoticePart<Ticket>) {
        let taken = self.change(|queue, now| queue.offer(part, now));
        let count = if taken { &self.metrics.pushes } else { &self.metrics.pushes_dropped };
        count.inc();
        if taken {
            self.wake.notify_one();
        }
    }

    fn opened(&self) {
        self.change(|queue, _| queue.opened());
    }

    fn ended(&self) {
        self.change(|queue, _| queue.ended());
    }

    fn acked(&self, id: u64) {
        let since = self.change(|queue, _| queue.acked(id));
        if let Some(since) = since {
            self.metrics.push_seconds.observe(since.elapsed().as_secs_f64());
        }
    }

    fn tick(&self) {
        self.change(OutletQueue::tick);
    }

    fn next(&self) -> Option<Next> {
        let next = self.change(|queue, _| queue.next())?;
        match &next {
            Next::Resync => self.metrics.resyncs.inc(),
            Next::Batch { runs, .. } => {
                self.metrics.push_runs.observe(runs.len() as f64);
                0
            }
        };
        Some(next)
    }

    fn deadline(&self) -> Option<Instant> {
        self.queue().deadline()
    }

    /// Whether nobody waits for anything here.
    fn is_settled(&self) -> bool {
        self.queue().is_settled()
    }

    fn is_lagging(&self) -> bool {
        self.queue().state() == OutletState::Lagging
    }

    fn status(&self) -> Value {
        let queue = self.queue();
        json!({
            "address": &*self.address,
            "state": queue.state().as_str(),
            "queued": queue.queued(),
            "in_flight": queue.in_flight(),
            "missed": queue.missed(),
        })
    }

    /// Applies a change and says so when the gateway begins or ceases to lag.
    fn change<R>(&self, change: impl FnOnce(&mut OutletQueue<Ticket>, Instant) -> R) -> R {
        let mut queue = self.queue();
        let before = queue.state();
        let result = change(&mut queue, Instant::now());
        // Both states under one lock, so that each change is logged once.
        let after = queue.state();
        drop(queue);
        match (before, after) {
            (OutletState::Lagging, OutletState::Open) => {
                tracing::info!(
                    gateway = &*self.address,
                    "A gateway has caught up and is told to ask for heads."
                );
            }
            (OutletState::Connecting | OutletState::Open | OutletState::Away, OutletState::Lagging) => {
                self.metrics.lags.inc();
                tracing::warn!(gateway = &*self.address, "A gateway lags: nobody waits for it.");
            }
            _ => {}
        }
        result
    }

    fn queue(&self) -> MutexGuard<'_, OutletQueue<Ticket>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
