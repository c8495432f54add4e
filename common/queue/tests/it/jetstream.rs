use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_queue::{Consumer, Queue, QueueError};
use tokio::time::{Instant, timeout};

use crate::server::{Server, eventually};

const LONG: Duration = Duration::from_secs(15);

async fn connect(server: &Server) -> JetStream {
    JetStream::connect(NatsConfig { url: server.url(), ..NatsConfig::default() }).await.unwrap()
}

/// Publishes until it is taken: that is what the sweep does.
async fn publish(queue: &JetStream, notice: &'static str) {
    eventually("a publish is taken", LONG, async || queue.publish(3, notice.into()).await.is_ok()).await;
}

async fn next(consumer: &mut Box<dyn Consumer>, within: Duration) -> Bytes {
    let delivery = timeout(within, consumer.next()).await.expect("a delivery in time").unwrap();
    let payload = delivery.payload.clone();
    delivery.ack().await;
    payload
}

async fn nothing_comes(consumer: &mut Box<dyn Consumer>, for_long: Duration) {
    assert!(timeout(for_long, consumer.next()).await.is_err());
}

#[tokio::test]
async fn each_notice_goes_to_one_reader_and_again_without_an_ack() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    let mut first = queue.consumer().await.unwrap();
    publish(&queue, "a").await;

    let unacked = timeout(LONG, first.next()).await.unwrap().unwrap();
    assert_eq!(unacked.payload, "a");
    drop((unacked, first));

    let mut second = queue.consumer().await.unwrap();
    let begun = Instant::now();
    assert_eq!(next(&mut second, Duration::from_secs(4)).await, "a");
    assert!(begun.elapsed() > Duration::from_millis(500), "it waits for the ack first");
    nothing_comes(&mut second, Duration::from_millis(2_500)).await;
    queue.close().await;
}

#[tokio::test]
async fn dropped_calls_of_next_lose_nothing() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "begin").await;
    assert_eq!(next(&mut consumer, LONG).await, "begin");

    let mut seen = BTreeMap::<Bytes, u32>::new();
    for n in 0..300_u32 {
        let publishing = queue.publish(0, n.to_string().into());
        tokio::pin!(publishing);
        // Drop a pending `next` after every step of the publish.
        loop {
            tokio::select! {
                biased;
                done = &mut publishing => { done.unwrap(); break; }
                delivery = consumer.next() => {
                    let delivery = delivery.unwrap();
                    *seen.entry(delivery.payload.clone()).or_default() += 1;
                    delivery.ack().await;
                }
            }
        }
    }
    while seen.len() < 300 {
        *seen.entry(next(&mut consumer, LONG).await).or_default() += 1;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn without_nats_a_publish_fails_at_once_and_all_begins_when_it_comes() {
    let mut server = Server::absent();
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    let begun = Instant::now();
    assert_eq!(queue.publish(0, "lost".into()).await, Err(QueueError::NotConnected));
    assert!(timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    assert!(begun.elapsed() < Duration::from_millis(600));
    assert!(!queue.connected());

    server.run().await;
    publish(&queue, "kept").await;
    assert_eq!(next(&mut consumer, Duration::from_secs(2)).await, "kept", "and nothing was kept from before");
    assert!(queue.connected());
}

async fn survives_a_wipe(outage: Duration) {
    let mut server = Server::start().await;
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "before").await;
    assert_eq!(next(&mut consumer, LONG).await, "before");

    server.kill();
    server.wipe();
    eventually("the loss is seen", LONG, async || {
        queue.publish(0, "lost".into()).await == Err(QueueError::NotConnected)
    })
    .await;
    nothing_comes(&mut consumer, outage).await;
    server.run().await;
    // The reader alone restores stream and consumer; the publisher finds them or restores the stream.
    let back = Instant::now();
    let (delivery, ()) = tokio::join!(next(&mut consumer, Duration::from_secs(4)), publish(&queue, "after"));
    assert_eq!(delivery, "after");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    publish(&queue, "more").await;
    assert_eq!(next(&mut consumer, LONG).await, "more");
}

#[tokio::test]
async fn nats_comes_back_empty() {
    survives_a_wipe(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn nats_comes_back_empty_after_long() {
    survives_a_wipe(Duration::from_secs(11)).await;
}

#[tokio::test]
async fn a_stream_deleted_under_us_is_made_again() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");

    let admin = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    admin.delete_stream("sluice_FANOUT").await.unwrap();
    publish(&queue, "b").await;
    assert_eq!(next(&mut consumer, Duration::from_secs(2)).await, "b");

    admin.delete_consumer_from_stream("task", "sluice_FANOUT").await.unwrap();
    publish(&queue, "c").await;
    // A new consumer begins with the oldest notice that is kept.
    let mut got = next(&mut consumer, Duration::from_secs(2)).await;
    while got != "c" {
        got = next(&mut consumer, Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn a_frozen_nats_holds_nobody_longer_than_said() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");

    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(queue.publish(0, "b".into()).await, Err(QueueError::Timeout));
    assert!(begun.elapsed() < Duration::from_millis(2_300), "{:?}", begun.elapsed());
    eventually("the freeze is seen", LONG, async || {
        queue.publish(0, "lost".into()).await == Err(QueueError::NotConnected)
    })
    .await;
    server.signal(Signal::SIGCONT);
    publish(&queue, "c").await;
    let mut got = next(&mut consumer, LONG).await;
    while got != "c" {
        got = next(&mut consumer, LONG).await;
    }

    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    queue.close().await;
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    server.signal(Signal::SIGCONT);
}

#[tokio::test]
async fn a_finished_reader_hands_out_what_it_has_and_a_closed_one_nothing() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    for notice in ["a", "b", "c"] {
        publish(&queue, notice).await;
    }
    let mut consumer = queue.consumer().await.unwrap();
    assert_eq!(next(&mut consumer, LONG).await, "a");
    // One pull brought all three.
    consumer.finish();
    assert_eq!(next(&mut consumer, LONG).await, "b");
    assert_eq!(next(&mut consumer, LONG).await, "c");
    assert_eq!(consumer.next().await.unwrap_err(), QueueError::Closed);
    publish(&queue, "d").await;
    assert_eq!(consumer.next().await.unwrap_err(), QueueError::Closed);

    let mut other = queue.consumer().await.unwrap();
    let (end, ()) = tokio::join!(async { while other.next().await.is_ok() {} }, async {
        queue.close().await;
        queue.close().await;
    });
    let () = end;
    assert_eq!(queue.publish(0, "e".into()).await, Err(QueueError::Closed));
    assert_eq!(queue.consumer().await.err(), Some(QueueError::Closed));
}

#[tokio::test]
async fn what_was_acked_just_before_the_close_stays_acked() {
    let server = Server::start().await;
    let queue = connect(&server).await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");
    queue.close().await;

    let other = connect(&server).await;
    let mut consumer = other.consumer().await.unwrap();
    publish(&other, "b").await;
    assert_eq!(next(&mut consumer, LONG).await, "b");
    nothing_comes(&mut consumer, Duration::from_millis(2_500)).await;
}
