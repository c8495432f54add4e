//! `sluice cluster --json` as a program drives it, with the servers alone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::sluice;

struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    first: Value,
}

fn start(arguments: &[&str]) -> Running {
    let mut child = sluice()
        .args(["cluster", "--json", "--gateways", "0", "--logics", "0", "--tasks", "0"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut running = Running { child, input, output, first: Value::Null };
    running.first = running.line();
    running
}

impl Running {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn pid(&self, store: &str) -> u64 {
        self.first[store]["pid"].as_u64().unwrap()
    }

    /// Its exit code, after the remaining lines.
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let rest =
            (&mut self.output).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        (self.child.wait().unwrap().code(), rest)
    }
}

fn signal(name: &str, pid: u64) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn exists(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn line_one_events_commands_and_exit_code() {
    let mut cluster = start(&["--token-secret", "a secret of many bytes"]);
    let first = cluster.first.clone();
    assert_eq!(first["gateways"], json!([]));
    assert_eq!(first["token_secret"], "a secret of many bytes");
    for (store, scheme) in
        [("nats", "nats://"), ("etcd", "http://"), ("redis", "redis://"), ("postgres", "postgres://")]
    {
        assert!(first[store]["url"].as_str().unwrap().starts_with(scheme), "{first}");
        assert!(exists(cluster.pid(store)));
    }

    signal("-9", cluster.pid("redis"));
    assert_eq!(
        cluster.line(),
        json!({"event": "exit", "service": "redis", "pid": cluster.pid("redis"), "code": null, "signal": 9})
    );
    cluster.say("nonsense");
    assert_eq!(cluster.line()["event"], "error");
    cluster.say(r#"{"start":"redis"}"#);
    let started = cluster.line();
    assert_eq!(
        (&started["event"], &started["service"], &started["index"]),
        (&json!("start"), &json!("redis"), &json!(0))
    );
    assert_eq!(started["url"], first["redis"]["url"]);
    let redis = started["pid"].as_u64().unwrap();
    assert!(exists(redis));

    cluster.input = None; // the end of standard input is no stop
    signal("-9", cluster.pid("nats"));
    assert_eq!(cluster.line()["service"], "nats");
    let pid = u64::from(cluster.child.id());
    signal("-TERM", pid);
    let (code, exits) = cluster.end();
    assert_eq!(code, Some(0), "also when a child was killed before");
    assert_eq!(exits.len(), 3, "{exits:?}");
    // etcd closes its store and then ends by the very signal that asked it to
    assert!(exits.iter().all(|exit| exit["event"] == "exit" && exit["signal"] != 9), "{exits:?}");
    assert!(!exists(redis));
}

#[test]
fn a_signal_while_starting_stops_cleanly() {
    let mut child = sluice()
        .args(["cluster", "--gateways", "0", "--logics", "0", "--tasks", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let dir = line.trim().trim_start_matches("starting in ").trim_end_matches(" …").to_owned();
    assert!(std::path::Path::new(&dir).exists(), "{line}");
    signal("-INT", u64::from(child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(&dir).exists(), "the temporary folder is gone");
}

#[test]
fn a_missing_service_binary_is_said_before_anything_starts() {
    let empty = tempfile::tempdir().unwrap();
    let output = sluice().args(["cluster", "--json", "--bin-dir"]).arg(empty.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("sluice-gateway") && said.contains("cargo build"), "{said}");
}
