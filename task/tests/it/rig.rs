//! Servers, a task in this process, and what logic and gateways would do beside it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use serde_json::Value;
use sluice_lifecycle::{Lifecycle, Report, StopReason};
use sluice_presence::Presence;
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_proto::grpc::{Message, Notice, RoomRun};
use sluice_proto::ids::{RoomId, lane_of};
use sluice_queue::Queue;
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_service::config::sections::{Admin, Etcd, Seeds, Server as Url};
use sluice_task::app::App;
use sluice_task::config::Config;
use sluice_task::{deps, stages};
use sluice_testing::{Kind, Server, eventually, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::gateway::Gateway;

pub const SOON: Duration = Duration::from_secs(20);

/// A configuration for servers at these ports.
pub fn config(nats: u16, redis: u16, etcd: u16, gateways: &[&Gateway]) -> Config {
    Config {
        admin: Admin::at(0),
        nats: Url::at(&format!("nats://127.0.0.1:{nats}")),
        redis: Url::at(&format!("redis://127.0.0.1:{redis}")),
        etcd: Etcd { endpoints: vec![format!("http://127.0.0.1:{etcd}")], lease_ttl_s: 2 },
        gateway: Seeds { seeds: gateways.iter().map(|gateway| gateway.address.clone()).collect() },
        ..Config::default()
    }
}

/// A task in this process.
pub struct Task {
    pub lifecycle: Lifecycle,
    pub admin: String,
    engine: JoinSet<Report>,
}

impl Task {
    pub async fn start(config: Config) -> Self {
        let (lifecycle, engine) = Lifecycle::new(stages::plan(config.shutdown.total()));
        let app = App::build(config.clone(), lifecycle.clone()).await.unwrap();
        let admin = app.admin_address().to_string();
        let deps = deps::connect(&config, &lifecycle, app.registration()).await.unwrap();
        app.serve(deps);
        let mut tasks = JoinSet::new();
        tasks.spawn(engine.run());
        Self { lifecycle, admin, engine: tasks }
    }

    pub async fn stop(mut self) -> Report {
        self.lifecycle.stop(StopReason::Signal("SIGTERM"));
        self.engine.join_next().await.unwrap().unwrap()
    }

    pub async fn status(&self) -> Value {
        let (_, body) = get(&self.admin, "/status").await;
        serde_json::from_str(&body).unwrap()
    }

    pub async fn readyz(&self) -> (bool, String) {
        let (head, body) = get(&self.admin, "/readyz").await;
        (head.starts_with("HTTP/1.1 200"), body)
    }

    /// Until NATS is connected and every gateway has a stream.
    pub async fn ready(&self) {
        eventually("the task is ready", SOON, async || {
            let status = self.status().await;
            let open = status["outlets"].as_array().unwrap().iter().all(|outlet| outlet["state"] == "open");
            open && self.readyz().await.0
        })
        .await;
    }

    pub async fn in_flight(&self) -> u64 {
        self.status().await["notices_in_flight"].as_u64().unwrap()
    }
}

/// A task as a process of its own; killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn start(config: &Config) -> Self {
        let list = |list: &[String]| format!("{list:?}");
        let child = Command::new(env!("CARGO_BIN_EXE_sluice-task"))
            .args(["--set", &format!("admin.listen={}", config.admin.listen)])
            .args(["--set", &format!("nats.url={}", config.nats.url)])
            .args(["--set", &format!("redis.url={}", config.redis.url)])
            .env("SLUICE_GATEWAY__SEEDS", list(&config.gateway.seeds))
            .env("SLUICE_ETCD__ENDPOINTS", list(&config.etcd.endpoints))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The line it introduces itself with.
    pub fn announcement(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    pub async fn exited(&mut self) -> ExitStatus {
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

/// Head and body of a page.
pub async fn get(address: &str, path: &str) -> (String, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// NATS and Redis, and their other users.
pub struct Rig {
    pub nats: Server,
    pub redis: Server,
    pub queue: JetStream,
    pub presence: RedisPresence,
    seq: u64,
}

impl Rig {
    pub async fn start() -> Self {
        let (nats, redis) = tokio::join!(Server::start(Kind::Nats), Server::start(Kind::Redis));
        let config = config(nats.port(), redis.port(), 1, &[]);
        let queue = NatsConfig { url: config.nats.url, ..NatsConfig::default() };
        let queue = JetStream::connect(queue).await.unwrap();
        let presence = RedisConfig { url: config.redis.url, ..RedisConfig::default() };
        let presence = RedisPresence::connect(presence).unwrap();
        eventually("NATS is connected", SOON, async || queue.connected()).await;
        Self { nats, redis, queue, presence, seq: 0 }
    }

    /// A task that knows these gateways as seeds; there is no etcd.
    pub fn config(&self, gateways: &[&Gateway]) -> Config {
        config(self.nats.port(), self.redis.port(), free_port(), gateways)
    }

    pub async fn task(&self, gateways: &[&Gateway]) -> Task {
        let task = Task::start(self.config(gateways)).await;
        task.ready().await;
        task
    }

    pub async fn interest(&self, gateway: &Gateway, rooms: &[&str]) {
        let rooms: Vec<RoomId> = rooms.iter().map(|room| RoomId::parse(room).unwrap()).collect();
        self.presence.add_interest(&gateway.id(), &rooms).await.unwrap();
    }

    /// One notice with a message of each room, as logic would publish it.
    pub async fn publish(&mut self, rooms: &[&str]) -> Vec<RoomRun> {
        self.seq += 1;
        let message =
            || Message { seq: self.seq, sender: "ann".into(), data: "{}".into(), ..Message::default() };
        let run = |room: &&str| RoomRun {
            room: (*room).into(),
            first: self.seq,
            last: self.seq,
            messages: vec![message()],
        };
        let runs: Vec<RoomRun> = rooms.iter().map(run).collect();
        let notice = Notice { epoch: 5, runs: runs.clone() }.encode_to_vec();
        self.queue.publish(lane_of(rooms[0]), notice.into()).await.unwrap();
        runs
    }

    /// What NATS still waits for: delivered and not acknowledged, and not delivered.
    pub async fn unsettled(&self) -> u64 {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("sluice_FANOUT").await.unwrap();
        let info = stream.consumer_info("task").await.unwrap();
        info.num_ack_pending as u64 + info.num_pending
    }

    pub async fn settled(&self) {
        eventually("NATS has all acks", SOON, async || self.unsettled().await == 0).await;
    }
}
