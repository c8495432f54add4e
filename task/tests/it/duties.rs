//! Sweep and reap: done by one, given back first, taken over at once.

use std::time::Duration;

use sluice_proto::ids::{InstanceId, RoomId};
use sluice_testing::eventually;

use crate::gateway::Gateway;
use crate::logic::Logic;
use crate::rig::{Ground, Rig, SOON, Task};

async fn duties(task: &Task) -> usize {
    task.status().await["duties"].as_array().unwrap().len()
}

pub async fn duties_are_spread_done_and_handed_over<G: Ground>() {
    let (rig, logic) = tokio::join!(Rig::<G>::listed(), Logic::start());
    let gateway = Gateway::start("gateway-alive").await;
    // Neither is in the registry; one has a working stream.
    let room = [RoomId::parse("news").unwrap()];
    let gone = InstanceId::parse("gateway-gone").unwrap();
    rig.ground.presence().add_interest(&gone, &room).await.unwrap();
    rig.interest(&gateway, &["news"]).await;
    let mut config = rig.config(&[&gateway]);
    config.logic.seeds = vec![logic.address.clone()];
    let one = Task::start(&rig.ground, config.clone()).await;
    eventually("the first has all", SOON, async || duties(&one).await == 10).await;
    let two = Task::start(&rig.ground, config).await;
    eventually("each has half", SOON, async || duties(&one).await == 5 && duties(&two).await == 5).await;
    eventually("it sweeps", SOON, async || logic.sweeps() > 1).await;
    eventually("it reaps", SOON, async || !logic.reaped().is_empty()).await;
    eventually("it asks who left", SOON, async || logic.leaves() > 1).await;
    assert!(logic.reaped().iter().all(|id| id == "gateway-gone"), "{:?}", logic.reaped());
    let stop = one.stop();
    let taken = eventually("the other takes over", SOON, async || duties(&two).await == 10);
    let (report, taken) = tokio::join!(stop, taken);
    assert!(report.is_clean(), "{report:?}");
    // The lease alone would hold them for 2 s, and the look for it half a second more.
    assert!(taken < Duration::from_secs(2), "{taken:?}");
    assert!(two.stop().await.is_clean());
}
