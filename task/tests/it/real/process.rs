//! A task as a process, killed and signalled, and a task whose servers are not there.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_lifecycle::{Stage, StageOutcome};
use sluice_task::config::Config;
use sluice_task::deps;
use sluice_testing::{NotifySocket, Reader, eventually, free_port};
use tokio::time::{Instant, timeout};

use super::{Real, config};
use crate::gateway::{Gateway, Got};
use crate::rig::{Rig, SOON, STAGES, Task, get};

/// A task as a process of its own; killed when dropped.
pub struct Process(pub Child);

impl Process {
    fn start(config: &Config) -> Self {
        Self(Self::command(config).spawn().unwrap())
    }

    pub fn command(config: &Config) -> Command {
        let list = |list: &[String]| format!("{list:?}");
        let endpoints: Vec<_> = config.etcd.endpoints.iter().map(|url| url.reveal().to_owned()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-task"));
        command
            .args(["--set", &format!("admin.listen={}", config.admin.listen)])
            .args(["--set", &format!("nats.url={}", config.nats.url.reveal())])
            .args(["--set", &format!("redis.url={}", config.redis.url.reveal())])
            .env("SLUICE_GATEWAY__SEEDS", list(&config.gateway.seeds))
            .env("SLUICE_ETCD__ENDPOINTS", list(&endpoints))
            .stdout(Stdio::piped());
        command
    }

    /// The line it introduces itself with.
    fn announcement(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    async fn exited(&mut self) -> ExitStatus {
        eventually("it exits", SOON, async || self.0.try_wait().unwrap().is_some()).await;
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn what_a_killed_task_had_in_hand_is_delivered_again() {
    let mut rig = Rig::<Real>::start().await;
    let gateway = Gateway::start("gateway-a").await;
    rig.interest(&gateway, &["news"]).await;
    let config = rig.config(&[&gateway]);
    let process = Process::start(&config);
    eventually("it pushes", SOON, async || gateway.count(&Got::Opened) == 1).await;
    gateway.wedge(true);
    let notice = rig.publish(&["news"]).await;
    eventually("it is pushed", SOON, async || gateway.runs() == notice).await;
    drop(process);
    gateway.wedge(false);
    let task = rig.task(&[&gateway]).await;
    let again = eventually("it is pushed again", SOON, async || gateway.runs().len() == 2);
    timeout(Duration::from_secs(10), again).await.unwrap();
    assert_eq!(gateway.runs()[1], notice[0]);
    rig.settled().await;
    assert!(task.stop().await.is_clean());
}

#[tokio::test]
async fn with_nothing_up_it_runs_says_what_is_missing_and_stops_in_its_budget() {
    // Swallowed by sockets that nobody accepts from, and refused.
    let holes: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hole = |n: usize| holes[n].local_addr().unwrap().port();
    let black_holed = config(hole(0), hole(1), hole(2));
    let refused = config(free_port(), free_port(), free_port());
    for config in [black_holed, refused] {
        let task = Task::with(config, async |config, lifecycle, registration| {
            deps::connect(config, lifecycle, registration).await.unwrap()
        })
        .await;
        let (ready, reason) = task.readyz().await;
        assert!(!ready && reason.contains("NATS"), "{reason}");
        assert_eq!(task.lifecycle.stage(), Stage::Ready);
        let report = task.stop().await;
        assert_eq!(report.exit_code(), 0);
        assert!(report.elapsed <= STAGES, "{report:?}");
        let unclean = report.stages.iter().filter(|stage| stage.outcome != StageOutcome::Done).count();
        assert_eq!(unclean, 0, "{report:?}");
    }
}

#[tokio::test]
async fn a_process_obeys_signals_also_with_its_servers_black_holed() {
    let holes: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hole = |n: usize| holes[n].local_addr().unwrap().port();
    let config = config(hole(0), hole(1), hole(2));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let mut process = Process::start(&config);
        let said = process.announcement();
        assert_eq!(said["service"], "task");
        let admin = said["admin"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let alive = async || get(&admin, "/livez").await.0.starts_with("HTTP/1.1 200");
        assert!(alive().await);
        let begun = Instant::now();
        process.signal(signal);
        assert_eq!(process.exited().await.code(), Some(0));
        assert!(begun.elapsed() < STAGES, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_ends_nothing_and_holds_nothing_up() {
    let config = config(free_port(), free_port(), free_port());
    for reader in Reader::ALL {
        let (mut read, write) = reader.pipe();
        let mut command = Process::command(&config);
        let mut process = Process(command.env("RUST_LOG", "trace").stderr(write).spawn().unwrap());
        let said = process.announcement();
        read.process_is_up();
        let admin = said["admin"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        for _ in 0..20 {
            assert!(get(&admin, "/livez").await.0.starts_with("HTTP/1.1 200"), "{reader:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = Instant::now();
        process.signal(Signal::SIGTERM);
        assert_eq!(process.exited().await.code(), Some(0), "{reader:?}");
        assert!(begun.elapsed() < STAGES, "{reader:?}: {:?}", begun.elapsed());
    }
}

/// Nothing it needs is up: it is ready to work all the same.
#[tokio::test]
async fn a_service_manager_hears_how_far_it_is() {
    let (config, manager) = (config(free_port(), free_port(), free_port()), NotifySocket::bind());
    let mut command = Process::command(&config);
    let mut process = Process(command.envs(manager.environment()).stderr(Stdio::null()).spawn().unwrap());
    manager.hears_a_life(Duration::from_secs(8), || process.signal(Signal::SIGTERM)).await;
    assert_eq!(process.exited().await.code(), Some(0));
}

/// A NATS that takes connections and keeps nothing, and a Redis that is not there.
#[tokio::test]
async fn a_nats_without_jetstream_is_said_with_its_fix() {
    let port = free_port();
    let mut nats = Process(
        Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let config = config(port, free_port(), free_port());
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Process::command(&config);
    let mut process = Process(command.stderr(log.reopen().unwrap()).spawn().unwrap());
    let said = process.announcement();
    let lost = |dependency: &str| -> Option<Value> {
        let text = std::fs::read_to_string(log.path()).unwrap();
        let mut all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.find(|line| line["message"] == "A dependency is lost." && line["dependency"] == dependency)
    };
    for (dependency, reason) in [("nats", "JetStream"), ("redis", ""), ("etcd", ""), ("logic", "prefix")] {
        eventually(dependency, SOON, async || lost(dependency).is_some()).await;
        let line = lost(dependency).unwrap();
        println!("{line}");
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    }
    let admin = said["admin"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    assert!(get(&admin, "/status").await.1.contains("nats-server -js"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exited().await.code(), Some(0));
    nats.signal(Signal::SIGTERM);
    nats.exited().await;
}
