//! `safe_to_kill` of `/status`: true exactly while no client would notice a kill.

use serde_json::Value;
use sluice_cluster::InstanceState;
use sluice_proto::grpc::Outcome::Stored;

use super::rig::{Faked, call, faked, get, item, outcomes, publishing};
use super::stop::hello;

/// What `/status` says a kill would do; `None`: nothing that a client would notice.
async fn a_kill_would(faked: &Faked) -> Option<String> {
    let status: Value = serde_json::from_str(&get(faked.rig.admin, "/status").await.1).unwrap();
    let would = status["a_kill_would"].as_str().map(ToOwned::to_owned);
    assert_eq!(status["safe_to_kill"], would.is_none(), "{status}");
    would
}

async fn until(faked: &Faked, what: &str, holds: impl Fn(&Option<String>) -> bool) {
    let within = std::time::Duration::from_secs(10);
    sluice_testing::eventually(what, within, async || holds(&a_kill_would(faked).await)).await;
}

fn says(text: &str) -> impl Fn(&Option<String>) -> bool {
    move |would| would.as_ref().is_some_and(|would| would.contains(text))
}

#[tokio::test]
async fn a_kill_is_safe_exactly_while_no_client_would_notice() {
    let faked = faked().await;
    assert_eq!(a_kill_would(&faked).await, None, "nobody is connected");
    let task = faked.rig.caller().await;
    hello(&task, "task-a-1", false).await;
    until(&faked, "a task alone has no clients", Option::is_none).await;

    let gateway = faked.rig.caller().await;
    hello(&gateway, "gateway-a-1", false).await;
    until(&faked, "the only logic is missed", says("without a logic")).await;
    faked.neighbours.logic(InstanceState::Draining).await;
    assert!(says("without a logic")(&a_kill_would(&faked).await), "one that leaves is no other");
    faked.neighbours.logic(InstanceState::Serving).await;
    until(&faked, "another one serves", Option::is_none).await;

    faked.store.hold();
    let publishing = publishing(&gateway, call(vec![item("news", "ann", "k", "1")]));
    faked.store.arrived(1).await;
    assert!(says("1 publishes wait")(&a_kill_would(&faked).await));
    faked.store.release();
    assert_eq!(outcomes(&publishing.await.unwrap()), [Stored]);
    until(&faked, "it is answered and handed over", Option::is_none).await;
    faked.rig.stop().await;
}
