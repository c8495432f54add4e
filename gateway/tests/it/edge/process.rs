//! The gateway as a process, with clients and a log that nobody reads.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_testing::{NotifySocket, Reader, eventually, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::logic::Scripted;
use super::rig::Client;

/// A stop that is asked for takes a second; this much a busy machine may add.
pub const BUDGET: Duration = Duration::from_secs(8);

/// Killed when dropped.
pub struct Process {
    child: Child,
    said: Value,
}

impl Process {
    /// Starts it beside a logic, without etcd, and waits for its line.
    pub fn start(logic: &str, command: impl FnOnce(&mut Command)) -> Self {
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"));
        for key in ["listen", "admin.listen", "grpc.listen"] {
            gateway.args(["--set", &format!("{key}=127.0.0.1:0")]);
        }
        gateway
            .args(["--set", &format!("etcd.endpoints=http://127.0.0.1:{}", free_port())])
            .args(["--set", &format!("logic.seeds={logic}"), "--set", "shards=2"])
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped());
        command(&mut gateway);
        let mut child = gateway.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, said }
    }

    pub fn url(&self) -> &str {
        self.said["ws"].as_str().unwrap()
    }

    /// What a GET of `path` is answered by whoever listens at a URL, without its scheme.
    pub async fn get(at: &str, path: &str) -> String {
        let address = at.split_once("://").map_or(at, |(_, rest)| rest).trim_end_matches("/ws");
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(BUDGET, socket.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
        String::from_utf8(answer).unwrap()
    }

    pub async fn admin(&self, path: &str) -> String {
        Self::get(self.said["admin"].as_str().unwrap(), path).await
    }

    /// Its metrics have these lines.
    pub async fn metrics_have(&self, lines: &[&str]) {
        let metrics = self.admin("/metrics").await;
        for line in lines {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub async fn exited(&mut self) -> Option<i32> {
        eventually("it exits", 2 * BUDGET, async || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A scripted logic, for as long as the test runs.
pub async fn logic() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(Scripted::default().service());
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

async fn is_left_in_order(mut client: Client) {
    assert!(client.hear().await["drain"].is_object());
    assert_eq!(client.hear().await["bye"]["code"], 1012);
    assert_eq!(client.end().await.map(|(code, _)| code), Some(1012));
}

#[tokio::test]
async fn a_log_that_nobody_reads_ends_nothing_and_holds_nothing_up() {
    let logic = logic().await;
    for reader in Reader::ALL {
        let (mut read, mut write) = reader.pipe();
        if reader == Reader::Stuck {
            // It is full before anything is logged.
            write.write_all(&[b'\n'; 4096]).unwrap();
        }
        let mut process = Process::start(&logic, |command| {
            command.stderr(write);
        });
        eventually("a logic answers", BUDGET, async || process.admin("/readyz").await.contains("200 OK"))
            .await;
        read.process_is_up();
        let early = Client::connect_to(process.url()).await;
        for _ in 0..60 {
            assert!(Process::get(process.url(), "/nothing").await.starts_with("HTTP/1.1 404"), "{reader:?}");
        }
        let late = Client::connect_to(process.url()).await;
        // What waits for a reader that is stuck is kept; the line that says how many were refused comes each second.
        let none_dropped = "sluice_gateway_log_lines_dropped_total 0\n";
        eventually("lines are dropped if nobody is left to read them", BUDGET, async || {
            process.admin("/metrics").await.contains(none_dropped) == (reader == Reader::Stuck)
        })
        .await;
        let begun = Instant::now();
        process.signal(Signal::SIGTERM);
        tokio::join!(is_left_in_order(early), is_left_in_order(late));
        assert_eq!(process.exited().await, Some(0), "{reader:?}");
        assert!(begun.elapsed() < BUDGET, "{reader:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_closed_terminal_stops_it_in_order() {
    let logic = logic().await;
    let mut process = Process::start(&logic, |command| {
        command.stderr(Stdio::null());
    });
    let client = Client::connect_to(process.url()).await;
    process.signal(Signal::SIGHUP);
    is_left_in_order(client).await;
    assert_eq!(process.exited().await, Some(0));
}

/// Every line is JSON with service and instance, numbers are numbers, and who comes late is told where the stop stands.
#[tokio::test]
async fn a_stop_is_told_in_numbers() {
    let logic = logic().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut process = Process::start(&logic, |command| {
        command.stderr(log.reopen().unwrap());
        command.args(["--set", "shutdown.total_ms=9000", "--set", "shutdown.stages.drain_ms=3000"]);
    });
    let mut client = Client::connect_to(process.url()).await;
    // Connected before the door closes, and asks afterwards.
    let address = process.url().trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
    let mut late = TcpStream::connect(address).await.unwrap();
    process.signal(Signal::SIGTERM);
    assert!(client.hear().await["drain"].is_object());
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    late.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(BUDGET, late.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("application/json"), "{answer}");
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(told["state"], "draining", "{told}");
    assert!(answer.contains(&format!("Retry-After: {}\r\n", told["retry_after_s"])), "{answer}");
    // Alone it has ended by then, long before all that its plan allows.
    assert!((1..=2).contains(&told["retry_after_s"].as_u64().unwrap()), "{told}");
    assert!(client.hear().await["bye"].is_object());
    client.end().await;
    assert_eq!(process.exited().await, Some(0));
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let in_order =
        ["Stopping", "Stage begins", "Stage is over", "Stopped"].map(|message| said(message).len());
    assert_eq!(in_order, [1, 6, 6, 1], "{text}");
    let starting = said("Starting")[0];
    assert_eq!((&starting["pid"], &starting["service"]), (&process.said["pid"], &"gateway".into()));
    let config = starting["config"].as_str().unwrap();
    assert!(config.contains("shutdown.stages.drain_ms=3000 shutdown.total_ms=9000"), "{config}");
    let stopping = said("Stopping")[0];
    assert_eq!((&stopping["total_ms"], &stopping["reason"]), (&9000.into(), &"SIGTERM".into()));
    assert_eq!((&stopping["signal_number"], &stopping["pid"]), (&15.into(), &process.said["pid"]));
    assert_eq!((&stopping["is_processing"], &stopping["in_flight"]), (&false.into(), &0.into()));
    let drain = said("Stage is over").into_iter().find(|line| line["stage"] == "drain").unwrap();
    assert_eq!((&drain["counts"]["closed"], &drain["counts"]["dropped"]), (&1.into(), &0.into()), "{drain}");
    assert_eq!(said("Stage begins")[2]["allowed_ms"], 3000, "{text}");
    for line in &lines[lines.iter().position(|line| line["message"] == "Stopping").unwrap()..] {
        assert_eq!((&line["service"], &line["instance"]), (&"gateway".into(), &process.said["instance"]));
    }
    let fields = |message: &str, names: &[&str]| {
        for line in said(message) {
            assert!(line["stage"].is_string(), "{line}");
            assert!(names.iter().all(|name| line[name].is_u64()), "{line}");
        }
    };
    fields("Stage begins", &["allowed_ms", "remaining_ms"]);
    fields("Stage is over", &["allowed_ms", "elapsed_ms"]);
    let last = said("Stopped")[0];
    assert_eq!((&last["level"], &last["processed_count"]), (&"INFO".into(), &0.into()), "{last}");
    for name in ["accepted", "completed", "rejected", "cancelled", "tasks_completed"] {
        assert!(last["counts"][name].is_u64(), "{name}: {last}");
    }
}

/// As under systemd; a stop that takes longer than its unit says gets the time.
#[tokio::test]
async fn a_service_manager_hears_how_far_it_is() {
    let (logic, manager) = (logic().await, NotifySocket::bind());
    let mut process = Process::start(&logic, |command| {
        command.envs(manager.environment()).stderr(Stdio::null());
        command.args(["--set", "shutdown.total_ms=20000"]);
    });
    manager.hears_a_life(Duration::from_secs(20), || process.signal(Signal::SIGTERM)).await;
    assert_eq!(process.exited().await, Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_in_the_log_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("listen={}", taken.local_addr().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"))
        .args(["--set", "admin.listen=127.0.0.1:0", "--set", "grpc.listen=127.0.0.1:0", "--set", &address])
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["message"], &last["level"], &last["exit_code"]),
        (&"Stopped".into(), &"ERROR".into(), &1.into())
    );
    assert!(last["reason"].as_str().unwrap().contains(&taken.local_addr().unwrap().to_string()), "{last}");
}

/// Nothing was told that has to be taken back, whether a logic is named and not there, or nobody is.
#[tokio::test]
async fn an_idle_gateway_without_a_logic_waits_for_none_at_its_stop() {
    for seeds in [format!("127.0.0.1:{}", free_port()), String::new()] {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process = Process::start(&seeds, |command| {
            command.stderr(log.reopen().unwrap());
        });
        // Reports are tried by now, and have failed.
        eventually("it looks for a logic", 2 * BUDGET, async || {
            lines(&log).iter().any(|line| line["dependency"] == "logic")
        })
        .await;
        process.signal(Signal::SIGTERM);
        assert_eq!(process.exited().await, Some(0));
        waited_for_none(&log);
    }
}

/// Its flush was over long before its time.
pub fn waited_for_none(log: &tempfile::NamedTempFile) {
    let all = lines(log);
    let mut over = all.iter().filter(|line| line["message"] == "Stage is over");
    let flush = over.rfind(|line| line["stage"] == "flush").unwrap();
    assert_eq!(flush["outcome"], "done", "{flush}");
    let ms = |key: &str| flush[key].as_u64().unwrap();
    assert!(ms("elapsed_ms") < ms("allowed_ms") / 2, "{flush}");
}

pub fn lines(log: &tempfile::NamedTempFile) -> Vec<Value> {
    let text = std::fs::read_to_string(log.path()).unwrap();
    // The last line may be under way.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// etcd refuses all the time, the only logic comes late: each is said once, with what suffers, and shown.
#[tokio::test]
async fn what_is_lost_is_said_once_with_cause_and_effect() {
    let address = format!("127.0.0.1:{}", free_port());
    let log = tempfile::NamedTempFile::new().unwrap();
    let process = Process::start(&address, |command| {
        command.stderr(log.reopen().unwrap());
    });
    let said = |message: &str, dependency: &str| -> Vec<Value> {
        let all = lines(&log).into_iter();
        all.filter(|line| line["message"] == message && line["dependency"] == dependency).collect()
    };
    for dependency in ["etcd", "logic"] {
        let lost = async || said("A dependency is lost.", dependency).len() == 1;
        eventually(dependency, 2 * BUDGET, lost).await;
        let line = &said("A dependency is lost.", dependency)[0];
        assert_eq!(line["level"], "WARN", "{line}");
        assert!(!line["reason"].as_str().unwrap().is_empty() && line["effect"].is_string(), "{line}");
        println!("{line}");
    }
    let ready = process.admin("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("no logic answers"), "{ready}");
    // The logic comes.
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(Scripted::default().service());
    tokio::spawn(server.serve_with_incoming(incoming));
    eventually("it is back", 2 * BUDGET, async || !said("A dependency is back.", "logic").is_empty()).await;
    let ready = process.admin("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""dependency":"etcd""#), "{ready}");
    process
        .metrics_have(&[
            r#"sluice_gateway_dependency_up{dependency="etcd"} 0"#,
            r#"sluice_gateway_dependency_up{dependency="logic"} 1"#,
            r#"sluice_gateway_dependency_failures_total{dependency="logic"} 1"#,
        ])
        .await;
    assert_eq!(said("A dependency is lost.", "etcd").len(), 1, "once");
    // Nobody is connected: nobody would notice a kill.
    assert!(process.admin("/status").await.contains(r#""safe_to_kill":true"#));
    let client = Client::connect_to(process.url()).await;
    let status = process.admin("/status").await;
    assert!(status.contains(r#""safe_to_kill":false"#) && status.contains("cut 1 connections"), "{status}");
    client.goodbye().await;
    eventually("it is idle", BUDGET, async || {
        process.admin("/status").await.contains(r#""safe_to_kill":true"#)
    })
    .await;
}

/// Publishes would be refused as too late, or could be stored too late: it says so, and not for ever.
#[tokio::test]
async fn a_clock_that_is_far_off_is_said_and_makes_it_unready() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let logic = Scripted::default();
    logic.clock.send_replace(Some(20 * 60 * 1_000));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(logic.service());
    tokio::spawn(server.serve_with_incoming(incoming));
    let log = tempfile::NamedTempFile::new().unwrap();
    let process = Process::start(&address, |command| {
        command.stderr(log.reopen().unwrap());
    });
    let said = |message: &str| lines(&log).into_iter().filter(|line| line["message"] == message).count();
    let differ = "Clocks differ: times and tokens are judged by the one or the other. Let all machines follow the same NTP.";
    eventually("it is said", 2 * BUDGET, async || said(differ) == 1).await;
    let ready = process.admin("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("behind that of"), "{ready}");
    let offset = async || {
        let metrics = process.admin("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("sluice_gateway_clock_offset_seconds "));
        line.expect("the metric").parse::<f64>().unwrap()
    };
    assert!((1_199.0..=1_200.0).contains(&offset().await), "{}", offset().await);
    // Ten seconds off is said, and harms nobody.
    logic.clock.send_replace(Some(-10_000));
    eventually("it is ready", 2 * BUDGET, async || {
        process.admin("/readyz").await.starts_with("HTTP/1.1 200")
    })
    .await;
    assert!((-10.1..=-9.9).contains(&offset().await), "{}", offset().await);
    logic.clock.send_replace(Some(0));
    eventually("they agree", 2 * BUDGET, async || said("Clocks agree again.") == 1).await;
    assert_eq!(said(differ), 1, "once");
}
