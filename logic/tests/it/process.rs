//! The real process and real signals.

mod api;
mod refusing;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_launcher::{Cluster, Service};
use sluice_testing::{NotifySocket, Reader, free_port};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::rig::{AT_ONCE, SECRET, TOTAL, get};
use super::stores::{eventually, signal_postgres, stores};

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-logic"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLUICE_")) {
        command.env_remove(name);
    }
    command
        .env("SLUICE_TOKEN_SECRET", SECRET)
        .env("SLUICE_GRPC__LISTEN", "127.0.0.1:0")
        .env("SLUICE_ADMIN__LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A logic that has said where it listens.
pub struct Logic {
    child: Child,
    line: Value,
}

pub struct Ended {
    pub code: Option<i32>,
    pub after: Duration,
    pub log: String,
}

impl Logic {
    pub async fn start(urls: &[(&str, String)]) -> Self {
        let mut command = command();
        command.envs(urls.iter().map(|(key, url)| (*key, url)));
        Self::spawn(command).await
    }

    pub async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
        Self { child, line: serde_json::from_str(&line).unwrap() }
    }

    pub fn admin(&self) -> SocketAddr {
        self.line["admin"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn grpc(&self) -> SocketAddr {
        self.line["api"].as_str().unwrap().parse().unwrap()
    }

    pub async fn ready(&self) {
        eventually("it is ready", async || get(self.admin(), "/readyz").await.0 == 200).await;
    }

    pub async fn end(mut self, signal: Signal) -> (Option<i32>, Duration) {
        self.ended(signal).await
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap())
    }

    async fn ended(&mut self, signal: Signal) -> (Option<i32>, Duration) {
        let pid = self.pid();
        let began = Instant::now();
        kill(pid, signal).unwrap();
        let status = timeout(Duration::from_secs(12), self.child.wait()).await.expect("it ends").unwrap();
        (status.code(), began.elapsed())
    }

    pub async fn signal(mut self, signal: Signal) -> Ended {
        let (code, after) = self.ended(signal).await;
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
        Ended { code, after, log }
    }
}

impl Ended {
    /// How often the log says this.
    fn said(&self, what: &str) -> usize {
        self.log.matches(what).count()
    }
}

pub fn urls(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let url = |service| cluster.store(service).url().to_owned();
    vec![
        ("SLUICE_NATS__URL", url(Service::Nats)),
        ("SLUICE_REDIS__URL", url(Service::Redis)),
        ("SLUICE_ETCD__ENDPOINTS", url(Service::Etcd)),
        ("SLUICE_POSTGRES__URL", url(Service::Postgres)),
    ]
}

#[tokio::test]
async fn an_idle_process_exits_at_once() {
    let cluster = stores().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let logic = Logic::start(&urls(&cluster)).await;
        logic.ready().await;
        assert!(logic.line["instance"].as_str().unwrap().starts_with("logic-"));
        let me = logic.line["instance"].as_str().unwrap();
        // Ready by itself comes first, the registry hears of it after.
        eventually("it is listed as serving", async || {
            let (_, instances) = get(logic.admin(), "/admin/instances").await;
            instances.contains(me) && instances.contains("serving")
        })
        .await;
        assert!(get(logic.admin(), "/metrics").await.1.contains("sluice_logic_publishes_total"));
        let silent = TcpStream::connect(logic.grpc()).await.unwrap();
        let ended = logic.signal(signal).await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(ended.after < AT_ONCE, "{:?} {}", ended.after, ended.log);
        assert!(ended.log.contains("publishes_unknown"), "{}", ended.log);
        drop(silent);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_stop_while_starting_needs_no_store() {
    let cluster = stores().await;
    // Black-holed first, then closed.
    for service in Service::STORES {
        cluster.store(service).freeze();
    }
    for gone in [false, true] {
        if gone {
            for service in Service::STORES {
                cluster.store(service).kill();
                cluster.store(service).exit().await;
            }
        }
        let logic = Logic::start(&urls(&cluster)).await;
        let (status, body) = get(logic.admin(), "/readyz").await;
        assert_eq!(status, 503, "{body}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ended = logic.signal(Signal::SIGTERM).await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(ended.after < TOTAL, "{:?} {}", ended.after, ended.log);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_ends_nothing_and_holds_nothing_up() {
    // Nothing answers at these: the log has something to say all the time.
    let nowhere = || format!("127.0.0.1:{}", free_port());
    let urls = [
        ("SLUICE_NATS__URL", format!("nats://{}", nowhere())),
        ("SLUICE_REDIS__URL", format!("redis://{}", nowhere())),
        ("SLUICE_ETCD__ENDPOINTS", format!("http://{}", nowhere())),
        ("SLUICE_POSTGRES__URL", format!("postgres://sluice@{}/sluice", nowhere())),
        ("SLUICE_LOG__LEVEL", "trace".to_owned()),
    ];
    for reader in Reader::ALL {
        let (mut read, write) = reader.pipe();
        let mut command = command();
        command.envs(urls.iter().map(|(key, url)| (*key, url))).stderr(write);
        let logic = Logic::spawn(command).await;
        read.process_is_up();
        for _ in 0..20 {
            assert_eq!(get(logic.admin(), "/livez").await.0, 200, "{reader:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let dropped = get(logic.admin(), "/metrics").await.1;
        assert_eq!(dropped.contains("sluice_logic_log_lines_dropped_total 0\n"), reader == Reader::Stuck);
        let (code, after) = logic.end(Signal::SIGTERM).await;
        assert_eq!(code, Some(0), "{reader:?}");
        assert!(after < TOTAL, "{reader:?}: {after:?}");
    }
}

#[tokio::test]
async fn a_service_manager_hears_how_far_it_is() {
    let (cluster, manager) = (stores().await, NotifySocket::bind());
    let mut command = command();
    command.envs(urls(&cluster)).envs(manager.environment()).stderr(Stdio::null());
    let mut logic = Logic::spawn(command).await;
    manager.hears_a_life(Duration::from_secs(8), || kill(logic.pid(), Signal::SIGTERM).unwrap()).await;
    let status = timeout(Duration::from_secs(12), logic.child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));
    cluster.stop().await;
}

#[tokio::test]
async fn it_becomes_ready_when_the_store_comes() {
    let cluster = stores().await;
    cluster.stop_store(Service::Postgres).await.unwrap();
    let logic = Logic::start(&urls(&cluster)).await;
    assert_eq!(get(logic.admin(), "/readyz").await.0, 503);
    cluster.start_store(Service::Postgres).await.unwrap();
    logic.ready().await;
    // And it says so when the store goes.
    signal_postgres(&cluster, Signal::SIGSTOP);
    eventually("/readyz says that the store is away", async || get(logic.admin(), "/readyz").await.0 == 503)
        .await;
    let ended = logic.signal(Signal::SIGTERM).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.after < TOTAL, "{:?} {}", ended.after, ended.log);
    signal_postgres(&cluster, Signal::SIGCONT);
    cluster.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_exits_with_2_and_the_fix() {
    let run = async |arguments: &[&str], secret: &str| {
        let output = command().env("SLUICE_TOKEN_SECRET", secret).args(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, error) = run(&[], "").await;
    assert!(code == Some(2) && error.contains("SLUICE_TOKEN_SECRET"), "{error}");
    let (code, _, error) = run(&["--set", "postgres.ulr=x"], SECRET).await;
    assert!(code == Some(2) && error.contains("postgres.url"), "{error}");
    let (code, _, error) = run(&["--set", "retention.dedupe_min_s=5"], SECRET).await;
    assert!(code == Some(2) && error.contains("3600"), "{error}");
    let (code, _, error) = run(&["--set", "nats.url=:::"], SECRET).await;
    assert!(code == Some(2) && error.contains("nats.url"), "{error}");
    let (code, _, error) = run(&["--set", "postgres.url=nonsense"], SECRET).await;
    assert!(code == Some(2) && error.contains("postgres"), "{error}");
    let (code, _, error) = run(&["--set", "api.listen=127.0.0.1:0"], SECRET).await;
    assert!(code == Some(2) && error.contains("sluice api-key new"), "{error}");
    let (code, shown, _) = run(&["--print-config"], SECRET).await;
    assert!(code == Some(0) && shown.contains("[retention]") && !shown.contains(SECRET), "{shown}");
    assert_eq!(run(&["--check"], SECRET).await.0, Some(0));
}
