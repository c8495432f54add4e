//! A gateway that stood still for longer than its lease, as under SIGSTOP, with a logic that goes on: the
//! gateway is a process of its own, this test binary once more.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sluice_gateway::config::Config;
use sluice_proto::wire::close;

use super::rig::{Client, Rig};

const CHILD: &str = "SLUICE_TEST_FROZEN_CHILD";
const TEST: &str =
    "edge::frozen::what_a_frozen_gateway_held_is_answered_and_what_it_did_not_read_stays_unread";
const LEASE_S: u64 = 1;

/// Killed with the test, whatever its end.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Gateway {
    fn start() -> (Self, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]).env(CHILD, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| line.unwrap().split_once("url=").map(|(_, url)| url.to_owned()));
        (Self(child), url.expect("its address"))
    }

    /// Stops it and returns when every thread stands still: until then it may go on reading.
    async fn freeze(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.0.id());
        let still = || {
            std::fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            })
        };
        while !still() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

/// Serves until it is killed; publishes are stored and their outcomes withheld.
async fn child() {
    let mut config = Config { shards: 1, ..Config::default() };
    config.etcd.lease_ttl_s = LEASE_S;
    let rig = Rig::with(config, false).await;
    rig.logic.hold(true);
    println!("url={}", rig.url);
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_frozen_gateway_held_is_answered_and_what_it_did_not_read_stays_unread() {
    if std::env::var_os(CHILD).is_some() {
        return child().await;
    }
    let (gateway, url) = Gateway::start();
    let mut client = Client::connect_to(&url).await;
    let mut idle = Client::connect_to(&url).await;
    client.say(json!({"pub": "news", "data": 1, "key": "read", "id": 1})).await;
    // Its answer says that the publish before it was read.
    client.say(json!({"ping": 1})).await;
    assert_eq!(client.hear().await["ok"], json!("ping"));
    gateway.freeze().await;
    client.say(json!({"pub": "news", "data": 2, "key": "unread", "id": 2})).await;
    // The freeze is what is tested: real time has to pass for a real process.
    tokio::time::sleep(Duration::from_secs(LEASE_S) + Duration::from_millis(300)).await;
    gateway.signal("-CONT");

    let answer = client.hear().await;
    assert_eq!((&answer["id"], &answer["error"]["retry"]), (&json!(1), &json!(true)), "{answer}");
    let bye = client.hear().await;
    assert_eq!(
        (&bye["bye"]["code"], &bye["bye"]["reconnect"]),
        (&json!(close::FROZEN), &json!(true)),
        "nothing is said of the unread one: {bye}"
    );
    assert_eq!(client.end().await.unwrap().0, close::FROZEN);
    assert_eq!(idle.hear().await["bye"]["code"], json!(close::FROZEN));
    assert_eq!(idle.end().await.unwrap().0, close::FROZEN);
    // Who comes now is served.
    Client::connect_to(&url).await;
}
