//! Outlets: one push stream to each gateway, with a breaker. Who waits for a push holds no more than a ticket;
//! an outlet that lags or has no stream holds none.

mod book;
mod line;
mod stream;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use self::book::{Directory, Outlets};
use self::line::{Line, Next, State};
use crate::metrics::Metrics;

/// Dropped when nobody has to wait any longer.
pub type Ticket = mpsc::Sender<std::convert::Infallible>;
/// The part of a notice for one gateway.
pub type Push = line::Push<Ticket>;

/// The way to one address.
pub struct Outlet {
    address: Arc<str>,
    line: Mutex<Line<Ticket>>,
    /// Wakes the stream: something waits to be sent.
    wake: Notify,
    metrics: Metrics,
}

impl Outlet {
    fn new(address: Arc<str>, metrics: Metrics) -> Self {
        Self { address, line: Mutex::new(Line::new()), wake: Notify::new(), metrics }
    }

    /// Queues a push, or drops it: then nobody waits, and the gateway is told when it is back.
    fn offer(&self, push: Push) {
        let taken = self.change(|line, now| line.offer(push, now));
        let count = if taken { &self.metrics.pushes } else { &self.metrics.pushes_dropped };
        count.inc();
        if taken {
            self.wake.notify_one();
        }
    }

    fn opened(&self) {
        self.change(|line, _| line.opened());
    }

    fn ended(&self) {
        self.change(|line, _| line.ended());
    }

    fn acked(&self, id: u64) {
        self.change(|line, _| line.acked(id));
    }

    fn tick(&self) {
        self.change(Line::tick);
    }

    fn next(&self) -> Option<Next> {
        let next = self.change(|line, _| line.next())?;
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
        self.line().deadline()
    }

    /// Whether nobody waits for anything here.
    fn is_settled(&self) -> bool {
        self.line().is_settled()
    }

    fn is_lagging(&self) -> bool {
        self.line().state() == State::Lagging
    }

    fn status(&self) -> Value {
        let line = self.line();
        json!({
            "address": &*self.address,
            "state": line.state().as_str(),
            "queued": line.queued(),
            "in_flight": line.in_flight(),
            "missed": line.missed(),
        })
    }

    /// Applies a change and says so when the gateway begins or ceases to lag.
    fn change<R>(&self, change: impl FnOnce(&mut Line<Ticket>, Instant) -> R) -> R {
        let mut line = self.line();
        let before = line.state();
        let result = change(&mut line, Instant::now());
        let after = line.state();
        drop(line);
        match (before, after) {
            (State::Lagging, State::Open) => {
                tracing::info!(
                    gateway = &*self.address,
                    "A gateway has caught up and is told to ask for heads."
                );
            }
            (State::Connecting | State::Open | State::Away, State::Lagging) => {
                self.metrics.lags.inc();
                tracing::warn!(gateway = &*self.address, "A gateway lags: nobody waits for it.");
            }
            _ => {}
        }
        result
    }

    fn line(&self) -> MutexGuard<'_, Line<Ticket>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
