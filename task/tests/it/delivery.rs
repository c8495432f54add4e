//! Notices reach the gateways that want them, and nobody waits for one that does not answer.

use sluice_cluster::{Registration, Service};
use sluice_lifecycle::{Lifecycle, Stage, StopReason};
use sluice_task::defaults::LAGS_AFTER;
use sluice_testing::eventually;
use tokio::time::Instant;

use crate::gateway::{Gateway, Got};
use crate::rig::{Ground, Rig, SOON, Task};

pub async fn a_notice_goes_to_the_interested_and_to_no_other<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let (a, b, c) = (
        Gateway::start("gateway-a").await,
        Gateway::start("gateway-b").await,
        Gateway::start("gateway-c").await,
    );
    rig.interest(&a, &["news"]).await;
    rig.interest(&b, &["news", "sport"]).await;
    rig.interest(&c, &["else"]).await;
    let task = rig.task(&[&a, &b, &c]).await;
    let one = rig.publish(&["news", "sport", "nobody's"]).await;
    let two = rig.publish(&["sport"]).await;
    eventually("the messages arrive", SOON, async || b.runs().len() == 3).await;
    rig.settled().await;
    assert_eq!(a.runs(), [one[0].clone()]);
    assert_eq!(b.runs().iter().filter(|run| [&one[0], &one[1], &two[0]].contains(run)).count(), 3);
    assert_eq!(c.got(), [Got::Opened]);
    assert_eq!(task.in_flight().await, 0);
    assert!(task.stop().await.is_clean());
}

pub async fn a_wedged_gateway_delays_nobody_and_is_told_resync_on_its_return<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let (wedged, well) = (Gateway::start("gateway-a").await, Gateway::start("gateway-b").await);
    rig.interest(&wedged, &["news"]).await;
    rig.interest(&well, &["news"]).await;
    let task = rig.task(&[&wedged, &well]).await;
    wedged.wedge(true);
    for n in 1..=300 {
        rig.publish(&["news"]).await;
        // Each at once, whether the breaker is still waiting, trips now, or has tripped.
        let took = eventually("it arrives", SOON, async || well.runs().len() == n).await;
        assert!(took < LAGS_AFTER / 2, "message {n} took {took:?}");
    }
    eventually("it lags", SOON, async || task.status().await["lagging"] == serde_json::json!(["gateway-a"]))
        .await;
    rig.publish(&["news"]).await;
    rig.settled().await;
    assert_eq!(task.in_flight().await, 0);
    let before = wedged.runs().len();
    assert!(before < 301 && wedged.count(&Got::Resync) == 0, "{before}");
    wedged.wedge(false);
    eventually("it is told", SOON, async || wedged.count(&Got::Resync) == 1).await;
    let after = rig.publish(&["news"]).await;
    eventually("pushes go on", SOON, async || wedged.runs().last() == after.last()).await;
    assert_eq!((wedged.count(&Got::Resync), wedged.count(&Got::Opened), well.count(&Got::Resync)), (1, 1, 0));
    assert!(task.stop().await.is_clean());
}

pub async fn the_end_of_a_stream_releases_what_waited_for_it<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.wedge(true);
    let begun = Instant::now();
    rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs().len() == 1).await;
    assert_eq!(task.in_flight().await, 1);
    gateway.cut();
    eventually("nobody waits", SOON, async || task.in_flight().await == 0).await;
    assert!(begun.elapsed() < LAGS_AFTER, "not by the breaker: {:?}", begun.elapsed());
    gateway.wedge(false);
    eventually("it is told on its return", SOON, async || gateway.count(&Got::Resync) == 1).await;
    rig.settled().await;
    assert_eq!(gateway.runs().len(), 1);
}

pub async fn a_new_id_on_an_open_stream_is_the_only_one_that_counts<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["old"]).await;
    let task = rig.task(&[&gateway]).await;
    gateway.says("gateway-b", false);
    rig.interest(&gateway, &["new"]).await;
    eventually("it is known", SOON, async || task.status().await["outlets"][0]["instance"] == "gateway-b")
        .await;
    rig.publish(&["old"]).await;
    let new = rig.publish(&["new"]).await;
    eventually("it arrives", SOON, async || !gateway.runs().is_empty()).await;
    rig.settled().await;
    assert_eq!((gateway.runs(), gateway.count(&Got::Opened)), (new, 1));
}

pub async fn without_presence_every_gateway_gets_everything<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let (a, b) = (Gateway::start("gateway-a").await, Gateway::start("gateway-b").await);
    let task = rig.task(&[&a, &b]).await;
    rig.ground.presence_is_away(true);
    for n in 1..=5 {
        rig.publish(&["news"]).await;
        eventually("it arrives", SOON, async || a.runs().len() == n && b.runs().len() == n).await;
    }
    rig.ground.presence_is_away(false);
    rig.settled().await;
    assert!(task.stop().await.is_clean());
}

pub async fn what_is_no_notice_is_acknowledged_and_counted<G: Ground>() {
    let mut rig = Rig::<G>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let task = rig.task(&[&gateway]).await;
    rig.ground.queue().publish(3, "junk".into()).await.unwrap();
    rig.publish(&["news"]).await;
    eventually("the other one arrives", SOON, async || gateway.runs().len() == 1).await;
    rig.settled().await;
    let (_, metrics) = crate::rig::get(&task.admin, "/metrics").await;
    assert!(metrics.contains("sluice_task_notices_bad_total 1"), "{metrics}");
    assert!(
        metrics.contains("sluice_task_push_seconds_count 1"),
        "the other one was acknowledged: {metrics}"
    );
}

pub async fn a_working_stream_is_life_whatever_the_registry_says<G: Ground>() {
    let mut rig = Rig::<G>::listed().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let (lifecycle, engine) =
        Lifecycle::new(sluice_task::stages::plan(&sluice_task::config::Config::default().shutdown));
    let registration = Registration {
        service: Service::Gateway,
        address: gateway.address.clone(),
        url: None,
        version: String::new(),
    };
    let listed = rig.ground.list(&lifecycle.scope(Stage::Gone), registration).await;
    let task = Task::start(&rig.ground, rig.config(&[])).await;
    eventually("it is found", SOON, async || gateway.count(&Got::Opened) == 1).await;
    listed.close().await.unwrap();
    eventually("it is listed no more", SOON, async || task.status().await["outlets"][0]["listed"] == false)
        .await;
    let notice = rig.publish(&["news"]).await;
    eventually("it arrives all the same", SOON, async || gateway.runs() == notice).await;
    gateway.cut();
    eventually("its end is the end", SOON, async || {
        task.status().await["outlets"].as_array().unwrap().is_empty()
    })
    .await;
    lifecycle.stop(StopReason::Admin);
    assert!(tokio::join!(engine.run(), task.stop()).1.is_clean());
    assert_eq!(gateway.count(&Got::Opened), 1);
}
