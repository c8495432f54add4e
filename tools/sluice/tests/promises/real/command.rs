//! `sluice cluster --json` with all services, as a program drives it: kills, replacements by a line on standard
//! input, and Ctrl-C on its terminal, which signals its whole process group. `sluice dev` has tests of its own for that.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Bound of one line of output.
const IN_TIME: Duration = Duration::from_secs(60);

struct Cluster {
    child: Child,
    input: ChildStdin,
    lines: Receiver<Value>,
}

impl Cluster {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["cluster", "--json", "--gateways", "2", "--logics", "2", "--tasks", "2"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = sync_channel(1_000);
        std::thread::spawn(move || {
            for line in output.lines() {
                send.send(serde_json::from_str(&line.unwrap()).unwrap()).unwrap();
            }
        });
        Self { child, input, lines }
    }

    fn line(&self) -> Value {
        self.lines.recv_timeout(IN_TIME).expect("a line in time")
    }

    fn start_one(&mut self, service: &str) -> Value {
        writeln!(self.input, r#"{{"start":"{service}"}}"#).unwrap();
        let event = self.line();
        assert_eq!((&event["event"], &event["service"]), (&json!("start"), &json!(service)), "{event}");
        event
    }
}

fn signal(name: &str, target: &str) {
    assert!(Command::new("kill").args([name, "--", target]).status().unwrap().success());
}

fn runs(pid: &Value) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn children_are_replaced_by_a_line_and_ctrl_c_stops_everything() {
    let mut cluster = Cluster::start();
    let first = cluster.line();
    let mut pids: Vec<Value> = ["gateways", "logics", "tasks"]
        .iter()
        .flat_map(|service| first[service].as_array().unwrap().iter().map(|node| node["pid"].clone()))
        .chain(["nats", "etcd", "redis", "postgres"].iter().map(|store| first[store]["pid"].clone()))
        .collect();
    assert_eq!(pids.len(), 10);
    assert!(pids.iter().all(runs), "{first}");
    assert!(first["logics"][0]["api"].is_string() && first["gateways"][1]["ws"].is_string(), "{first}");

    let logic = first["logics"][0]["pid"].clone();
    signal("-KILL", &logic.to_string());
    assert_eq!(
        cluster.line(),
        json!({"event": "exit", "service": "logic", "pid": logic, "code": null, "signal": 9})
    );
    let started = cluster.start_one("logic");
    assert_eq!(started["index"], 1, "{started}");
    assert!(started["api"].is_string() && started["admin"].is_string(), "{started}");
    pids.push(started["pid"].clone());

    let gateway = first["gateways"][1]["pid"].clone();
    signal("-TERM", &gateway.to_string());
    assert_eq!(cluster.line(), json!({"event": "exit", "service": "gateway", "pid": gateway, "code": 0}));
    let started = cluster.start_one("gateway");
    assert_eq!(started["ws"], first["gateways"][1]["ws"], "the same client port");
    pids.push(started["pid"].clone());

    signal("-KILL", &first["nats"]["pid"].to_string());
    assert_eq!(cluster.line()["service"], "nats");
    signal("-INT", &format!("-{}", cluster.child.id()));
    let mut exits = Vec::new();
    while let Ok(event) = cluster.lines.recv_timeout(IN_TIME) {
        exits.push(event);
    }
    assert_eq!(cluster.child.wait().unwrap().code(), Some(0), "{exits:?}");
    for service in ["gateway", "logic", "task"] {
        let codes: Vec<&Value> =
            exits.iter().filter(|exit| exit["service"] == service).map(|exit| &exit["code"]).collect();
        assert_eq!(codes, [&json!(0), &json!(0)], "{service}: {exits:?}");
    }
    let left: Vec<&Value> = pids.iter().filter(|pid| runs(pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}
