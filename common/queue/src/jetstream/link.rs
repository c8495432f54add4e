//! One NATS client and what is known about its connection.
//!
//! The client reconnects by itself. It is replaced when it has gathered too many requests that were never
//! answered, because it keeps a little memory for each of them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::{Client, Event, connection};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{ANSWER, access};
use crate::{Nats, QueueError};

/// Two of these without an answer mean that the server is dead.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time to establish a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// After an outage this long the client is replaced.
const LONG_OUTAGE: Duration = Duration::from_secs(10);
/// After as many requests without an answer the client is replaced.
const UNANSWERED_MAX: u32 = 1_000;
/// Publishes of this process that wait for their acknowledgement.
const IN_FLIGHT_MAX: usize = 4_096;

pub(super) struct NatsLink {
    pub(super) context: Context,
    client: Client,
    connected: watch::Receiver<bool>,
    worn: Arc<AtomicBool>,
    unanswered: AtomicU32,
}

impl NatsLink {
    /// Begins to connect, and goes on for ever; returns at once.
    pub(super) async fn open(nats: &Nats) -> Result<Self, QueueError> {
        let servers = access::servers(nats.url.reveal())?;
        let worn = Arc::new(AtomicBool::new(false));
        let (tell, connected) = watch::channel(false);
        let client = access::options(nats, &servers)
            .await?
            .name("sluice")
            // Nothing has to be up at the start.
            .retry_on_initial_connect()
            .connection_timeout(CONNECT)
            .request_timeout(Some(ANSWER))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_pause)
            .event_callback(listen(tell, Arc::clone(&worn)))
            .connect(servers)
            .await
            .map_err(|error| QueueError::Refused(error.to_string()))?;
        let context = ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .max_ack_inflight(IN_FLIGHT_MAX)
            // Beyond its bound the client would wait; we refuse, as the outbox keeps the row.
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self { context, client, connected, worn, unanswered: AtomicU32::new(0) })
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.connection_state() == connection::State::Connected
    }

    /// Whether to replace it. Never while it is disconnected: it would go on reconnecting unseen.
    pub(super) fn is_worn(&self) -> bool {
        // The callback with the sender is dropped when the client has ended for good.
        let ended = self.connected.has_changed().is_err();
        ended || (self.is_up() && self.worn.load(Ordering::Relaxed))
    }

    pub(super) fn count_unanswered(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED_MAX {
            self.worn.store(true, Ordering::Relaxed);
        }
    }

    /// Publishes and waits for the acknowledgement.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), PublishErrorKind> {
        let sent = self.context.publish(subject, payload).await.map_err(|error| error.kind())?;
        sent.await.map(drop).map_err(|error| error.kind())
    }

    /// Waits until there is a connection, or the client has ended.
    pub(super) async fn up(&self) {
        let mut connected = self.connected.clone();
        _ = connected.wait_for(|connected| *connected).await;
    }

    /// Changes as soon as the connection of now is lost, however soon it comes back.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        let mut connected = self.connected.clone();
        connected.mark_unchanged();
        connected
    }

    /// Sends what is queued and ends the client. May never return.
    pub(super) async fn drain(&self) {
        let mut connected = self.connected.clone();
        if self.client.drain().await.is_ok() {
            while connected.changed().await.is_ok() {}
        }
    }
}

fn reconnect_pause(attempts: usize) -> Duration {
    // The power would overflow after some minutes of outage.
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    (Duration::from_millis(10) * 2_u32.pow(doublings)).min(RECONNECT_PAUSE_MAX)
}

/// Follows the client's events. Dropped, with `tell`, when the client has ended.
fn listen(
    tell: watch::Sender<bool>,
    worn: Arc<AtomicBool>,
) -> impl Fn(Event) -> futures::future::Ready<()> + Send + Sync + 'static {
    let lost_at = Mutex::new(Instant::now());
    move |event| {
        let mut lost_at = lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // After a long outage the client holds requests that nobody waits for any more.
            Event::Connected => {
                worn.fetch_or(lost_at.elapsed() > LONG_OUTAGE, Ordering::Relaxed);
                tell.send_replace(true);
            }
            Event::Disconnected | Event::Closed => {
                *lost_at = Instant::now();
                tell.send_replace(false);
            }
            Event::LameDuckMode
            | Event::Draining
            | Event::SlowConsumer(_)
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
        futures::future::ready(())
    }
}

/// Sends an acknowledgement if that can be done at once.
pub(super) async fn acknowledge(link: Arc<NatsLink>, acker: async_nats::jetstream::message::Acker) {
    if link.is_up() {
        // A lost acknowledgement means one more delivery, which gateways drop.
        _ = timeout(ANSWER, acker.ack()).await;
    }
}
