//! Gateways that begin, work and stop, one after the other in this process, on a real registry.

use serde_json::json;
use sluice_gateway::app::App;
use sluice_gateway::config::Config;
use sluice_gateway::deps;
use sluice_lifecycle::{Lifecycle, StopReason};
use sluice_service::config::Address;
use sluice_service::process::Settings as _;
use sluice_testing::{ServerKind, TestServer, eventually, lives_leave_nothing};

use super::process::logic;
use super::rig::{Client, SOON};

/// From its addresses to its last stage, with a client that says something and is there at the end.
async fn life(config: &Config) {
    let (lifecycle, engine) = Lifecycle::new(config.plan());
    let app = App::build(config.clone(), lifecycle.clone()).await.unwrap();
    let url = app.url();
    let deps = deps::connect(config, &lifecycle, app.registration()).await.unwrap();
    let mut view = deps.cluster.view();
    app.serve(deps).await.unwrap();
    view.wait_for(|view| view.sees_me).await.unwrap();
    eventually("it is ready", SOON, async || lifecycle.progress().borrow().is_ready()).await;
    let mut client = Client::connect_to(&url).await;
    client.say(json!({"sub": "news", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    client.say(json!({"ping": 1, "id": 2})).await;
    assert_eq!(client.hear().await["ok"], "ping");
    lifecycle.stop(StopReason::Signal("SIGTERM"));
    let leaves = async {
        assert!(client.hear().await["drain"].is_object());
        client.goodbye().await;
    };
    let (report, ()) = tokio::join!(engine.run(), leaves);
    assert!(report.is_clean() && report.exit_code() == 0, "{report:?}");
}

#[tokio::test]
async fn a_gateway_leaves_nothing_behind() {
    let (etcd, logic) = (TestServer::start(ServerKind::Etcd).await, logic().await);
    let mut config = Config { shards: 2, ..Config::default() };
    for listen in [&mut config.listen, &mut config.grpc.listen, &mut config.admin.listen] {
        *listen = Address::local(0);
    }
    config.etcd.endpoints = vec![etcd.url().into()];
    config.logic.seeds = vec![logic];
    lives_leave_nothing(20, async || life(&config).await).await;
}
