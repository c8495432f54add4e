//! `safe_to_kill` of `/status`: true exactly while no client would notice a kill.

use sluice_testing::eventually;

use crate::gateway::Gateway;
use crate::rig::{Ground, Rig, SOON, Task};

/// What `/status` says a kill would do; `None`: nothing that a client would notice.
async fn a_kill_would(task: &Task) -> Option<String> {
    let status = task.status().await;
    let would = status["a_kill_would"].as_str().map(ToOwned::to_owned);
    assert_eq!(status["safe_to_kill"], would.is_none(), "{status}");
    would
}

async fn until(task: &Task, what: &str, holds: impl Fn(&Option<String>) -> bool) {
    eventually(what, SOON, async || holds(&a_kill_would(task).await)).await;
}

fn says(text: &str) -> impl Fn(&Option<String>) -> bool {
    move |would| would.as_ref().is_some_and(|would| would.contains(text))
}

pub async fn a_kill_is_safe_exactly_while_no_client_would_notice<G: Ground>() {
    let mut rig = Rig::<G>::listed().await;
    let nobody = rig.task(&[]).await;
    assert_eq!(a_kill_would(&nobody).await, None, "there is no gateway to push to");
    assert!(nobody.stop().await.is_clean());

    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    until(&task, "the only task is missed", says("without a task")).await;
    let other = rig.task(&[]).await;
    until(&task, "another one serves", Option::is_none).await;
    // It reads no more, so that the next notice comes to the first; until it has left it is no other either.
    assert!(other.stop().await.is_clean());
    until(&task, "it is the only one again", says("without a task")).await;

    gateway.wedge(true);
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    assert!(says("1 notices")(&a_kill_would(&task).await));
    gateway.wedge(false);
    rig.settled().await;
    until(&task, "it is acknowledged", says("without a task")).await;
    assert!(task.stop().await.is_clean());
}
