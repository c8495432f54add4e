//! The way up, what is public on the way down, and the clock that starts with the request.

use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Plan, ProcessState, Stage, StageOutcome, StopReason};
use tokio::time::{Instant, sleep};

use crate::{STAGE, plan};

#[tokio::test(start_paused = true)]
async fn the_stages_are_public() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let mut progress = lifecycle.progress();
    assert_eq!(progress.borrow().state(), ProcessState::Starting);
    assert_eq!(progress.borrow().remaining(), None);
    lifecycle.ready();
    assert!(progress.borrow_and_update().is_ready());
    let watching = lifecycle.clone();
    let (seen, mut stages) = tokio::sync::mpsc::channel(16);
    lifecycle.scope(Stage::Gone).spawn_transient("watcher", async move {
        let mut progress = watching.progress();
        loop {
            let now = progress.borrow_and_update().clone();
            seen.send((now.stage, now.safe_to_kill(), now.outcomes.len())).await.unwrap();
            progress.changed().await.unwrap();
        }
    });
    for stage in Stage::STOPPING {
        lifecycle.hook(stage, "slow", || async {
            sleep(STAGE / 2).await;
            Ok(())
        });
    }
    tokio::task::yield_now().await; // the watcher sees Ready
    let asked = Instant::now();
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    assert!(!progress.borrow().is_ready(), "not ready as soon as a stop is asked for");
    assert_eq!(progress.borrow().stage, Stage::Ready);
    let report = engine.run().await;
    assert!(report.stages[..5].iter().all(|stage| stage.outcome == StageOutcome::Done));
    assert_eq!(report.outcome(Stage::Gone), Some(&StageOutcome::Late(vec![("watcher".to_owned(), 1)])));
    let mut all = Vec::new();
    while let Some((stage, safe, _)) = stages.recv().await {
        assert_eq!(safe, stage >= Stage::Release);
        all.push(stage);
    }
    all.dedup();
    assert_eq!(all, Stage::ALL[1..]);
    let end = progress.borrow().clone();
    assert_eq!((end.stage, end.state(), end.deadline), (Stage::Gone, ProcessState::Stopped, None));
    assert_eq!(end.total_deadline, Some(asked + Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_start_is_interrupted() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    assert_eq!(lifecycle.until_stopping(async { 7 }).await, Some(7));
    lifecycle.stop(StopReason::Admin);
    for _ in 0..64 {
        assert_eq!(lifecycle.until_stopping(async { 7 }).await, None, "a stop wins, and not by chance");
    }
    assert!(engine.run().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_time_runs_from_the_request() {
    let (lifecycle, engine) = Lifecycle::new(Plan::new(2 * STAGE).stage(Stage::Drain, 2 * STAGE));
    lifecycle.hook(Stage::Drain, "wedged", std::future::pending);
    lifecycle.stop(StopReason::Admin);
    sleep(STAGE / 2).await; // a start-up step that did not look
    let report = engine.run().await;
    assert_eq!(report.elapsed, 2 * STAGE);
    assert_eq!(report.stages[0].allowed, 2 * STAGE - STAGE / 2);
}

#[tokio::test(start_paused = true)]
async fn counts_belong_to_their_stage_and_to_the_whole() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    lifecycle.note("accepted", 5);
    let counting = lifecycle.clone();
    lifecycle.hook(Stage::Drain, "count", move || async move {
        counting.note("unknown", 2);
        counting.note("unknown", 1);
        Ok(())
    });
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    assert_eq!(report.stages[0].counts.len(), 0);
    assert_eq!(report.stages[2].counts.get("unknown"), Some(&3));
    assert_eq!(report.counts, lifecycle.counts());
    assert_eq!(report.counts.get("accepted"), Some(&5));
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_is_not_planned_stands_for_the_next() {
    let (lifecycle, engine) = Lifecycle::new(Plan::new(STAGE).stage(Stage::Drain, STAGE));
    for stage in [Stage::Ready, Stage::Notify, Stage::Gone] {
        let token = lifecycle.scope(stage).token();
        lifecycle.scope(stage).spawn("task", async move { token.cancelled().await });
    }
    lifecycle.stop(StopReason::Admin);
    assert!(engine.run().await.is_clean());
}

#[test]
#[should_panic(expected = "drain behind flush")]
fn a_plan_out_of_order_does_not_start() {
    drop(Lifecycle::new(Plan::new(STAGE).stage(Stage::Flush, STAGE).stage(Stage::Drain, STAGE)));
}
