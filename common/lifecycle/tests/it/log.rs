//! What an operator reads: one INFO line for each stage, one summary.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_lifecycle::{Lifecycle, Plan, Stage, StopReason};

use crate::{STAGE, plan};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn containing(&self, text: &str) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let all = String::from_utf8_lossy(&bytes);
        all.lines().filter(|line| line.contains(text)).map(ToOwned::to_owned).collect()
    }
}

async fn logged(plan: Plan, arrange: impl FnOnce(&Lifecycle)) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _installed = tracing::subscriber::set_default(subscriber);
    let (lifecycle, engine) = Lifecycle::new(plan);
    arrange(&lifecycle);
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    lifecycle.stop(StopReason::Signal("SIGINT"));
    engine.run().await;
    lines
}

#[tokio::test(start_paused = true)]
async fn one_line_for_each_stage_and_a_summary() {
    let lines = logged(plan(), |lifecycle| {
        lifecycle.scope(Stage::Drain).spawn("session", std::future::pending::<()>());
        lifecycle.hook(Stage::Flush, "status", || async { Err("no logic".into()) });
        lifecycle.note("unknown", 3);
    })
    .await;
    let stages = lines.containing("Stage is over");
    assert_eq!(stages.len(), 6);
    assert!(stages.iter().all(|line| line.contains("INFO")));
    assert!(
        stages[2]
            .contains(r#"stage="drain" outcome="late" elapsed_ms=1000 allowed_ms=1000 late="session=1""#)
    );
    assert!(stages[3].contains(r#"outcome="failed""#) && stages[3].contains(r#"failures="status=no logic""#));
    let summary = lines.containing("Stopped ");
    assert_eq!(summary.len(), 1, "{summary:?}");
    assert!(
        summary[0]
            .contains(r#"reason=SIGTERM exit_code=0 elapsed_ms=1000 unclean="drain=late flush=failed""#)
    );
    assert!(summary[0].contains(r#"counts="unknown=3""#));
    assert_eq!(lines.containing("ignored").len(), 1, "the second signal");
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
