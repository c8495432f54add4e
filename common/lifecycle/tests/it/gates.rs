//! Gates: refuse new, wait for those inside, say who is.

use std::future::pending;

use sluice_lifecycle::{Lifecycle, Stage, StageOutcome, StopReason};
use tokio::time::sleep;

use crate::{STAGE, plan};

#[tokio::test(start_paused = true)]
async fn a_stage_waits_for_those_inside() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let gate = lifecycle.gate("calls");
    let inside = gate.enter().unwrap();
    lifecycle.scope(Stage::Gone).spawn_transient("caller", async move {
        sleep(STAGE / 2).await;
        drop(inside);
    });
    let closing = gate.clone();
    lifecycle.hook(Stage::Drain, "calls-done", move || async move {
        closing.close();
        closing.closed_and_empty().await;
        Ok(())
    });
    lifecycle.stop(StopReason::Admin);
    let report = engine.run().await;
    assert!(report.is_clean());
    assert_eq!(report.stages[2].elapsed, STAGE / 2);
    assert!(gate.enter().is_none());
    assert_eq!(gate.inside(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_stays_inside_is_named() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let gate = lifecycle.gate("calls");
    let _inside = (gate.enter(), gate.enter());
    let _not_waited_for = lifecycle.gate("others").enter();
    let closing = gate.clone();
    lifecycle.hook(Stage::Drain, "calls-done", move || async move {
        closing.close();
        closing.closed_and_empty().await;
        Ok(())
    });
    assert_eq!(lifecycle.blockers(), []);
    lifecycle.stop(StopReason::Admin);
    let asking = lifecycle.clone();
    lifecycle.scope(Stage::Gone).spawn_transient("status", async move {
        let mut progress = asking.progress();
        progress.wait_for(|progress| progress.stage == Stage::Drain).await.unwrap();
        sleep(STAGE / 2).await;
        let waiting = [("calls".to_owned(), 2), ("calls-done".to_owned(), 1)];
        assert_eq!(asking.blockers(), waiting);
        asking.note("asked", 1);
    });
    let report = engine.run().await;
    let late = vec![("calls".to_owned(), 2), ("calls-done".to_owned(), 1)];
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Late(late)));
    assert_eq!(report.counts.get("asked"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_is_never_over() {
    let (lifecycle, _engine) = Lifecycle::new(plan());
    let gate = lifecycle.gate("calls");
    let waited = tokio::select! {
        () = gate.closed_and_empty() => true,
        () = sleep(STAGE) => false,
    };
    assert!(!waited);
    gate.close();
    gate.close();
    gate.closed_and_empty().await;
    assert!(gate.is_closed());
    // A wait given up does not stay in the books.
    let other = lifecycle.gate("other");
    let _inside = other.enter();
    tokio::select! {
        () = other.closed_and_empty() => pending().await,
        () = sleep(STAGE) => (),
    }
}

#[test]
fn many_threads_and_one_close() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (lifecycle, _engine) = Lifecycle::new(plan());
        let gate = lifecycle.gate("calls");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let gate = gate.clone();
                std::thread::spawn(move || while gate.enter().is_some() {})
            })
            .collect();
        let waiting = gate.clone();
        let closing = std::thread::spawn(move || waiting.close());
        gate.closed_and_empty().await;
        assert_eq!(gate.inside().min(4), gate.inside(), "at most those being refused at this instant");
        closing.join().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        gate.closed_and_empty().await;
    });
}
