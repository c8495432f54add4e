//! A task that an operator drains: nothing is fetched and no duty done, until it comes back.

use sluice_cluster::{Command, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Plan, Stage};
use sluice_testing::eventually;

use crate::gateway::Gateway;
use crate::rig::{Ground, Rig, SOON};

pub async fn a_drained_task_fetches_nothing_and_comes_back<G: Ground>() {
    let mut rig = Rig::<G>::listed().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    let plan = Plan::new(SOON).stage(Stage::Gone, SOON);
    let (lifecycle, _engine) = Lifecycle::new(plan);
    // At another instance, which is called by nobody.
    let (service, address) = (Service::Logic, "127.0.0.1:1".to_owned());
    let registration = Registration { service, address, url: None, version: String::new() };
    let operator = rig.ground.list(&lifecycle.scope(Stage::Gone), registration).await;
    let me = task.status().await["instance"].as_str().unwrap().to_owned();
    let state = || operator.view().borrow().instances.get(me.as_str()).map(|one| (one.id.clone(), one.state));
    eventually("it is listed and does its duties", SOON, async || {
        state().is_some() && task.status().await["duties"].as_array().is_some_and(|duties| !duties.is_empty())
    })
    .await;
    let (id, _) = state().unwrap();

    operator.command(&id, Command::Drain).await.unwrap();
    eventually("others know", SOON, async || state().is_some_and(|it| it.1 == InstanceState::Draining)).await;
    eventually("it has no duty", SOON, async || task.status().await["duties"] == serde_json::json!([])).await;
    let (ready, why) = task.readyz().await;
    assert!(!ready && why.contains("undrain"), "{why}");
    assert_eq!(task.lifecycle.stage(), Stage::Ready);

    operator.command(&id, Command::Undrain).await.unwrap();
    eventually("others know", SOON, async || state().is_some_and(|it| it.1 == InstanceState::Serving)).await;
    rig.publish(&["news"]).await;
    eventually("it pushes again", SOON, async || !gateway.runs().is_empty()).await;
    eventually("it has duties again", SOON, async || {
        task.status().await["duties"].as_array().is_some_and(|duties| !duties.is_empty())
    })
    .await;
    assert!(task.stop().await.is_clean());
}
