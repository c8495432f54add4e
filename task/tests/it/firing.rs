//! Delayed messages: each part is fired by who owns it, and a stop ends that first, whatever logic does.

use sluice_lifecycle::StopReason;
use sluice_testing::eventually;

use crate::logic::Logic;
use crate::rig::{AT_ONCE, Ground, Rig, SOON, STAGES, Task};

async fn firing<G: Ground>() -> (Rig<G>, Logic, Task) {
    let (rig, logic) = tokio::join!(Rig::<G>::listed(), Logic::start());
    let mut config = rig.config(&[]);
    config.logic.seeds = vec![logic.address.clone()];
    let task = Task::start(&rig.ground, config).await;
    eventually("every part is fired", SOON, async || logic.parts_fired().len() == 8).await;
    (rig, logic, task)
}

pub async fn a_stop_ends_the_firing_however_often_it_is_asked_for<G: Ground>() {
    let (_rig, logic, task) = firing::<G>().await;
    let lifecycle = task.lifecycle.clone();
    for _ in 0..50 {
        lifecycle.stop(StopReason::Signal("SIGTERM"));
    }
    let report = task.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.elapsed < AT_ONCE, "{report:?}");
    // Nothing is left that could fire.
    let fires = logic.fires();
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    tokio::task::yield_now().await;
    assert_eq!(logic.fires(), fires);
}

pub async fn a_stop_in_the_middle_of_what_is_due_waits_for_one_call_at_most<G: Ground>() {
    let (_rig, logic, task) = firing::<G>().await;
    logic.hold_fires(true);
    let before = logic.fires();
    eventually("logic holds calls", SOON, async || logic.fires() >= before + 8).await;
    let report = task.stop().await;
    assert_eq!(report.exit_code(), 0);
    assert!(report.is_clean(), "{report:?}");
    assert!(report.elapsed < STAGES, "{report:?}");
}
