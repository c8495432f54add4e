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
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a secret of many bytes\n").unwrap();
    let mut cluster = start(&["--token-secret-file", secret.path().to_str().unwrap()]);
    let first = cluster.first.clone();
    assert_eq!(first["gateways"], json!([]));
    assert_eq!(first["token_secret"], "a secret of many bytes");
    let logics = first["logics"].as_array().unwrap();
    assert!(
        logics.iter().all(|logic| logic["http"].as_str().is_some_and(|url| url.starts_with("http://"))),
        "{first}"
    );
    assert!(first["api_key"].as_str().is_some_and(|key| key.starts_with("sluice_")), "{first}");
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
        (&json!("start"), &json!("redis"), &json!(1))
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
fn a_secure_cluster_says_how_its_servers_are_entered() {
    let mut cluster = start(&["--secure"]);
    let first = cluster.first.clone();
    for (store, scheme) in [
        ("nats", "nats://sluice@"),
        ("etcd", "https://"),
        ("redis", "rediss://"),
        ("postgres", "postgres://"),
    ] {
        assert!(first[store]["url"].as_str().unwrap().starts_with(scheme), "{first}");
        let opens = &first["credentials"][store];
        let file = |key: &str| std::fs::read_to_string(opens[key].as_str().unwrap()).unwrap();
        assert!(!first.to_string().contains(&file("password_file")), "the password is in its file alone");
        assert!(
            file("ca_file").contains("BEGIN CERTIFICATE") && file("cert_file").contains("BEGIN CERTIFICATE")
        );
    }
    let postgres = &first["credentials"]["postgres"];
    let ask = |password: &str| {
        let mut psql = Command::new("psql");
        psql.arg(first["postgres"]["url"].as_str().unwrap())
            .args(["-Atc", "select 1"])
            .env("PGPASSWORD", password);
        psql.output().unwrap().stdout
    };
    let password = std::fs::read_to_string(postgres["password_file"].as_str().unwrap()).unwrap();
    assert_eq!((ask(&password), ask("wrong")), (b"1\n".to_vec(), Vec::new()));
    cluster.input = None;
    signal("-TERM", u64::from(cluster.child.id()));
    assert_eq!(cluster.end().0, Some(0));
}

#[test]
fn a_signal_while_starting_stops_cleanly() {
    for name in ["-INT", "-HUP"] {
        // Whoever runs the tests under nohup has the last one ignored.
        let mut child = Command::new("env")
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_sluice"), "cluster"])
            .args(["--gateways", "0", "--logics", "0", "--tasks", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let dir = line.trim().trim_start_matches("starting in ").trim_end_matches(" …").to_owned();
        assert!(std::path::Path::new(&dir).exists(), "{line}");
        signal(name, u64::from(child.id()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        assert!(!std::path::Path::new(&dir).exists(), "the temporary folder is gone");
    }
}

#[test]
fn a_missing_service_binary_is_said_before_anything_starts() {
    let empty = tempfile::tempdir().unwrap();
    let output = sluice().args(["cluster", "--json", "--bin-dir"]).arg(empty.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("sluice-gateway") && said.contains("cargo build"), "{said}");
}

/// Waits until the condition holds.
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "not in time: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

/// Whether it runs: remains that nobody has reaped do not.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z')))
}

const STORES: [&str; 4] = ["nats", "etcd", "redis", "postgres"];

#[test]
fn children_end_with_a_launcher_that_is_killed() {
    let mut cluster = start(&[]);
    let pids = STORES.map(|store| cluster.pid(store));
    let data = std::fs::read_link(format!("/proc/{}/cwd", pids[0])).unwrap();
    let folder = data.parent().unwrap().to_owned();
    assert!(pids.into_iter().all(runs) && folder.exists());
    cluster.child.kill().unwrap();
    cluster.child.wait().unwrap();
    until("all children have ended", || !pids.into_iter().any(runs));
    until("the temporary folder is gone", || !folder.exists());
}

#[test]
fn a_start_ends_what_an_earlier_launcher_left_in_its_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let arguments = ["--dir", folder.to_str().unwrap()];
    let mut first = start(&arguments);
    let pids = STORES.map(|store| first.pid(store));
    // both are killed, as by a `kill -9` of everything that has this name
    let guard = children(first.child.id(), "sh");
    assert_eq!(guard.len(), 1);
    signal("-9", guard[0]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(pids.into_iter().all(runs), "nobody is there to end them");
    let second = start(&arguments);
    assert!(!pids.into_iter().any(runs));
    assert!(STORES.iter().all(|store| runs(second.pid(store))));
    signal("-TERM", u64::from(second.child.id()));
    assert_eq!(second.end().0, Some(0));
}

#[test]
fn an_initdb_ends_with_its_launcher_and_the_next_start_begins_anew() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let mut command = sluice();
    command.args(["cluster", "--json", "--gateways", "0", "--logics", "0", "--tasks", "0", "--dir"]);
    let mut child = command.arg(&folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let record = || std::fs::read_to_string(folder.join("processes")).unwrap_or_default();
    let initdb = || {
        let record = record();
        let line = record.lines().find(|line| line.contains(" initdb "))?;
        line.split(' ').next()?.parse::<u64>().ok()
    };
    until("initdb is on record", || initdb().is_some());
    let (initdb, guard) = (initdb().unwrap(), children(child.id(), "sh"));
    assert!(!guard.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    until("the guard is done", || !guard.iter().copied().any(runs));
    assert!(!runs(initdb), "it writes where the next start begins anew");
    let second = start(&["--dir", folder.to_str().unwrap()]);
    signal("-TERM", u64::from(second.child.id()));
    assert_eq!(second.end().0, Some(0));
}

/// Children of a process that run this program.
fn children(parent: u32, program: &str) -> Vec<u64> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    let is_it = |pid: &u64| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat.rsplit_once(") ").and_then(|(_, words)| words.split(' ').nth(1));
        stat.contains(&format!("({program})")) && of == Some(&parent.to_string())
    };
    pids.filter(is_it).collect()
}
