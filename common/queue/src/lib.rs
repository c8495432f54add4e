//! The fan-out queue: carries notices of committed messages from logic to task.
//!
//! A notice may be lost or delivered twice: the store stays the truth and only latency suffers. This crate
//! never looks into a notice, never keeps one while the queue is away, and never makes a publisher wait
//! for a queue that is down.

#[cfg(feature = "jetstream")]
pub mod jetstream;
pub mod memory;
mod nats;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

pub use self::nats::Nats;

/// A notice is useless when repair has found its messages, which takes half of this.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Unacknowledged for so long, a notice goes to another task. Two failed attempts of a push fit in it.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// Why a notice was not queued, or a consumer ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is no connection right now; the notice was certainly not queued.
    #[error("the queue is not connected")]
    NotConnected,
    /// No acknowledgement came in time: queued or not.
    #[error("the queue did not acknowledge in time")]
    Timeout,
    /// The queue answered, but did not take it.
    #[error("the queue refused: {0}")]
    Refused(String),
    /// [`Queue::close`] was called; final.
    #[error("the queue is closed")]
    Closed,
}

/// Both ends of the queue. Cheap to share as `Arc<dyn Queue>`.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Queues a notice of a lane and waits, at most 2 s, until the queue has it.
    ///
    /// # Errors
    /// At once and [`QueueError::NotConnected`] while the queue is down. No error is worth a retry: the outbox
    /// keeps what was not queued.
    async fn publish(&self, lane: u8, notice: Bytes) -> Result<(), QueueError>;

    /// One of the competing readers of all lanes. Works, waiting, while the queue is down.
    ///
    /// # Errors
    /// Only [`QueueError::Closed`].
    async fn consumer(&self) -> Result<Box<dyn Consumer>, QueueError>;

    /// Whether notices can be queued now; the reason, for people, when they cannot.
    ///
    /// # Errors
    /// The queue is away, or cannot hold anything.
    async fn probe(&self) -> Result<(), String> {
        if self.connected() { Ok(()) } else { Err("the queue is not connected".to_owned()) }
    }

    /// Whether the queue was reachable when last looked at; for `/status` and metrics, never for decisions.
    fn connected(&self) -> bool;

    /// Ends consumers and the connection, within 500 ms also when the queue is down. Harmless when repeated.
    async fn close(&self);
}

/// A consumer of notices. Readers compete: each notice goes to one of them, and again to any after 2 s without an ack.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next notice, as long as it takes. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// Only [`QueueError::Closed`], for ever: outages, wipes and restarts of the queue are waited out here.
    async fn next(&mut self) -> Result<Delivery, QueueError>;

    /// Fetches no more: [`Consumer::next`] still returns what was fetched before, then `Closed`. A reader
    /// that is just dropped leaves that to the others, 2 s later.
    fn finish(&mut self);
}

/// A notice in hand. Dropped without [`Delivery::ack`], it is delivered again.
pub struct Delivery {
    /// The bytes of the notice.
    pub payload: Bytes,
    ack: BoxFuture<'static, ()>,
}

impl Delivery {
    /// A delivery whose acknowledgement is `ack`, run when the reader is done.
    pub fn new(payload: Bytes, ack: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { payload, ack: Box::pin(ack) }
    }

    /// Says that the notice is done. A lost ack means one more delivery, so there is nothing to report;
    /// returns at once while the queue is down.
    pub async fn ack(self) {
        self.ack.await;
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("payload_bytes", &self.payload.len()).finish_non_exhaustive()
    }
}
