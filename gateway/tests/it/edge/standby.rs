//! A drain that the process survives: told by an operator through another instance, called off, done, and taken back.

use serde_json::json;
use sluice_cluster::solo::SoloCluster;
use sluice_cluster::{Cluster, Command, InstanceState, Service};
use sluice_lifecycle::Stage;
use sluice_proto::ids::InstanceId;
use sluice_testing::eventually;
use tokio_tungstenite::tungstenite::Error;

use super::rig::{Client, Rig, SOON};

/// An operator at another instance.
struct Operator {
    at: SoloCluster,
    gateway: InstanceId,
}

impl Operator {
    fn of(rig: &Rig) -> Self {
        let at = rig.peer();
        let view = at.view().borrow().clone();
        let gateway = view.of(Service::Gateway).find(|one| one.url.as_deref() == Some(rig.url.as_str()));
        let gateway = gateway.unwrap().id.clone();
        Self { at, gateway }
    }

    async fn tells(&self, command: Command) {
        self.at.command(&self.gateway, command).await.unwrap();
    }

    fn sees(&self) -> InstanceState {
        self.at.view().borrow().instances[&self.gateway].state
    }
}

/// A client whose publish logic holds, on a gateway that was just told to drain.
async fn drained_with_a_publish(rig: &Rig, operator: &Operator) -> Client {
    let mut client = Client::connect(rig).await;
    rig.logic.hold(true);
    client.say(json!({"pub": "news", "data": 1, "key": "first", "id": 1})).await;
    rig.logic.until_called().await;
    operator.tells(Command::Drain).await;
    client
}

async fn is_let_in(rig: &Rig) -> bool {
    match tokio_tungstenite::connect_async(&rig.url).await {
        Ok(_) => true,
        Err(Error::Http(response)) => {
            assert!(response.status() == 503 && response.headers().contains_key("retry-after"));
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_drained_gateway_moves_its_clients_stays_and_comes_back() {
    let rig = Rig::start(2, true).await;
    let operator = Operator::of(&rig);
    let mut client = drained_with_a_publish(&rig, &operator).await;
    assert!(client.hear().await["drain"]["reconnect_ms"].is_u64());
    assert!(!is_let_in(&rig).await);
    assert_eq!(operator.sees(), InstanceState::Draining);
    // What was accepted gets its outcome before anybody is closed.
    rig.logic.hold(false);
    assert_eq!(client.hear().await["ok"], "pub");
    assert_eq!(client.hear().await["bye"]["code"], 1012);
    assert_eq!(client.end().await.map(|(code, _)| code), Some(1012));
    eventually("nobody is left", SOON, async || rig.status()["connections"] == 0).await;
    assert_eq!(rig.lifecycle.stage(), Stage::Ready, "the process stays");
    assert!(!is_let_in(&rig).await);
    rig.metrics_have(&["sluice_gateway_departures_total{how=\"closed\"} 1"]).await;
    rig.metrics_have(&["sluice_gateway_departures_total{how=\"moved\"} 0"]).await;
    rig.metrics_have(&["sluice_gateway_drain_connections 1"]).await;

    operator.tells(Command::Undrain).await;
    eventually("clients are let in", SOON, async || is_let_in(&rig).await).await;
    eventually("others know", SOON, async || operator.sees() == InstanceState::Serving).await;
    rig.metrics_have(&["sluice_gateway_drain_connections 0"]).await;
    let mut client = Client::connect(&rig).await;
    client.say(json!({"sub": "news", "id": 2})).await;
    assert_eq!(client.hear().await["ok"], "sub", "and nobody is told to leave");

    let stopping = tokio::spawn(rig.clone().stop());
    assert!(client.hear().await["drain"].is_object());
    assert_eq!(client.hear().await["bye"]["code"], 1012);
    client.end().await;
    let report = stopping.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn a_drain_that_is_called_off_closes_nobody_more() {
    let rig = Rig::start(1, true).await;
    let operator = Operator::of(&rig);
    let mut client = Client::connect(&rig).await;
    operator.tells(Command::Drain).await;
    assert!(client.hear().await["drain"].is_object());
    // In the time in which clients move by themselves.
    operator.tells(Command::Undrain).await;
    eventually("others know", SOON, async || operator.sees() == InstanceState::Serving).await;
    // Another gateway, told later and not called off, has closed its client: by now this one would have been closed.
    let other = Rig::start(1, true).await;
    let mut closed = Client::connect(&other).await;
    Operator::of(&other).tells(Command::Drain).await;
    assert!(closed.hear().await["drain"].is_object());
    assert_eq!(closed.hear().await["bye"]["code"], 1012);
    closed.end().await;
    other.stop().await;
    client.say(json!({"sub": "news", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    client.goodbye().await;
    rig.stop().await;
}

/// A stop in the middle of an operator's drain is a stop like any other.
#[tokio::test]
async fn a_stop_overtakes_a_drain() {
    let rig = Rig::start(2, true).await;
    let operator = Operator::of(&rig);
    let mut client = drained_with_a_publish(&rig, &operator).await;
    assert!(client.hear().await["drain"].is_object());
    operator.tells(Command::Stop).await;
    let report = tokio::spawn({
        let rig = rig.clone();
        async move { rig.report().await }
    });
    rig.lifecycle_at(Stage::Drain).await;
    rig.logic.hold(false);
    let mut heard = client.hear().await;
    if heard["drain"].is_object() {
        heard = client.hear().await;
    }
    assert_eq!(heard["ok"], "pub");
    assert_eq!(client.hear().await["bye"]["code"], 1012);
    client.end().await;
    let report = report.await.unwrap();
    assert!(report.is_clean() && report.exit_code() == 0, "{report:?}");
    assert_eq!(report.reason.to_string(), "asked by an operator");
}
