//! The reading loop: pull a small batch, hand it out one by one, pull again.
//!
//! It never asks for heartbeats (the client loses its waker on them) and never trusts a pull to end: a lost
//! connection, an error or silence beyond the deadline lead to a new one, after making sure that stream and
//! consumer still exist.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Batch;
use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::link::{self, NatsLink};
use super::{NatsShared, pull_consumer};
use crate::{Delivery, QueueError};

/// Notices fetched ahead: few, because each of them waits for its ack from when it was fetched.
const BATCH: usize = 64;
/// A pull without notices ends after this.
const EXPIRES: Duration = Duration::from_secs(2);
/// Silence beyond the end of a pull that makes us doubt.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a finished reader waits for what NATS had already sent to it.
const ON_THE_WAY: Duration = Duration::from_millis(25);
/// Pause after an error.
const PAUSE: Duration = Duration::from_millis(200);

struct ReaderState {
    shared: Arc<NatsShared>,
    finish: CancellationToken,
    /// The consumer, while nothing gave reason to doubt that it exists.
    bound: Option<(Arc<NatsLink>, pull_consumer::Type)>,
    pull: Option<Pull>,
    /// When a finished reader stops waiting.
    end: Option<Instant>,
}

struct Pull {
    batch: Batch,
    link: Arc<NatsLink>,
    connection: watch::Receiver<bool>,
    deadline: Instant,
}

/// Deliveries until `finish`; what was fetched before still comes, unless the queue is closed.
pub(super) fn deliveries(shared: Arc<NatsShared>, finish: CancellationToken) -> impl Stream<Item = Delivery> {
    let state = ReaderState { shared, finish, bound: None, pull: None, end: None };
    stream::unfold(state, |mut state| async move {
        let delivery = state.next().await?;
        Some((delivery, state))
    })
}

impl ReaderState {
    async fn next(&mut self) -> Option<Delivery> {
        let finish = self.finish.clone();
        loop {
            // Before each step: what was fetched still comes out, nothing new is asked for.
            if finish.is_cancelled() {
                return self.fetched().await;
            }
            tokio::select! {
                biased;
                () = finish.cancelled() => {}
                step = self.step() => match step {
                    Ok(Some(delivery)) => return Some(delivery),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "The fan-out queue does not deliver.");
                        // Stream or consumer may be gone: they are made again before the next pull.
                        self.bound = None;
                        tokio::select! {
                            () = finish.cancelled() => {}
                            () = sleep(PAUSE) => {}
                        }
                    }
                },
            }
        }
    }

    /// The next of those that are here already, or on their way to us.
    async fn fetched(&mut self) -> Option<Delivery> {
        if self.shared.closed.is_cancelled() {
            return None;
        }
        // One end for all that are left, or each would get this long.
        let end = *self.end.get_or_insert_with(|| Instant::now() + ON_THE_WAY);
        let pull = self.pull.as_mut()?;
        let message = timeout_at(end, pull.batch.next()).await.ok()??.ok()?;
        Some(delivery(&pull.link, message))
    }

    /// Waits for a delivery, or for the reason to look again. May be dropped at any await.
    async fn step(&mut self) -> Result<Option<Delivery>, QueueError> {
        if self.pull.is_none() {
            self.pull = Some(self.open().await?);
        }
        let Some(pull) = self.pull.as_mut() else { return Ok(None) };
        let item = tokio::select! {
            biased;
            item = timeout_at(pull.deadline, pull.batch.next()) => item,
            // A pull of the old connection never ends by itself.
            _ = pull.connection.changed() => Ok(Some(Err("the connection was lost".into()))),
        };
        match item {
            Ok(Some(Ok(message))) => return Ok(Some(delivery(&pull.link, message))),
            Ok(None) => self.pull = None,
            Ok(Some(Err(error))) => {
                self.pull = None;
                return Err(QueueError::Refused(error.to_string()));
            }
            Err(_) => {
                self.pull = None;
                return Err(QueueError::Timeout);
            }
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Pull, QueueError> {
        let link = self.shared.link().await?;
        // A fresh client, or a reconnect, may lead to a server that was wiped.
        let current = self.bound.as_ref().is_some_and(|(bound, _)| Arc::ptr_eq(bound, &link));
        if !current || !link.is_up() {
            self.bound = None;
            link.up().await;
            let consumer = self.shared.create_consumer(&link).await?;
            self.bound = Some((Arc::clone(&link), consumer));
        }
        let Some((_, consumer)) = &self.bound else { return Err(QueueError::NotConnected) };
        // Before the request: a loss between the two must be seen.
        let connection = link.watch();
        let batch = consumer
            .batch()
            .max_messages(BATCH)
            .expires(EXPIRES)
            .messages()
            .await
            .map_err(|error| QueueError::Refused(error.to_string()))?;
        Ok(Pull { batch, link, connection, deadline: Instant::now() + EXPIRES + PATIENCE })
    }
}

fn delivery(link: &Arc<NatsLink>, message: async_nats::jetstream::Message) -> Delivery {
    let (message, acker) = message.split();
    Delivery::new(message.payload, link::acknowledge(Arc::clone(link), acker))
}
