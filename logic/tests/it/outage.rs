//! A server goes and comes back under a logic that serves: what its log, its pages and its metrics say.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sluice_launcher::{Cluster, Service};
use sluice_testing::eventually as until;

use super::process::{Logic, command, urls};
use super::rig::get;
use super::stores::{eventually, signal_postgres, stores};

/// How it goes.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Nobody listens.
    Stopped,
    /// It takes connections and answers nothing.
    Frozen,
}

impl Outage {
    async fn begin(self, cluster: &Cluster) {
        match self {
            Self::Stopped => drop(cluster.stop_store(Service::Postgres).await.unwrap()),
            Self::Frozen => signal_postgres(cluster, Signal::SIGSTOP),
        }
    }

    async fn end(self, cluster: &Cluster) {
        match self {
            Self::Stopped => drop(cluster.start_store(Service::Postgres).await.unwrap()),
            Self::Frozen => signal_postgres(cluster, Signal::SIGCONT),
        }
    }
}

/// A server is missed when a connection or a lease has failed, which takes a while; and it is tried again with pauses.
const LONG: Duration = Duration::from_secs(30);
const LOST: &str = "A dependency is lost.";
const BACK: &str = "A dependency is back.";

/// What was said of a server so far, under this message.
fn said(log: &tempfile::NamedTempFile, dependency: &str, message: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log.path()).unwrap();
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|line| line["message"] == message && line["dependency"] == dependency).collect()
}

async fn metrics_have(logic: &Logic, lines: &[&str]) {
    for line in lines {
        let shown = async || get(logic.admin(), "/metrics").await.1.contains(line);
        eventually(line, shown).await;
    }
}

#[tokio::test]
async fn a_lost_postgresql_is_said_once_shown_and_said_again_when_it_is_back() {
    let cluster = stores().await;
    for outage in [Outage::Stopped, Outage::Frozen] {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = command();
        command.envs(urls(&cluster).iter().map(|(key, url)| (*key, url))).stderr(log.reopen().unwrap());
        let logic = Logic::spawn(command).await;
        logic.ready().await;
        metrics_have(&logic, &[r#"sluice_logic_dependency_up{dependency="postgres"} 1"#]).await;
        outage.begin(&cluster).await;
        eventually("it is said", async || !said(&log, "postgres", LOST).is_empty()).await;
        let (status, ready) = get(logic.admin(), "/readyz").await;
        assert!(status == 503 && ready.contains(r#""dependency":"postgres""#), "{outage:?}: {ready}");
        let shown: Value = serde_json::from_str(&get(logic.admin(), "/status").await.1).unwrap();
        let lost = &shown["degraded"][0];
        assert!(!lost["reason"].as_str().unwrap().is_empty(), "{outage:?}: {shown}");
        assert!(lost["effect"].as_str().unwrap().contains("nothing is stored"), "{outage:?}: {shown}");
        let failed = r#"sluice_logic_dependency_failures_total{dependency="postgres"} 1"#;
        metrics_have(&logic, &[r#"sluice_logic_dependency_up{dependency="postgres"} 0"#, failed]).await;

        outage.end(&cluster).await;
        eventually("it is back", async || !said(&log, "postgres", BACK).is_empty()).await;
        logic.ready().await;
        metrics_have(&logic, &[r#"sluice_logic_dependency_up{dependency="postgres"} 1"#, failed]).await;
        let (lost, back) = (said(&log, "postgres", LOST), said(&log, "postgres", BACK));
        assert!(lost.len() == 1 && back.len() == 1, "{outage:?}, once each: {lost:?} {back:?}");
        assert_eq!((&lost[0]["level"], &back[0]["level"]), (&"WARN".into(), &"INFO".into()));
        assert!(back[0]["away_ms"].as_u64().unwrap() > 1_000, "{outage:?}: {}", back[0]);
        println!("{outage:?}: {}", lost[0]);
        assert_eq!(logic.end(Signal::SIGTERM).await.0, Some(0), "{outage:?}");
    }
    cluster.stop().await;
}

/// What logic can do without: each is missed with what suffers, and logic goes on.
#[tokio::test]
async fn another_server_that_is_lost_is_said_once_and_the_logic_stays_ready() {
    let cluster = stores().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = command();
    command.envs(urls(&cluster).iter().map(|(key, url)| (*key, url)));
    command.env("SLUICE_ETCD__LEASE_TTL_S", "3").stderr(log.reopen().unwrap());
    let logic = Logic::spawn(command).await;
    logic.ready().await;
    for (store, name, effect) in [
        (Service::Nats, "nats", "messages reach other gateways late"),
        (Service::Redis, "redis", "who is present is not known"),
        (Service::Etcd, "etcd", "do not find this logic"),
    ] {
        let up = |is: u8| format!("sluice_logic_dependency_up{{dependency=\"{name}\"}} {is}\n");
        let failed = format!("sluice_logic_dependency_failures_total{{dependency=\"{name}\"}} 1\n");
        metrics_have(&logic, &[&up(1)]).await;
        cluster.stop_store(store).await.unwrap();
        until(&format!("{name} is missed"), LONG, async || !said(&log, name, LOST).is_empty()).await;
        let (status, ready) = get(logic.admin(), "/readyz").await;
        assert!(status == 200 && ready.contains(&format!("\"dependency\":\"{name}\"")), "{ready}");
        metrics_have(&logic, &[&up(0), &failed]).await;
        cluster.start_store(store).await.unwrap();
        until(&format!("{name} is back"), LONG, async || !said(&log, name, BACK).is_empty()).await;
        metrics_have(&logic, &[&up(1), &failed]).await;
        let (lost, back) = (said(&log, name, LOST), said(&log, name, BACK));
        assert!(lost.len() == 1 && back.len() == 1, "once each: {lost:?} {back:?}");
        assert_eq!((&lost[0]["level"], &back[0]["level"]), (&"WARN".into(), &"INFO".into()));
        let text = |key: &str| lost[0][key].as_str().unwrap().to_owned();
        assert!(!text("reason").is_empty() && text("effect").contains(effect), "{}", lost[0]);
    }
    assert_eq!(logic.end(Signal::SIGTERM).await.0, Some(0));
    cluster.stop().await;
}
