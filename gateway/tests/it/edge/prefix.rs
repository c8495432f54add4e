//! Two prefixes that live in one etcd: a gateway under the one, all logics under the other.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::Value;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_cluster::{Cluster as _, Etcd, InstanceState, Registration, Service};
use sluice_gateway::config::Config;
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_service::process::Settings as _;
use sluice_testing::{ServerKind, TestServer, eventually};

use super::process::{BUDGET, Process, lines, logic, waited_for_none};
use super::rig::Client;

/// A logic that answers, listed under this prefix for as long as it is held.
async fn listed(lifecycle: &Lifecycle, etcd: &TestServer, prefix: &str) -> EtcdCluster {
    let config = EtcdConfig { etcd: Etcd::at([etcd.url()]), prefix: prefix.into() };
    let registration =
        Registration { service: Service::Logic, address: logic().await, url: None, version: "1".into() };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, config, registration, &[], BTreeSet::new()).await.unwrap();
    cluster.set_state(InstanceState::Serving).await;
    cluster
}

fn said(log: &tempfile::NamedTempFile, message: &str) -> Vec<Value> {
    lines(log).into_iter().filter(|line| line["message"] == message).collect()
}

/// What `/status` lists as lost: its dependency and the reason.
async fn degraded(process: &Process) -> Vec<(String, String)> {
    let status = process.admin("/status").await;
    let status: Value = serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    status["degraded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (text(one, "dependency"), text(one, "reason")))
        .collect()
}

#[tokio::test]
async fn a_prefix_that_no_logic_uses_is_said_once_shown_and_mended() {
    let etcd = TestServer::start(ServerKind::Etcd).await;
    // The engine ends what is registered, at the end of the test.
    let (lifecycle, _engine) = Lifecycle::new(Config::default().plan());
    let _others = listed(&lifecycle, &etcd, "used").await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let process = Process::start("", |command| {
        command.args(["--set", &format!("etcd.endpoints={}", etcd.url()), "--set", "prefix=mistyped"]);
        command.stderr(log.reopen().unwrap());
    });
    eventually("it is said", 2 * BUDGET, async || !said(&log, "A dependency is lost.").is_empty()).await;
    let shown = degraded(&process).await;
    assert!(
        matches!(shown.as_slice(), [(name, why)] if name == "logic" && why.contains("prefix \"mistyped\"")),
        "{shown:?}"
    );
    let ready = process.admin("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("no logic answers"), "{ready}");
    assert!(ready.contains("mistyped") && ready.contains(r#""dependency":"logic""#), "{ready}");
    process
        .metrics_have(&[
            r#"sluice_gateway_dependency_up{dependency="etcd"} 1"#,
            r#"sluice_gateway_dependency_up{dependency="logic"} 0"#,
            r#"sluice_gateway_dependency_failures_total{dependency="logic"} 1"#,
        ])
        .await;

    let _here = listed(&lifecycle, &etcd, "mistyped").await;
    eventually("it is back", 2 * BUDGET, async || !said(&log, "A dependency is back.").is_empty()).await;
    eventually("it is ready", BUDGET, async || process.admin("/readyz").await.starts_with("HTTP/1.1 200"))
        .await;
    assert_eq!(degraded(&process).await, []);
    process
        .metrics_have(&[
            r#"sluice_gateway_dependency_up{dependency="logic"} 1"#,
            r#"sluice_gateway_dependency_failures_total{dependency="logic"} 1"#,
        ])
        .await;
    let (lost, back) = (said(&log, "A dependency is lost."), said(&log, "A dependency is back."));
    assert!(lost.len() == 1 && back.len() == 1, "once each: {lost:?} {back:?}");
    let text = |key: &str| lost[0][key].as_str().unwrap().to_owned();
    assert_eq!((text("level"), text("dependency")), ("WARN".into(), "logic".into()));
    assert!(text("reason").contains("mistyped") && text("effect").contains("clients wait"), "{}", lost[0]);
    assert_eq!((&back[0]["level"], &back[0]["dependency"]), (&"INFO".into(), &"logic".into()));
}

/// What it told them is there still, and is reaped.
#[tokio::test]
async fn a_gateway_whose_logics_have_all_left_waits_for_none_at_its_stop() {
    let etcd = TestServer::start(ServerKind::Etcd).await;
    let (lifecycle, _engine) = Lifecycle::new(Config::default().plan());
    let only = listed(&lifecycle, &etcd, "used").await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut process = Process::start("", |command| {
        command.args(["--set", &format!("etcd.endpoints={}", etcd.url()), "--set", "prefix=used"]);
        command.stderr(log.reopen().unwrap());
    });
    eventually("it is ready", 2 * BUDGET, async || {
        process.admin("/readyz").await.starts_with("HTTP/1.1 200")
    })
    .await;
    let mut client = Client::connect_to(process.url()).await;
    client.say(serde_json::json!({"sub": "news", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], "sub");
    client.goodbye().await;
    only.close().await.unwrap();
    let none = async || !process.admin("/admin/instances").await.contains(r#""service":"logic""#);
    eventually("no logic is listed", BUDGET, none).await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exited().await, Some(0));
    assert!(
        !said(&log, "No logic is known that could be told that this gateway goes; what it has is reaped.")
            .is_empty()
    );
    waited_for_none(&log);
}
