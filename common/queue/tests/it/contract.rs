//! What every queue does. Each case is run against all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use sluice_queue::{Consumer, Delivery, Queue, QueueError};
use sluice_testing::eventually;
use tokio::time::{Instant, timeout};

pub const LONG: Duration = Duration::from_secs(15);
/// Without an ack a notice comes again after 2 s; by now it would have.
const CAME_AGAIN: Duration = Duration::from_millis(2_500);
/// More than the queue promises for a close, for busy machines.
const CLOSED_WITHIN: Duration = Duration::from_millis(2_500);

/// A queue, and what can happen to it.
pub trait Bed: Sized {
    /// An empty one that works.
    async fn start() -> Self;
    /// The same with space for so many bytes.
    async fn small(bytes_max: u16) -> Self;
    /// As another process sees it.
    async fn connect(&self) -> Arc<dyn Queue>;
    async fn down(&mut self);
    async fn up_and_empty(&mut self);
}

/// Names the cases once; `$option` is for `tokio::test`.
macro_rules! against_the_contract {
    ($bed:ty $(, $option:ident = $value:literal)?) => {
        against_the_contract! { $bed, ($($option = $value)?):
            each_notice_goes_to_one_reader_and_again_without_an_ack
            readers_compete
            dropped_calls_of_next_lose_nothing
            a_finished_reader_hands_out_what_it_has_and_no_more
            a_close_ends_its_readers_and_nobody_else
            what_was_acked_just_before_the_close_stays_acked
            while_it_is_down_a_publish_fails_at_once_and_a_reader_waits
            it_comes_back_empty
            a_full_queue_drops_the_oldest
        }
    };
    ($bed:ty, $options:tt: $($case:ident)*) => {$(
        #[tokio::test $options]
        async fn $case() {
            crate::contract::$case::<$bed>().await;
        }
    )*};
}

/// Publishes until it is taken: that is what the sweep does.
pub async fn publish(queue: &dyn Queue, notice: &'static str) {
    eventually("a publish is taken", LONG, async || queue.publish(3, notice.into()).await.is_ok()).await;
}

pub async fn next(consumer: &mut Box<dyn Consumer>, within: Duration) -> Bytes {
    let delivery = timeout(within, consumer.next()).await.expect("a delivery in time").unwrap();
    let payload = delivery.payload.clone();
    delivery.ack().await;
    payload
}

pub async fn nothing_comes(consumer: &mut Box<dyn Consumer>, for_long: Duration) {
    assert!(timeout(for_long, consumer.next()).await.is_err());
}

/// A reader with its next notice.
fn waiting(mut reader: Box<dyn Consumer>) -> BoxFuture<'static, (Box<dyn Consumer>, Delivery)> {
    async move {
        let delivery = timeout(LONG, reader.next()).await.expect("a delivery in time").unwrap();
        (reader, delivery)
    }
    .boxed()
}

pub async fn each_notice_goes_to_one_reader_and_again_without_an_ack<B: Bed>() {
    let bed = B::start().await;
    let queue = bed.connect().await;
    let (first, second) = (queue.consumer().await.unwrap(), queue.consumer().await.unwrap());
    let both = futures::future::select(waiting(first), waiting(second));
    let (got, ()) = tokio::join!(both, publish(&*queue, "a"));
    let ((doomed, unacked), other) = got.factor_first();
    let begun = Instant::now();
    assert_eq!(unacked.payload, "a");
    drop((unacked, doomed));
    // It waited all the time, and learns of it all the same.
    let (mut other, again) = other.await;
    assert_eq!(again.payload, "a");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_500), "it waits for the ack first: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    again.ack().await;
    nothing_comes(&mut other, CAME_AGAIN).await;
    queue.close().await;
}

pub async fn readers_compete<B: Bed>() {
    const NOTICES: usize = 200;
    let bed = B::start().await;
    let (one, two) = (bed.connect().await, bed.connect().await);
    let (mut first, mut second) = (one.consumer().await.unwrap(), two.consumer().await.unwrap());
    publish(&*one, "begin").await;
    let mut seen = BTreeMap::<Bytes, u32>::new();
    let publishing = async {
        for n in 0..NOTICES {
            one.publish(0, n.to_string().into()).await.unwrap();
        }
    };
    tokio::pin!(publishing);
    let mut published = false;
    while !published || seen.len() <= NOTICES {
        let delivery = tokio::select! {
            () = &mut publishing, if !published => { published = true; continue; }
            delivery = timeout(LONG, first.next()) => delivery,
            delivery = timeout(LONG, second.next()) => delivery,
        };
        let delivery = delivery.expect("in time").unwrap();
        *seen.entry(delivery.payload.clone()).or_default() += 1;
        delivery.ack().await;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

pub async fn dropped_calls_of_next_lose_nothing<B: Bed>() {
    let bed = B::start().await;
    let queue = bed.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "begin").await;
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

pub async fn a_finished_reader_hands_out_what_it_has_and_no_more<B: Bed>() {
    let bed = B::start().await;
    let queue = bed.connect().await;
    for notice in ["a", "b", "c"] {
        publish(&*queue, notice).await;
    }
    let (mut consumer, mut other) = (queue.consumer().await.unwrap(), queue.consumer().await.unwrap());
    assert_eq!(next(&mut consumer, LONG).await, "a");
    consumer.finish();
    let mut rest = Vec::new();
    while let Ok(delivery) = timeout(LONG, consumer.next()).await.expect("in time") {
        rest.push(delivery.payload.clone());
        delivery.ack().await;
    }
    publish(&*queue, "d").await;
    assert_eq!(consumer.next().await.unwrap_err(), QueueError::Closed);
    // What it had not is for the others, what it had is not.
    while rest.len() < 3 {
        rest.push(next(&mut other, LONG).await);
    }
    assert_eq!(rest, ["b", "c", "d"]);
    nothing_comes(&mut other, CAME_AGAIN).await;
}

pub async fn a_close_ends_its_readers_and_nobody_else<B: Bed>() {
    let bed = B::start().await;
    let (queue, other) = (bed.connect().await, bed.connect().await);
    let (mut waiting, mut others) = (queue.consumer().await.unwrap(), other.consumer().await.unwrap());
    publish(&*queue, "a").await;
    let begun = Instant::now();
    let (end, ()) = tokio::join!(
        async {
            loop {
                match waiting.next().await {
                    Ok(delivery) => delivery.ack().await,
                    Err(error) => return error,
                }
            }
        },
        async {
            queue.close().await;
            queue.close().await;
        }
    );
    assert_eq!(end, QueueError::Closed);
    assert!(begun.elapsed() < CLOSED_WITHIN, "{:?}", begun.elapsed());
    assert!(!queue.connected());
    assert_eq!(queue.publish(0, "b".into()).await, Err(QueueError::Closed));
    assert_eq!(queue.consumer().await.err(), Some(QueueError::Closed));
    assert_eq!(waiting.next().await.unwrap_err(), QueueError::Closed);

    publish(&*other, "c").await;
    while next(&mut others, LONG).await != "c" {}
    other.close().await;
}

pub async fn what_was_acked_just_before_the_close_stays_acked<B: Bed>() {
    let bed = B::start().await;
    let queue = bed.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "a").await;
    assert_eq!(next(&mut consumer, LONG).await, "a");
    queue.close().await;

    let other = bed.connect().await;
    let mut consumer = other.consumer().await.unwrap();
    publish(&*other, "b").await;
    assert_eq!(next(&mut consumer, LONG).await, "b");
    nothing_comes(&mut consumer, CAME_AGAIN).await;
}

pub async fn while_it_is_down_a_publish_fails_at_once_and_a_reader_waits<B: Bed>() {
    let mut bed = B::start().await;
    bed.down().await;
    let queue = bed.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    let begun = Instant::now();
    assert_eq!(queue.publish(0, "lost".into()).await, Err(QueueError::NotConnected));
    assert!(begun.elapsed() < Duration::from_secs(1), "at once, not by the deadline: {:?}", begun.elapsed());
    nothing_comes(&mut consumer, Duration::from_millis(300)).await;
    assert!(!queue.connected());

    bed.up_and_empty().await;
    publish(&*queue, "kept").await;
    assert_eq!(next(&mut consumer, Duration::from_secs(2)).await, "kept", "and nothing was kept from before");
    assert!(queue.connected());
}

pub async fn it_comes_back_empty<B: Bed>() {
    outlives_a_wipe::<B>(Duration::from_millis(200)).await;
}

pub async fn outlives_a_wipe<B: Bed>(outage: Duration) {
    let mut bed = B::start().await;
    let queue = bed.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "before").await;
    assert_eq!(next(&mut consumer, LONG).await, "before");

    bed.down().await;
    eventually("the loss is seen", LONG, async || {
        queue.publish(0, "lost".into()).await == Err(QueueError::NotConnected)
    })
    .await;
    nothing_comes(&mut consumer, outage).await;
    bed.up_and_empty().await;
    // The reader alone restores what it needs; the publisher finds it or restores it.
    let back = Instant::now();
    let (delivery, ()) = tokio::join!(next(&mut consumer, LONG), publish(&*queue, "after"));
    assert_eq!(delivery, "after");
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    publish(&*queue, "more").await;
    assert_eq!(next(&mut consumer, LONG).await, "more");
}

pub async fn a_full_queue_drops_the_oldest<B: Bed>() {
    const NOTICES: usize = 60;
    let bed = B::small(16 * 1024).await;
    let queue = bed.connect().await;
    let mut consumer = queue.consumer().await.unwrap();
    publish(&*queue, "begin").await;
    assert_eq!(next(&mut consumer, LONG).await, "begin");
    drop(consumer);
    for n in 0..NOTICES {
        queue.publish(0, format!("{n:01024}").into()).await.unwrap();
    }
    let mut consumer = queue.consumer().await.unwrap();
    let mut kept = Vec::new();
    while kept.last() != Some(&(NOTICES - 1)) {
        let notice = next(&mut consumer, LONG).await;
        kept.push(std::str::from_utf8(&notice).unwrap().trim_start_matches('0').parse().unwrap());
    }
    assert!((8..=16).contains(&kept.len()), "{kept:?}");
    assert_eq!(kept, Vec::from_iter(NOTICES - kept.len()..NOTICES));
}
