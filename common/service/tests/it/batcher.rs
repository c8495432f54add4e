//! The batcher's driver: order, belonging of results, waiting, closing, panics.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;
use sluice_lifecycle::{Lifecycle, Plan, Stage, StopReason};
use sluice_service::batcher::{Batcher, Bounds, Full, SubmitError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BOUNDS: Bounds = Bounds { items_max: 3, bytes_max: 100, queue_items_max: 4, queue_bytes_max: 100 };

/// A batcher that squares, holding each batch until a permit is given, and what it was given.
struct Rig {
    batcher: Batcher<u64, u64>,
    batches: Arc<Mutex<Vec<Vec<u64>>>>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn rig(bounds: Bounds) -> Rig {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let permits = Arc::new(Semaphore::new(0));
    let stop = CancellationToken::new();
    let flying = Arc::new(AtomicUsize::new(0));
    let (batcher, driver) = Batcher::new("squares", bounds, |_| 10, stop.clone(), {
        let (batches, permits) = (Arc::clone(&batches), Arc::clone(&permits));
        move |batch: Vec<u64>| {
            batches.lock().unwrap().push(batch.clone());
            let (permits, flying) = (Arc::clone(&permits), Arc::clone(&flying));
            async move {
                assert_eq!(flying.fetch_add(1, Ordering::SeqCst), 0, "two batches in flight");
                permits.acquire().await.unwrap().forget();
                flying.fetch_sub(1, Ordering::SeqCst);
                batch.into_iter().map(|n| n * n).collect()
            }
        }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    Rig { batcher, batches, permits, stop, tasks }
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn one_goes_at_once_and_the_rest_gathers_behind_it() {
    let mut rig = rig(BOUNDS);
    let submits: Vec<_> = (1..=6)
        .map(|n| {
            rig.tasks.spawn({
                let batcher = rig.batcher.clone();
                async move { assert_eq!(batcher.submit(n).await, Ok(n * n)) }
            })
        })
        .collect();
    settle().await;
    rig.permits.add_permits(1000);
    settle().await;
    assert!(submits.iter().all(tokio::task::AbortHandle::is_finished));
    let batches = rig.batches.lock().unwrap().clone();
    assert_eq!(batches.concat(), [1, 2, 3, 4, 5, 6]);
    assert!(batches.len() <= 3, "{batches:?}");
    rig.stop.cancel();
    while let Some(ended) = rig.tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn submit_waits_for_space_and_offer_does_not() {
    let rig = rig(BOUNDS);
    assert_eq!(rig.batcher.offer(1), Ok(()));
    settle().await;
    for n in 2..=5 {
        assert_eq!(rig.batcher.offer(n), Ok(()));
    }
    assert_eq!(rig.batcher.offer(6), Err(Full(6)));
    let mut waiting = Box::pin(rig.batcher.submit(7));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    // The queue has space again, but one is already waiting for it.
    rig.permits.add_permits(1000);
    assert_eq!(rig.batcher.offer(8), Err(Full(8)));
    assert_eq!(waiting.await, Ok(49));
    assert_eq!(rig.batches.lock().unwrap().concat(), [1, 2, 3, 4, 5, 7]);
}

#[tokio::test(start_paused = true)]
async fn close_refuses_then_flushes() {
    let rig = rig(BOUNDS);
    for n in 1..=4 {
        assert_eq!(rig.batcher.offer(n), Ok(()));
    }
    let mut waiting = Box::pin(rig.batcher.submit(5));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let mut close = Box::pin(rig.batcher.close());
    assert!(futures::poll!(close.as_mut()).is_pending());
    assert_eq!(waiting.await, Err(SubmitError::Closed));
    assert_eq!(rig.batcher.submit(6).await, Err(SubmitError::Closed));
    assert_eq!(rig.batcher.offer(7), Err(Full(7)));
    rig.permits.add_permits(1000);
    close.await;
    rig.batcher.close().await;
    assert_eq!(rig.batches.lock().unwrap().concat(), [1, 2, 3, 4]);
    assert!(rig.batcher.is_idle());
}

#[tokio::test(start_paused = true)]
async fn an_aborted_driver_leaves_nobody_waiting() {
    let mut rig = rig(BOUNDS);
    let waiting = join_all((0..6).map(|n| rig.batcher.submit(n)));
    let mut waiting = Box::pin(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    settle().await;
    rig.tasks.abort_all();
    let results = waiting.await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    rig.batcher.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_a_wrong_count_is_lost_and_the_next_batch_runs() {
    let stop = CancellationToken::new();
    let (batcher, driver) = Batcher::new(
        "odd",
        BOUNDS,
        |_| 1,
        stop.clone(),
        |batch: Vec<u64>| {
            assert!(!batch.contains(&13), "thirteen");
            async move {
                tokio::task::yield_now().await;
                assert!(!batch.contains(&14), "fourteen");
                if batch.contains(&15) { Vec::new() } else { batch }
            }
        },
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    for n in [13, 14, 15] {
        assert_eq!(batcher.submit(n).await, Err(SubmitError::Lost));
        assert_eq!(batcher.submit(n * 2).await, Ok(n * 2));
    }
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_nothing_is_refused_while_there_is_space_and_each_gets_its_own() {
    const EACH: u64 = 5_000;
    let bounds =
        Bounds { items_max: 64, bytes_max: 1 << 20, queue_items_max: 40_000, queue_bytes_max: 1 << 20 };
    let ran = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let (batcher, driver) = Batcher::new("threads", bounds, |_| 1, stop.clone(), {
        let ran = Arc::clone(&ran);
        move |batch: Vec<u64>| {
            ran.lock().unwrap().extend_from_slice(&batch);
            async move { batch }
        }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let mut submitters = JoinSet::new();
    for submitter in 0..8 {
        let batcher = batcher.clone();
        submitters.spawn(async move {
            for n in submitter * EACH..(submitter + 1) * EACH {
                if n % 7 == 0 {
                    assert_eq!(batcher.submit(n).await, Ok(n));
                } else {
                    assert_eq!(batcher.offer(n), Ok(()));
                }
            }
        });
    }
    while let Some(ended) = submitters.join_next().await {
        ended.unwrap();
    }
    batcher.close().await;
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    let mut ran = ran.lock().unwrap().clone();
    for submitter in 0..8 {
        assert!(ran.iter().filter(|n| **n / EACH == submitter).is_sorted());
    }
    ran.sort_unstable();
    assert!(ran.into_iter().eq(0..8 * EACH));
}

#[tokio::test(start_paused = true)]
async fn under_a_lifecycle_it_flushes_when_its_stage_begins() {
    let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Flush, Duration::from_secs(1));
    let (lifecycle, engine) = Lifecycle::new(plan);
    let batcher = Batcher::spawn(
        &lifecycle.scope(Stage::Flush),
        "slow",
        BOUNDS,
        |_| 1,
        |batch| async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            batch
        },
    );
    for n in 1..=4 {
        assert_eq!(batcher.offer(n), Ok(()));
    }
    let last = batcher.submit(5);
    let stop = async {
        lifecycle.stop(StopReason::Manual("test".into()));
        engine.run().await
    };
    let (last, report) = tokio::join!(biased; last, stop);
    // It waited for space when the stop came.
    assert_eq!(last, Err(SubmitError::Closed));
    assert!(report.is_clean() && batcher.is_idle(), "{report:?}");
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_mixed_up(
        items in prop::collection::vec((0..120_usize, 0..4_u8), 1..80),
        items_max in 1..6_usize, queue_items_max in 1..12_usize,
    ) {
        let bounds = Bounds { items_max, bytes_max: 100, queue_items_max, queue_bytes_max: 200 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(bounds, items));
    }
}

/// Submits or offers all items at random times while batches take random time, then closes.
async fn check(bounds: Bounds, items: Vec<(usize, u8)>) {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let (batcher, driver) = Batcher::new("random", bounds, |(_, bytes)| *bytes, stop.clone(), {
        let ran = Arc::clone(&ran);
        move |batch: Vec<(usize, usize)>| {
            let bytes: usize = batch.iter().map(|(_, bytes)| bytes).sum();
            assert!(batch.len() <= bounds.items_max && (bytes <= bounds.bytes_max || batch.len() == 1));
            ran.lock().unwrap().extend(batch.iter().map(|(n, _)| *n));
            async move {
                tokio::time::sleep(Duration::from_millis(bytes as u64 % 5)).await;
                batch.into_iter().map(|(n, _)| n).collect()
            }
        }
    });
    let mut driver_task = JoinSet::new();
    driver_task.spawn(driver);
    let mut submits = JoinSet::new();
    let mut accepted = Vec::new();
    for (n, (bytes, pause)) in items.into_iter().enumerate() {
        if pause == 3 {
            if batcher.offer((n, bytes)).is_ok() {
                accepted.push(n);
            }
        } else {
            let batcher = batcher.clone();
            submits.spawn(async move { (n, batcher.submit((n, bytes)).await) });
            accepted.push(n);
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(u64::from(pause))).await;
    }
    while let Some(ended) = submits.join_next().await {
        let (n, result) = ended.unwrap();
        assert_eq!(result, Ok(n));
    }
    batcher.close().await;
    stop.cancel();
    driver_task.join_next().await.unwrap().unwrap();
    assert_eq!(*ran.lock().unwrap(), accepted);
}
