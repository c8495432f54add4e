//! Work on other runtimes and threads, in real time but without waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_lifecycle::{Lifecycle, Stage, StopReason};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::plan;

/// A shard as the gateway has them: its own thread and runtime, `spawn_local` for its connections.
#[tokio::test]
async fn shards_on_their_own_threads_are_waited_for() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let closed = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (scope, closed) = (lifecycle.scope(Stage::Drain), Arc::clone(&closed));
        let shard = scope.track("shard");
        threads.push(std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                // Local tasks have no Scope: they are tracked.
                let connections: Vec<_> = (0..100)
                    .map(|_| {
                        let (guard, closed) = (scope.track_transient("connection"), Arc::clone(&closed));
                        tokio::task::spawn_local(async move {
                            guard.token().cancelled().await;
                            closed.fetch_add(1, Ordering::SeqCst);
                        })
                    })
                    .collect();
                // A Scope may be used on any runtime.
                let token = scope.token();
                scope.spawn("ticker", async move { token.cancelled().await });
                shard.token().cancelled().await;
                for connection in connections {
                    connection.await.unwrap();
                }
                drop(shard);
            });
        }));
    }
    lifecycle.ready();
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    let report = engine.run().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(closed.load(Ordering::SeqCst), 200);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A runtime that goes away under a task that should have lived is an unexpected end.
#[tokio::test]
async fn a_task_dropped_with_its_runtime_is_noticed() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let scope = lifecycle.scope(Stage::Drain);
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { scope.spawn("task", std::future::pending::<()>()) });
    })
    .join()
    .unwrap();
    let report = engine.run().await;
    let reason = StopReason::Failed("task".to_owned(), "dropped by its runtime".to_owned());
    assert_eq!(report.reason, reason);
}

/// Tasks that come and go on all workers while the stop runs: none is missed, none is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_crowd() {
    for _ in 0..20 {
        let (lifecycle, engine) = Lifecycle::new(plan());
        let scope = lifecycle.scope(Stage::Drain);
        for _ in 0..4 {
            let (scope, stopping) = (scope.clone(), lifecycle.stopping());
            lifecycle.scope(Stage::Notify).spawn("listener", async move {
                while !stopping.is_cancelled() {
                    let token = scope.token();
                    scope.spawn_transient("connection", async move { token.cancelled().await });
                    scope.spawn_transient("call", async { tokio::task::yield_now().await });
                    tokio::task::yield_now().await;
                }
            });
        }
        let asking = lifecycle.clone();
        lifecycle.scope(Stage::Gone).spawn_transient("trigger", async move {
            while asking.tasks().len() < 3 {
                tokio::task::yield_now().await;
            }
            asking.stop(StopReason::Admin);
        });
        let report = engine.run().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(lifecycle.tasks(), []);
    }
}

/// Code that never yields holds a worker, not the stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_never_yields_is_left_behind_and_named() {
    let plan = sluice_lifecycle::Plan::new(std::time::Duration::from_millis(300))
        .stage(Stage::Drain, std::time::Duration::from_millis(100));
    let (lifecycle, engine) = Lifecycle::new(plan);
    let (free, wedge) = std::sync::mpsc::sync_channel::<()>(0);
    let (wedged, is_wedged) = tokio::sync::oneshot::channel();
    lifecycle.scope(Stage::Drain).spawn("wedged", async move {
        wedged.send(()).unwrap();
        wedge.recv().ok();
    });
    is_wedged.await.unwrap();
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    assert_eq!(report.abandoned, [("wedged".to_owned(), 1)]);
    drop(free);
}
