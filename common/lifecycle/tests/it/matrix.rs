//! Every stage × every way to be late: one table, one paused clock, exact times.

use std::future::pending;
use std::time::Duration;

use sluice_lifecycle::{Engine, Lifecycle, Plan, Report, Stage, StageOutcome, StopReason};
use tokio::time::{Instant, sleep, timeout};

use crate::{STAGE, plan};

const SIGTERM: StopReason = StopReason::Signal("SIGTERM");

/// A way to be late (or not) in one stage, and what has to come of it.
struct Way {
    name: &'static str,
    plan: fn(Stage) -> Plan,
    arrange: fn(&Lifecycle, Stage),
    act: fn(Lifecycle, Engine, Stage) -> Act,
    expect: fn(Stage) -> Expected,
}

type Act = std::pin::Pin<Box<dyn Future<Output = Report>>>;

struct Expected {
    outcome: StageOutcome,
    /// The stage's own time; the others take none.
    elapsed: Duration,
    others: StageOutcome,
    exit_code: i32,
}

fn expected(outcome: StageOutcome, elapsed: Duration) -> Expected {
    Expected { outcome, elapsed, others: StageOutcome::Done, exit_code: 0 }
}

fn late(name: &str) -> Expected {
    expected(StageOutcome::Late(vec![(name.to_owned(), 1)]), STAGE)
}

fn failed() -> Expected {
    expected(StageOutcome::Failed, Duration::ZERO)
}

fn usual(_: Stage) -> Plan {
    plan()
}

/// Becomes ready, then gets a signal.
fn signalled(lifecycle: Lifecycle, engine: Engine, _: Stage) -> Act {
    Box::pin(async move {
        lifecycle.ready();
        assert!(lifecycle.stop(SIGTERM));
        engine.run().await
    })
}

/// Spawns a task that does nothing until its stage begins, then `work`.
fn task<F: Future<Output: sluice_lifecycle::TaskResult> + Send + 'static>(
    lifecycle: &Lifecycle,
    stage: Stage,
    work: F,
) {
    let scope = lifecycle.scope(stage);
    let begun = scope.token();
    scope.spawn("task", async move {
        begun.cancelled().await;
        work.await
    });
}

const WAYS: &[Way] = &[
    Way {
        name: "nothing to do",
        plan: usual,
        arrange: |_, _| (),
        act: signalled,
        expect: |_| expected(StageOutcome::Done, Duration::ZERO),
    },
    Way {
        name: "obedient task",
        plan: usual,
        arrange: |lifecycle, stage| task(lifecycle, stage, async {}),
        act: signalled,
        expect: |_| expected(StageOutcome::Done, Duration::ZERO),
    },
    Way {
        name: "wedged task",
        plan: usual,
        arrange: |lifecycle, stage| lifecycle.scope(stage).spawn("wedged", pending::<()>()),
        act: signalled,
        expect: |_| late("wedged"),
    },
    Way {
        name: "wedged hook",
        plan: usual,
        arrange: |lifecycle, stage| assert!(lifecycle.hook(stage, "wedged", pending)),
        act: signalled,
        expect: |_| late("wedged"),
    },
    Way {
        name: "panicking task",
        plan: usual,
        arrange: |lifecycle, stage| task(lifecycle, stage, async { panic!("on purpose") }),
        act: signalled,
        expect: |_| failed(),
    },
    Way {
        name: "panicking hook",
        plan: usual,
        arrange: |lifecycle, stage| {
            lifecycle.hook(stage, "task", || async { panic!("on purpose") });
        },
        act: signalled,
        expect: |_| failed(),
    },
    Way {
        name: "hook that panics before its first await",
        plan: usual,
        arrange: |lifecycle, stage| {
            lifecycle.hook(stage, "task", || {
                assert!(std::env::args().count() == 0, "on purpose");
                async { Ok(()) }
            });
        },
        act: signalled,
        expect: |_| failed(),
    },
    Way {
        name: "failing task",
        plan: usual,
        arrange: |lifecycle, stage| task(lifecycle, stage, async { Err::<(), _>("no luck") }),
        act: signalled,
        expect: |_| failed(),
    },
    Way {
        name: "failing hook",
        plan: usual,
        arrange: |lifecycle, stage| {
            lifecycle.hook(stage, "task", || async { Err("no luck".into()) });
        },
        act: signalled,
        expect: |_| failed(),
    },
    Way {
        name: "slow task in time",
        plan: usual,
        arrange: |lifecycle, stage| task(lifecycle, stage, async { sleep(STAGE / 2).await }),
        act: signalled,
        expect: |_| expected(StageOutcome::Done, STAGE / 2),
    },
    Way {
        name: "slow hook out of time",
        plan: usual,
        arrange: |lifecycle, stage| {
            lifecycle.hook(stage, "slow", || async {
                sleep(STAGE * 2).await;
                Ok(())
            });
        },
        act: signalled,
        expect: |_| late("slow"),
    },
    Way {
        name: "second signal",
        plan: usual,
        arrange: |lifecycle, stage| {
            let again = lifecycle.clone();
            lifecycle.hook(stage, "again", move || async move {
                assert!(!again.stop(StopReason::Signal("SIGINT")));
                sleep(STAGE / 2).await;
                Ok(())
            });
        },
        act: signalled,
        expect: |_| expected(StageOutcome::Done, STAGE / 2),
    },
    Way {
        name: "zero budget of the stage",
        plan: |zero| {
            Stage::STOPPING.into_iter().fold(Plan::new(STAGE), |plan, stage| {
                plan.stage(stage, if stage == zero { Duration::ZERO } else { STAGE })
            })
        },
        arrange: |lifecycle, stage| task(lifecycle, stage, async {}),
        act: signalled,
        expect: |_| expected(StageOutcome::Skipped, Duration::ZERO),
    },
    Way {
        name: "zero budget of the whole",
        plan: |_| Plan { total: Duration::ZERO, ..plan() },
        arrange: |lifecycle, stage| {
            lifecycle.hook(stage, "never", || async { panic!("runs in a skipped stage") });
            lifecycle.scope(stage).spawn("wedged", pending::<()>());
        },
        act: signalled,
        expect: |_| Expected {
            others: StageOutcome::Skipped,
            ..expected(StageOutcome::Skipped, Duration::ZERO)
        },
    },
    Way {
        name: "stopped during start",
        plan: usual,
        arrange: |lifecycle, stage| task(lifecycle, stage, async { sleep(STAGE / 2).await }),
        act: |lifecycle, engine, _| {
            Box::pin(async move {
                let signal = lifecycle.clone();
                lifecycle.scope(Stage::Gone).spawn_transient("signal", async move {
                    sleep(STAGE).await;
                    signal.stop(SIGTERM);
                });
                assert_eq!(lifecycle.until_stopping(pending::<()>()).await, None);
                lifecycle.ready();
                assert_eq!(
                    lifecycle.stage(),
                    Stage::Starting,
                    "a stop is not undone by the end of the start"
                );
                engine.run().await
            })
        },
        expect: |_| expected(StageOutcome::Done, STAGE / 2),
    },
    Way {
        name: "stopped twice",
        plan: usual,
        arrange: |lifecycle, stage| lifecycle.scope(stage).spawn("wedged", pending::<()>()),
        act: |lifecycle, engine, stage| {
            Box::pin(async move {
                assert!(lifecycle.stop(SIGTERM));
                assert!(!lifecycle.stop(StopReason::Admin));
                let report = engine.run().await;
                assert!(!lifecycle.stop(StopReason::Admin), "also when it is over");
                assert!(!lifecycle.hook(stage, "too late", || async { Ok(()) }));
                report
            })
        },
        expect: |_| late("wedged"),
    },
    Way {
        name: "task of this stage dies before it",
        plan: usual,
        arrange: |lifecycle, stage| {
            lifecycle.scope(stage).spawn("task", async { Err::<(), _>("no luck") });
        },
        act: |lifecycle, engine, _| {
            Box::pin(async move {
                lifecycle.ready();
                engine.run().await
            })
        },
        expect: |_| Expected { exit_code: 1, ..expected(StageOutcome::Done, Duration::ZERO) },
    },
];

#[tokio::test(start_paused = true)]
async fn every_stage_in_every_way() {
    for way in WAYS {
        for stage in Stage::STOPPING {
            let case = format!("{} in {stage}", way.name);
            let (lifecycle, engine) = Lifecycle::new((way.plan)(stage));
            (way.arrange)(&lifecycle, stage);
            let limit = Duration::from_secs(60);
            let report = timeout(limit, (way.act)(lifecycle.clone(), engine, stage)).await.expect(&case);
            check(&case, stage, &report, &(way.expect)(stage));
            assert_eq!(lifecycle.tasks(), [], "{case}: a task is left behind");
            assert_eq!(report.abandoned, [], "{case}");
        }
    }
}

fn check(case: &str, stage: Stage, report: &Report, expected: &Expected) {
    assert_eq!(report.stages.len(), Stage::STOPPING.len(), "{case}");
    for (planned, got) in Stage::STOPPING.into_iter().zip(&report.stages) {
        assert_eq!(got.stage, planned, "{case}: order");
        let own = planned == stage;
        let outcome = if own { &expected.outcome } else { &expected.others };
        assert_eq!(&got.outcome, outcome, "{case}: outcome of {planned}");
        let elapsed = if own { expected.elapsed } else { Duration::ZERO };
        assert_eq!(got.elapsed, elapsed, "{case}: time of {planned}");
        let failures = usize::from(own && expected.outcome == StageOutcome::Failed);
        assert_eq!(got.failures.len(), failures, "{case}: {:?}", got.failures);
    }
    assert_eq!(report.elapsed, expected.elapsed, "{case}: total");
    assert_eq!(report.exit_code(), expected.exit_code, "{case}: exit code");
}

#[tokio::test(start_paused = true)]
async fn never_started_in_every_stage() {
    for stage in Stage::STOPPING {
        let (lifecycle, engine) = Lifecycle::new(plan());
        lifecycle.scope(stage).spawn("wedged", pending::<()>());
        lifecycle.hook(stage, "never", || async { panic!("runs without an engine") });
        let before = Instant::now();
        drop(engine);
        tokio::task::yield_now().await;
        assert_eq!(lifecycle.tasks(), [], "{stage}");
        assert!(lifecycle.stopping().is_cancelled() && lifecycle.scope(stage).token().is_cancelled());
        assert!(!lifecycle.progress().borrow().is_ready());
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
