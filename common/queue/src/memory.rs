//! The queue inside one process: what JetStream is to a cluster, without a server.
//!
//! Nothing here waits for anybody and nothing is kept beyond the process. Beyond its bound the oldest notices
//! go, as in JetStream: whoever wanted them finds their messages by repair.

mod stock;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::stock::Stock;
use crate::{ACK_WAIT, Consumer, Delivery, Queue, QueueError};

/// Most bytes that are kept: 128 of the largest notices.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// [`Queue`] inside one process. One for each service: see [`MemoryQueue::share`].
pub struct MemoryQueue {
    broker: Arc<Broker>,
    closed: CancellationToken,
}

/// What all that share a queue have in common.
struct Broker {
    stock: Mutex<Stock>,
    /// Something may have come for one reader.
    stocked: Notify,
    away: AtomicBool,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::with_bytes_max(BYTES_MAX)
    }
}

impl MemoryQueue {
    /// An empty queue that keeps at most so many bytes.
    #[must_use]
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        let stock = Mutex::new(Stock::new(bytes_max));
        let broker = Broker { stock, stocked: Notify::new(), away: AtomicBool::new(false) };
        Self { broker: Arc::new(broker), closed: CancellationToken::new() }
    }

    /// The same queue for another service: each closes only its own, like a connection to a server.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { broker: Arc::clone(&self.broker), closed: CancellationToken::new() }
    }

    /// Forgets all notices, as a server that came back empty.
    pub fn wipe(&self) {
        self.broker.look(Stock::clear);
    }

    /// How many notices nobody has acknowledged: those that wait, and those in somebody's hands.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.broker.look(|stock| stock.len())
    }

    /// Behaves as a server that is down, or up again, for all that share it. Nothing is forgotten by that.
    pub fn set_away(&self, away: bool) {
        self.broker.away.store(away, Ordering::SeqCst);
        self.broker.stocked.notify_one();
    }
}

impl Broker {
    fn look<T>(&self, look: impl FnOnce(&mut Stock) -> T) -> T {
        look(&mut self.stock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// A notice for one reader, or until when there is certainly none unless one is published.
    fn take(self: &Arc<Self>) -> Result<Delivery, Instant> {
        let now = Instant::now();
        if self.is_away() {
            return Err(now + ACK_WAIT);
        }
        // One lock for both, or two readers could each think that the other was woken.
        let (taken, more) = self.look(|stock| (stock.take(now), stock.has_waiting()));
        if more {
            // A wake-up is for one reader only.
            self.stocked.notify_one();
        }
        let (number, payload) = taken?;
        let broker = Arc::clone(self);
        let ack = async move {
            if !broker.is_away() {
                broker.look(|stock| stock.remove(number));
            }
        };
        Ok(Delivery::new(payload, ack))
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, _lane: u8, notice: Bytes) -> Result<(), QueueError> {
        if self.closed.is_cancelled() {
            return Err(QueueError::Closed);
        }
        if self.broker.is_away() {
            return Err(QueueError::NotConnected);
        }
        let bytes = notice.len();
        if !self.broker.look(|stock| stock.put(notice, Instant::now())) {
            return Err(QueueError::Refused(format!(
                "a notice of {bytes} bytes is more than the queue holds"
            )));
        }
        self.broker.stocked.notify_one();
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, QueueError> {
        if self.closed.is_cancelled() {
            return Err(QueueError::Closed);
        }
        Ok(Box::new(MemoryConsumer { broker: Arc::clone(&self.broker), finish: self.closed.child_token() }))
    }

    fn connected(&self) -> bool {
        !self.closed.is_cancelled() && !self.broker.is_away()
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

/// A consumer of the notices of this process. It fetches nothing ahead, so a finished one has nothing left.
struct MemoryConsumer {
    broker: Arc<Broker>,
    finish: CancellationToken,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            if self.finish.is_cancelled() {
                return Err(QueueError::Closed);
            }
            let until = match self.broker.take() {
                Ok(delivery) => return Ok(delivery),
                Err(until) => until,
            };
            tokio::select! {
                biased;
                () = self.finish.cancelled() => {}
                () = self.broker.stocked.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn finish(&mut self) {
        self.finish.cancel();
    }
}
