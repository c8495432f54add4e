//! The queue on a real nats-server: the contract, and what only a server does.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_queue::{Nats, Queue, QueueError};
use sluice_testing::{ServerKind, TestServer, eventually};
use tokio::time::Instant;

use crate::contract::{Bed, LONG, next, outlives_a_wipe, publish};

struct NatsBed {
    server: TestServer,
    stream_bytes_max: i64,
}

impl NatsBed {
    async fn with(stream_bytes_max: i64) -> Self {
        Self { server: TestServer::start(ServerKind::Nats).await, stream_bytes_max }
    }
}

impl Bed for NatsBed {
    async fn start() -> Self {
        Self::with(NatsConfig::default().stream_bytes_max).await
    }

    async fn small(bytes_max: u16) -> Self {
        Self::with(bytes_max.into()).await
    }

    async fn connect(&self) -> Arc<dyn Queue> {
        let stream_bytes_max = self.stream_bytes_max;
        let config =
            NatsConfig { nats: Nats::at(&self.server.url()), stream_bytes_max, ..NatsConfig::default() };
        Arc::new(JetStream::connect(config).await.unwrap())
    }

    async fn down(&mut self) {
        self.server.kill();
    }

    async fn up_and_empty(&mut self) {
        self.server.wipe();
        self.server.run().await;
    }
}

against_the_contract!(NatsBed);

#[tokio::test]
async fn it_comes_back_empty_after_long() {
    outlives_a_wipe::<NatsBed>(Duration::from_secs(11)).await;
}

#[tokio::test]
async fn a_stream_deleted_under_us_is_made_again() {
    let nats = NatsBed::start().await;
    let queue = nats.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");

    let admin = async_nats::jetstream::new(async_nats::connect(nats.server.url()).await.unwrap());
    admin.delete_stream("sluice_FANOUT").await.unwrap();
    publish(&*queue, "b").await;
    assert_eq!(next(&mut consumer, Duration::from_secs(2)).await, "b");

    admin.delete_consumer_from_stream("task", "sluice_FANOUT").await.unwrap();
    publish(&*queue, "c").await;
    // A new consumer begins with the oldest notice that is kept.
    while next(&mut consumer, Duration::from_secs(2)).await != "c" {}
}

#[tokio::test]
async fn a_frozen_nats_holds_nobody_longer_than_said() {
    let nats = NatsBed::start().await;
    let queue = nats.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");

    nats.server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(queue.publish(0, "b".into()).await, Err(QueueError::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    eventually("the freeze is seen", LONG, async || {
        queue.publish(0, "lost".into()).await == Err(QueueError::NotConnected)
    })
    .await;
    nats.server.signal(Signal::SIGCONT);
    publish(&*queue, "c").await;
    while next(&mut consumer, LONG).await != "c" {}

    nats.server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    queue.close().await;
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    nats.server.signal(Signal::SIGCONT);
}
