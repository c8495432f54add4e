//! Nothing outside stops a stop: not a collector that is dead, and not one that takes everything and never answers.

use std::time::Duration;

use serde_json::Value;
use sluice_launcher::{Cluster, Service};
use tokio::net::TcpListener;

use crate::{cluster, publish, socket};

/// Less than any plan, and what the stage that waits for a collector may take at most.
const STOP_MAX: Duration = Duration::from_secs(8);

/// How the stage ended that the collector is waited for in.
fn released(log: &str) -> String {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let over = |line: &Value| line["stage"] == "release" && line.get("outcome").is_some();
    let line = lines.into_iter().find(over).unwrap_or_else(|| panic!("no end of the stage in {log}"));
    line["outcome"].as_str().unwrap().to_owned()
}

/// Publishes, then stops all services in their order: each ends well and in time. What they logged.
async fn all_stop(cluster: &Cluster) -> Vec<String> {
    let mut writer = socket(cluster, 0, &[]).await;
    for n in 0..200 {
        publish(&mut writer, "news", n).await;
    }
    drop(writer);
    let mut logs = Vec::new();
    for service in [Service::Gateway, Service::Task, Service::Logic] {
        let node = cluster.node(service, 0).unwrap();
        assert!(node.term());
        let exit = node.wait_exit(STOP_MAX + Duration::from_secs(1)).await.unwrap_or_else(|error| {
            panic!("{service:?} did not exit: {error}\n{}", node.log_tail());
        });
        let log = node.log_tail();
        assert_eq!(exit.code(), Some(0), "{service:?}:\n{log}");
        assert!(exit.elapsed.unwrap() < STOP_MAX, "{service:?}: {:?}", exit.elapsed);
        // One that waits for a collector without a bound would be cut, and told as late.
        assert_eq!(released(&log), "done", "{service:?}:\n{log}");
        logs.push(log);
    }
    logs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_not_delay_a_stop() {
    // Connections are made by the kernel; nobody ever reads from one.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = cluster(&format!("http://{}", frozen.local_addr().unwrap()), "1", 1).await;
    let logs = all_stop(&cluster).await;
    // Of the first to stop: what the others had to send may have been given up before they stop.
    assert!(logs[0].contains("did not take the last spans in time"), "it had spans to send: {}", logs[0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_does_not_delay_a_stop() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cluster = cluster(&format!("http://{closed}"), "1", 1).await;
    all_stop(&cluster).await;
    cluster.stop().await;
}
