//! The budget, as a property: whatever is planned and whatever hangs, each stage and the whole keep their time.

use std::time::Duration;

use proptest::prelude::*;
use sluice_lifecycle::{Lifecycle, Plan, Report, Stage, StageOutcome, StopReason};
use tokio::runtime::Builder;
use tokio::time::sleep;

/// What one stage may take, and what its work takes.
#[derive(Clone, Debug)]
struct Load {
    allowed_ms: u64,
    tasks_ms: Vec<u64>,
    hooks_ms: Vec<u64>,
}

/// Longer than any total here.
const FOR_EVER_MS: u64 = 1 << 40;

fn load() -> impl Strategy<Value = Load> {
    let work = || prop_oneof![4 => 0u64..3_000, 1 => Just(FOR_EVER_MS)];
    let some = move || prop::collection::vec(work(), 0..3);
    (0u64..3_000, some(), some()).prop_map(|(allowed_ms, tasks_ms, hooks_ms)| Load {
        allowed_ms,
        tasks_ms,
        hooks_ms,
    })
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Runs the stop on a paused clock; the engine begins `delay_ms` after the request.
fn run(total_ms: u64, delay_ms: u64, loads: &[Load]) -> (Report, Vec<(String, usize)>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut plan = Plan::new(ms(total_ms));
        for (stage, load) in Stage::STOPPING.into_iter().zip(loads) {
            plan = plan.stage(stage, ms(load.allowed_ms));
        }
        let (lifecycle, engine) = Lifecycle::new(plan);
        for (stage, load) in Stage::STOPPING.into_iter().zip(loads) {
            for &takes in &load.tasks_ms {
                let scope = lifecycle.scope(stage);
                let begun = scope.token();
                scope.spawn("task", async move {
                    begun.cancelled().await;
                    sleep(ms(takes)).await;
                });
            }
            for &takes in &load.hooks_ms {
                lifecycle.hook(stage, "hook", move || async move {
                    sleep(ms(takes)).await;
                    Ok(())
                });
            }
        }
        lifecycle.stop(StopReason::Admin);
        sleep(ms(delay_ms)).await;
        let report = engine.run().await;
        (report, lifecycle.tasks())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stop_keeps_its_budget(
        total_ms in prop_oneof![Just(0u64), 1u64..10_000],
        delay_ms in 0u64..500,
        loads in prop::collection::vec(load(), 1..=6),
    ) {
        let (report, left) = run(total_ms, delay_ms, &loads);
        // An engine that begins behind the end of the total (nobody polled it) takes no time of its own.
        prop_assert!(report.elapsed <= ms(total_ms.max(delay_ms)), "{:?}", report.elapsed);
        prop_assert_eq!(left, vec![]);
        let mut now = delay_ms;
        for (load, stage) in loads.iter().zip(&report.stages) {
            let allowed = load.allowed_ms.min(total_ms.saturating_sub(now));
            prop_assert_eq!(stage.allowed, ms(allowed), "what is not used is passed on, what is not there is not given");
            let needs = load.tasks_ms.iter().chain(&load.hooks_ms).copied().max().unwrap_or(0);
            let takes = needs.min(allowed);
            prop_assert_eq!(stage.elapsed, ms(takes));
            match &stage.outcome {
                StageOutcome::Skipped => prop_assert_eq!(allowed, 0),
                StageOutcome::Done => prop_assert!(allowed > 0 && needs <= allowed),
                StageOutcome::Late(who) => {
                    prop_assert!(allowed > 0 && needs >= allowed);
                    prop_assert!(!who.is_empty());
                }
                StageOutcome::Failed => prop_assert!(false, "nothing fails here"),
            }
            now += takes;
        }
    }
}
