//! What the end of a task means, before its stage, in it and behind it; and that nothing is left.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Stage, StageOutcome, StopReason, bounded};
use tokio::time::sleep;

use crate::{STAGE, plan};

fn died(task: &str, error: &str) -> StopReason {
    StopReason::Failed(task.to_owned(), error.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_by_itself_stops_the_process() {
    type Start = fn(&Lifecycle);
    let table: [(Start, &str); 4] = [
        (|l| l.scope(Stage::Drain).spawn("task", async {}), "ended before its stage"),
        (|l| l.scope(Stage::Drain).spawn("task", async { Err::<(), _>("no luck") }), "no luck"),
        (|l| l.scope(Stage::Drain).spawn("task", async { panic!("number {}", 7) }), "panicked: number 7"),
        (
            |l| {
                let guard = l.scope(Stage::Drain).track("task");
                std::thread::spawn(move || {
                    let _guard = guard;
                    panic!("on purpose");
                })
                .join()
                .unwrap_err();
            },
            "panicked: see standard error",
        ),
    ];
    for (start, error) in table {
        let (lifecycle, engine) = Lifecycle::new(plan());
        start(&lifecycle);
        let report = engine.run().await;
        assert_eq!(report.reason, died("task", error));
        assert_eq!(report.exit_code(), 1);
        assert!(report.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_task_may_end_as_it_likes() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let scope = lifecycle.scope(Stage::Drain);
    scope.spawn_transient("connection", async {});
    scope.spawn_transient("connection", async { Err::<(), _>("reset") });
    scope.spawn_transient("connection", async { panic!("on purpose") });
    let guard = scope.track_transient("local");
    std::thread::spawn(move || {
        let _guard = guard;
        panic!("on purpose");
    })
    .join()
    .unwrap_err();
    sleep(STAGE).await;
    assert_eq!(lifecycle.tasks(), []);
    assert!(!lifecycle.stopping().is_cancelled());
    lifecycle.stop(StopReason::Admin);
    assert!(engine.run().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_end_during_a_stop_fails_the_stage_but_not_the_exit_code() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    lifecycle.hook(Stage::NotReady, "slow", || async {
        sleep(STAGE / 2).await;
        Ok(())
    });
    let stopping = lifecycle.stopping();
    lifecycle.scope(Stage::Release).spawn("early", async move {
        stopping.cancelled().await;
        Err::<(), _>("the store is gone too")
    });
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    let report = engine.run().await;
    assert_eq!(report.outcome(Stage::NotReady), Some(&StageOutcome::Failed));
    assert_eq!(report.stages[0].failures, [("early".to_owned(), "the store is gone too".to_owned())]);
    assert_eq!(report.outcome(Stage::Release), Some(&StageOutcome::Done));
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn late_ones_are_counted_by_name_and_their_failures_kept() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let scope = lifecycle.scope(Stage::Drain);
    for _ in 0..3 {
        scope.spawn_transient("connection", pending::<()>());
    }
    let held = scope.track("shard");
    lifecycle.hook(Stage::Drain, "broken", || async { Err("no luck".into()) });
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    let late = vec![("connection".to_owned(), 3), ("shard".to_owned(), 1)];
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Late(late)));
    assert_eq!(report.stages[2].failures.len(), 1);
    assert_eq!(report.abandoned, [("shard".to_owned(), 1)], "a guard cannot be aborted");
    drop(held);
    assert_eq!(lifecycle.tasks(), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_spawned_in_its_stage_is_waited_for_and_behind_it_refused() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let inside = lifecycle.clone();
    lifecycle.hook(Stage::Drain, "spawns", move || async move {
        let scope = inside.scope(Stage::Drain);
        let token = scope.token();
        scope.spawn("in time", async move {
            token.cancelled().await;
            sleep(STAGE / 2).await;
        });
        inside.scope(Stage::Notify).spawn("too late", async { panic!("polled") });
        assert!(inside.tasks().iter().all(|(name, _)| name != "too late"));
        assert!(!inside.hook(Stage::Drain, "too late", || async { Ok(()) }));
        assert!(inside.hook(Stage::Flush, "in time", || async { Ok(()) }));
        Ok(())
    });
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.stages[2].elapsed, STAGE / 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_the_engine() {
    let payload = Arc::new(());
    for run in [true, false] {
        let (lifecycle, engine) = Lifecycle::new(plan());
        for stage in Stage::ALL {
            let (task, transient, hook) = (Arc::clone(&payload), Arc::clone(&payload), Arc::clone(&payload));
            lifecycle.scope(stage).spawn("task", async move {
                let _held = task;
                pending::<()>().await;
            });
            lifecycle.scope(stage).spawn_transient("connection", async move {
                let _held = transient;
                pending::<()>().await;
            });
            lifecycle.hook(stage, "hook", move || async move {
                let _held = hook;
                pending().await
            });
        }
        if run {
            lifecycle.stop(StopReason::Admin);
            assert_eq!(engine.run().await.elapsed, 6 * STAGE);
        } else {
            drop(engine);
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&payload), 1, "run: {run}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_half_way_leaves_nothing() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    lifecycle.scope(Stage::Flush).spawn("task", pending::<()>());
    lifecycle.hook(Stage::Drain, "hook", pending);
    lifecycle.stop(StopReason::Admin);
    assert!(bounded(STAGE / 2, "run", engine.run()).await.is_err());
    tokio::task::yield_now().await;
    assert_eq!(lifecycle.tasks(), []);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_never_closes_takes_no_time_of_the_others() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let (within, begun) = (STAGE / 4, tokio::time::Instant::now());
    lifecycle.release("gone", within, (), |()| pending::<()>());
    lifecycle.release("failing", within, (), |()| async { Err::<(), _>("no luck") });
    lifecycle.release("well", within, 7, |number| async move { assert_eq!(number, 7) });
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    assert!(begun.elapsed() < STAGE, "{:?}: its own time, and nobody else's", begun.elapsed());
    let release = report.stages.iter().find(|stage| stage.stage == Stage::Release).unwrap();
    let failed: Vec<&str> = release.failures.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((&release.outcome, failed.len()), (&StageOutcome::Failed, 2), "{:?}", release.failures);
    assert!(failed.contains(&"gone") && failed.contains(&"failing"), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn bounded_says_who() {
    let limit = Duration::from_millis(500);
    assert_eq!(bounded(limit, "pool", async { 7 }).await, Ok(7));
    let late = bounded(limit, "pool", pending::<()>()).await.unwrap_err();
    assert_eq!(late.to_string(), "pool was not done within 500ms");
}
