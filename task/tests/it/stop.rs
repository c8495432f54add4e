//! Stops: quick when idle, patient with draining gateways when last, never in the middle of a notice.

use std::time::Duration;

use sluice_lifecycle::{Stage, Work};
use sluice_testing::{eventually, lives_leave_nothing};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::logic::Logic;
use crate::rig::{AT_ONCE, Ground, Rig, SOON, Task};

pub async fn an_idle_task_stops_at_once<G: Ground>() {
    let rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    let task = rig.task(&[&gateway]).await;
    let report = task.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.elapsed < AT_ONCE, "{report:?}");
}

pub async fn the_last_task_pushes_until_draining_gateways_are_gone<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.says("gateway-a", true);
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    let lifecycle = task.lifecycle.clone();
    let others = async {
        eventually("it stops", SOON, async || lifecycle.stage() == Stage::NotReady).await;
        rig.publish(&["news"]).await;
        eventually("it is still pushed", SOON, async || gateway.runs().len() == 2).await;
        assert_eq!(lifecycle.stage(), Stage::NotReady);
        gateway.cut();
        Instant::now()
    };
    let (report, left) = tokio::join!(task.stop(), others);
    // The end of its stream is the end of the gateway; the stay alone would be longer.
    assert!(left.elapsed() < Duration::from_secs(2), "{report:?}");
    assert_eq!(report.exit_code(), 0);
}

pub async fn a_notice_in_hand_is_brought_to_its_end<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.wedge(true);
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    let status = task.status().await;
    assert_eq!((&status["is_processing"], &status["in_flight"]), (&true.into(), &1.into()), "{status}");
    assert_eq!((&status["accepting"], &status["processed_count"]), (&true.into(), &0.into()), "{status}");
    let lifecycle = task.lifecycle.clone();
    let unwedge = async {
        eventually("it waits for the ack", SOON, async || lifecycle.stage() == Stage::Drain).await;
        gateway.wedge(false);
    };
    let (report, ()) = tokio::join!(task.stop(), unwedge);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.work, Work { accepted: 1, completed: 1, ..Work::default() });
    rig.settled().await;
    assert_eq!(gateway.runs().len(), 1);
}

/// One after the other in this process: each takes a notice and stops.
pub async fn a_task_leaves_nothing_behind<G: Ground>() {
    let mut rig = Rig::<G>::listed().await;
    let (gateway, logic) = (Gateway::start("gateway-a").await, Logic::start().await);
    rig.interest(&gateway, &["news"]).await;
    let mut config = rig.config(&[&gateway]);
    config.logic.seeds = vec![logic.address.clone()];
    lives_leave_nothing(20, async || {
        let task = Task::start(&rig.ground, config.clone()).await;
        task.ready().await;
        let runs = rig.publish(&["news"]).await;
        eventually("it is pushed", SOON, async || gateway.runs().ends_with(&runs)).await;
        rig.settled().await;
        let report = task.stop().await;
        assert!(report.is_clean() && report.exit_code() == 0, "{report:?}");
    })
    .await;
}
