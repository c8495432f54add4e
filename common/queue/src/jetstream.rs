//! The queue on NATS JetStream: one stream in memory, one durable pull consumer that all tasks share.
//!
//! NATS may be wiped at any time; whoever notices first creates the stream again. Nothing is published
//! while there is no connection, because the client would keep it and send it long after it was given up.

mod access;
mod link;
mod reader;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::{ErrorCode, consumer::pull, stream};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::link::NatsLink;
use crate::{ACK_WAIT, Consumer, Delivery, MAX_AGE, Nats, Queue, QueueError};

/// Longest wait for any answer of NATS.
const ANSWER: Duration = Duration::from_secs(2);
/// Notices in the hands of all tasks together: those of a second at full load, several times over.
const ACK_PENDING_MAX: i64 = 4_096;
/// Shortest time between two attempts of one process to create the stream.
const SETUP_PAUSE: Duration = Duration::from_millis(500);
/// Longest part of a stop that is spent here.
const CLOSE: Duration = Duration::from_millis(500);
/// For the answer to a question whether the stream is there.
const PROBE: Duration = Duration::from_millis(700);
/// The one durable consumer.
const CONSUMER: &str = "task";

/// Where NATS is and what is ours in it.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// The servers, and how they let us in.
    pub nats: Nats,
    /// Begins all names, so that two deployments can share a server. Characters NATS does not allow in a
    /// stream's name become `_`.
    pub prefix: String,
    /// Most bytes the stream holds in NATS' memory; beyond it the oldest notices go.
    pub stream_bytes_max: i64,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self { nats: Nats::default(), prefix: "sluice".into(), stream_bytes_max: 256 * 1024 * 1024 }
    }
}

/// Connects once; what the server says of itself.
///
/// # Errors
/// Why it cannot be used.
pub async fn probe(nats: Nats) -> Result<String, QueueError> {
    let servers = access::servers(nats.url.reveal())?;
    let options = access::options(&nats, &servers).await?;
    let client =
        options.connect(servers).await.map_err(|error| QueueError::Refused(access::describe(&error)))?;
    let version = client.server_info().version;
    let account = async_nats::jetstream::new(client).query_account().await;
    account.map_err(|error| QueueError::Refused(format!("NATS {version} has no JetStream: {error}")))?;
    Ok(format!("NATS {version}, JetStream"))
}

/// [`Queue`] on NATS JetStream.
pub struct JetStream(Arc<NatsShared>);

struct NatsShared {
    config: NatsConfig,
    /// `prefix`, made fit for names.
    prefix: String,
    /// The connection to NATS; `None` once it is closed.
    link: Mutex<Option<Arc<NatsLink>>>,
    renewal: tokio::sync::Mutex<()>,
    last_setup: tokio::sync::Mutex<Option<Instant>>,
    closed: CancellationToken,
}

impl JetStream {
    /// Begins to connect and goes on trying for ever; returns at once.
    ///
    /// # Errors
    /// [`QueueError::Refused`] for a URL that is none.
    pub async fn connect(config: NatsConfig) -> Result<Self, QueueError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let prefix = config.prefix.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
        let link = NatsLink::open(&config.nats).await?;
        Ok(Self(Arc::new(NatsShared {
            config,
            prefix,
            link: Mutex::new(Some(Arc::new(link))),
            renewal: tokio::sync::Mutex::default(),
            last_setup: tokio::sync::Mutex::default(),
            closed: CancellationToken::new(),
        })))
    }
}

impl NatsShared {
    fn current(&self) -> Option<Arc<NatsLink>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The link to use now: a fresh one when the present one is worn out.
    async fn link(&self) -> Result<Arc<NatsLink>, QueueError> {
        let link = self.current().ok_or(QueueError::Closed)?;
        // The usual case takes one short lock.
        if !link.is_worn() {
            return Ok(link);
        }
        // One replaces it; the others go on with the old one rather than wait.
        let Ok(_renewing) = self.renewal.try_lock() else { return Ok(link) };
        let fresh = Arc::new(NatsLink::open(&self.config.nats).await?);
        let mut place = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match place.as_mut() {
            // It may have been replaced, or closed, while we connected.
            Some(present) if Arc::ptr_eq(present, &link) => {
                tracing::info!("The connection to NATS is replaced by a fresh one.");
                *present = Arc::clone(&fresh);
                Ok(fresh)
            }
            Some(present) => Ok(Arc::clone(present)),
            None => Err(QueueError::Closed),
        }
    }

    fn stream_name(&self) -> String {
        format!("{}_FANOUT", self.prefix)
    }

    fn subject(&self, lane: &str) -> String {
        format!("{}.fanout.{lane}", self.prefix)
    }

    /// Makes sure that the stream exists. Idempotent; one that exists with other settings is used as it is.
    async fn create_stream(&self, link: &NatsLink) -> Result<(), QueueError> {
        let wanted = stream::Config {
            name: self.stream_name(),
            subjects: vec![self.subject("*")],
            // A notice that is lost costs latency only: the outbox row stays.
            storage: stream::StorageType::Memory,
            // A full stream must take new notices: old ones are repaired by now (C9).
            discard: stream::DiscardPolicy::Old,
            retention: stream::RetentionPolicy::Limits,
            max_age: MAX_AGE,
            max_bytes: self.config.stream_bytes_max,
            num_replicas: self.config.nats.replicas.into(),
            ..Default::default()
        };
        let Err(error) = link.context.create_stream(wanted).await else { return Ok(()) };
        let kind = error.kind();
        if let CreateStreamErrorKind::JetStream(inner) = &kind
            // Another process was first, or an older version made it with its own settings.
            && inner.error_code() == ErrorCode::STREAM_NAME_EXIST
        {
            return Ok(());
        }
        Err(QueueError::Refused(kind.to_string()))
    }

    /// Makes sure that stream and consumer exist.
    async fn create_consumer(&self, link: &NatsLink) -> Result<pull_consumer::Type, QueueError> {
        self.create_stream(link).await?;
        let wanted = pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_wait: ACK_WAIT,
            max_ack_pending: ACK_PENDING_MAX,
            // A consumer on disk would be written at each acknowledgement.
            memory_storage: true,
            ..Default::default()
        };
        link.context
            .create_consumer_on_stream(wanted, self.stream_name())
            .await
            .map_err(|error| QueueError::Refused(error.to_string()))
    }

    /// Creates the stream for a publisher that found none. Says whether it is worth another attempt.
    async fn restore_stream(&self, link: &NatsLink) -> bool {
        // Sixteen lanes find the stream missing at once; one makes it.
        let Ok(mut last) = self.last_setup.try_lock() else { return false };
        if last.is_some_and(|at| at.elapsed() < SETUP_PAUSE) {
            return false;
        }
        *last = Some(Instant::now());
        self.create_stream(link)
            .await
            .inspect_err(|error| tracing::debug!(%error, "The fan-out stream could not be created."))
            .is_ok()
    }
}

/// Names the long type of a bound consumer.
mod pull_consumer {
    pub(super) type Type = async_nats::jetstream::consumer::Consumer<super::pull::Config>;
}

#[async_trait]
impl Queue for JetStream {
    async fn publish(&self, lane: u8, notice: Bytes) -> Result<(), QueueError> {
        let link = self.0.link().await?;
        // The client would keep the notice and send it after the outage, long after it was given
        // up.
        if !link.is_up() {
            return Err(QueueError::NotConnected);
        }
        let subject = self.0.subject(&lane.to_string());
        let attempt = async {
            match link.publish(subject.clone(), notice.clone()).await {
                // NATS came back without its memory.
                Err(PublishErrorKind::StreamNotFound) if self.0.restore_stream(&link).await => {
                    link.publish(subject, notice).await
                }
                outcome => outcome,
            }
        };
        match timeout(ANSWER, attempt).await {
            Ok(Ok(())) => Ok(()),
            // The client keeps a little memory for each answer that never comes.
            Err(_) | Ok(Err(PublishErrorKind::TimedOut)) => {
                link.count_unanswered();
                Err(QueueError::Timeout)
            }
            Ok(Err(kind)) => Err(QueueError::Refused(kind.to_string())),
        }
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, QueueError> {
        if self.0.closed.is_cancelled() {
            return Err(QueueError::Closed);
        }
        let finish = self.0.closed.child_token();
        let deliveries = reader::deliveries(Arc::clone(&self.0), finish.clone()).fuse().boxed();
        Ok(Box::new(JetStreamConsumer { deliveries, finish }))
    }

    async fn probe(&self) -> Result<(), String> {
        let link = self.0.link().await.map_err(|error| error.to_string())?;
        if !link.is_up() {
            return Err("NATS is not connected".to_owned());
        }
        // A server without JetStream takes connections, and nothing that is to be kept.
        match timeout(PROBE, self.0.create_stream(&link)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!(
                "the stream {} cannot be made: {error}; NATS has to run with JetStream (nats-server -js)",
                self.0.stream_name()
            )),
            Err(_) => Err("JetStream does not answer; NATS has to run with it (nats-server -js)".to_owned()),
        }
    }

    fn connected(&self) -> bool {
        self.0.current().is_some_and(|link| link.is_up())
    }

    async fn close(&self) {
        self.0.closed.cancel();
        let link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Drained only while connected: the client's drain hangs otherwise.
        if let Some(link) = link.filter(|link| link.is_up())
            && timeout(CLOSE, link.drain()).await.is_err()
        {
            tracing::debug!("NATS did not take the last acknowledgements in time.");
        }
    }
}

/// A consumer: the stream of deliveries keeps all progress, so that [`Consumer::next`] can be dropped.
struct JetStreamConsumer {
    deliveries: BoxStream<'static, Delivery>,
    finish: CancellationToken,
}

#[async_trait]
impl Consumer for JetStreamConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        self.deliveries.next().await.ok_or(QueueError::Closed)
    }

    fn finish(&mut self) {
        self.finish.cancel();
    }
}
