//! What an operator reads: one INFO line for each stage, one summary.

use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Plan, Stage, StopReason, Work};
use sluice_testing::{keep_log, logged as lines_with};

use crate::{STAGE, plan};

struct Lines(String);

impl Lines {
    fn containing(&self, text: &str) -> Vec<&str> {
        self.0.lines().filter(|line| line.contains(text)).collect()
    }
}

/// What a stop logs.
async fn logged(plan: Plan, arrange: impl FnOnce(&Lifecycle)) -> Lines {
    keep_log();
    let (lifecycle, engine) = Lifecycle::new(plan);
    arrange(&lifecycle);
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    lifecycle.stop(StopReason::Signal("SIGINT"));
    engine.run().await;
    Lines(lines_with("").join("\n"))
}

#[tokio::test(start_paused = true)]
async fn one_line_for_each_stage_and_a_summary() {
    let lines = logged(plan(), |lifecycle| {
        lifecycle.scope(Stage::Drain).spawn("session", std::future::pending::<()>());
        lifecycle.hook(Stage::Flush, "status", || async { Err("no logic".into()) });
        lifecycle.note("unknown", 3);
        lifecycle.tally(Stage::Drain, "cut", || 2);
        lifecycle.summarize("accepted", || 12);
    })
    .await;
    let begun = lines.containing("Stage begins");
    assert_eq!(begun.len(), 6);
    assert!(begun[2].contains(r#"stage="drain" allowed_ms=1000 remaining_ms=8000"#), "{begun:?}");
    assert!(begun[3].contains(r#"stage="flush" allowed_ms=1000 remaining_ms=7000"#), "{begun:?}");
    let stages = lines.containing("Stage is over");
    assert_eq!(stages.len(), 6);
    assert!(
        stages[0].ends_with(r#"stage="not-ready" outcome="done" elapsed_ms=0 allowed_ms=1000"#),
        "{stages:?}"
    );
    assert!(stages.iter().all(|line| line.contains("INFO")));
    assert!(stages[2].contains(
        r#"stage="drain" outcome="late" elapsed_ms=1000 allowed_ms=1000 late={session=1} counts={cut=2}"#
    ));
    assert!(stages[3].contains(r#"outcome="failed""#) && stages[3].contains(r#"failures="status=no logic""#));
    let summary = lines.containing("Stopped ");
    assert_eq!(summary.len(), 1, "{summary:?}");
    assert!(
        summary[0]
            .contains(r#"reason=SIGTERM exit_code=0 elapsed_ms=1000 unclean="drain=late flush=failed""#)
    );
    assert!(summary[0].ends_with("counts={accepted=12 cut=2 tasks_cancelled=1 unknown=3}"), "{summary:?}");
    assert!(!lines.0.contains(r#"="""#), "no empty field: {}", lines.0);
    assert_eq!(lines.containing("ignored").len(), 1, "the second signal");
}

#[tokio::test(start_paused = true)]
async fn the_first_line_says_what_is_under_way_and_the_last_what_was_done() {
    let lines = logged(plan(), |lifecycle| {
        lifecycle.report_work(|| Work { in_flight: 2, accepted: 9, completed: 5, rejected: 1, cancelled: 1 });
        lifecycle.scope(Stage::Drain).spawn_transient("call", async {});
    })
    .await;
    let stopping = lines.containing(" Stopping ");
    let expected = format!(
        "reason=SIGTERM signal_number=15 pid={} is_processing=true in_flight=2 total_ms=8000",
        std::process::id()
    );
    assert!(stopping.len() == 1 && stopping[0].ends_with(&expected), "{stopping:?}");
    let summary = lines.containing(" Stopped ");
    let expected =
        "processed_count=6 counts={accepted=9 cancelled=1 completed=5 rejected=1 tasks_completed=1}";
    assert!(summary[0].ends_with(expected), "{summary:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_can_be_asked_for_after_the_end() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let (work, kept) = (std::sync::Arc::new(Work { completed: 3, ..Work::default() }), lifecycle.clone());
    let source = work.clone();
    lifecycle.report_work(move || if kept.stage() == Stage::Starting { Work::default() } else { *source });
    assert_eq!(lifecycle.work(), Work::default());
    tokio::time::advance(STAGE).await;
    lifecycle.ready();
    assert!(lifecycle.work() == *work && lifecycle.progress().borrow().takes_work());
    assert_eq!(lifecycle.uptime(), STAGE);
    lifecycle.stop(StopReason::Admin);
    assert_eq!(engine.run().await.work, *work);
    assert_eq!((lifecycle.work(), lifecycle.progress().borrow().takes_work()), (*work, false));
    assert_eq!(std::sync::Arc::strong_count(&work), 1, "the source is let go of");
}

/// Who counts may hold the lifecycle.
#[tokio::test(start_paused = true)]
async fn whoever_counts_is_let_go_of_at_the_end() {
    let (lifecycle, engine) = Lifecycle::new(plan());
    let counter = std::sync::Arc::new(7_u64);
    let (counting, of_a_stage, kept) = (counter.clone(), counter.clone(), lifecycle.clone());
    lifecycle.summarize("all", move || *counting + u64::from(kept.stage() == Stage::Ready));
    lifecycle.tally(Stage::Drain, "some", move || *of_a_stage);
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    let report = engine.run().await;
    assert_eq!((report.counts["all"], report.counts["some"]), (7, 7));
    assert_eq!(lifecycle.counts(), report.counts, "and what they said stays");
    assert_eq!(std::sync::Arc::strong_count(&counter), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_failed_is_an_error_with_its_exit_code() {
    let lines = logged(plan(), |lifecycle| {
        lifecycle.stop(StopReason::NotStarted("the port is taken".to_owned(), 1));
    })
    .await;
    for said in ["The start failed", "Stopped "] {
        let line = lines.containing(said);
        assert!(
            line.len() == 1 && line[0].contains("ERROR") && line[0].contains("the port is taken"),
            "{line:?}"
        );
    }
    assert!(lines.containing("Stopped ")[0].contains("exit_code=1"));
}

#[tokio::test(start_paused = true)]
async fn a_skipped_stage_is_said_so() {
    let plan = Plan::new(STAGE).stage(Stage::Drain, STAGE).stage(Stage::Flush, Duration::from_secs(9));
    let lines = logged(plan, |lifecycle| {
        lifecycle.hook(Stage::Drain, "wedged", std::future::pending);
    })
    .await;
    let skipped = lines.containing(r#"stage="flush" outcome="skipped" elapsed_ms=0 allowed_ms=0"#);
    assert_eq!(skipped.len(), 1);
}
