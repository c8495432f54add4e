//! A task in this process, what it stands on, and what logic and gateways would do beside it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use serde_json::Value;
use sluice_cluster::{Cluster, Etcd, Registration};
use sluice_lifecycle::{Lifecycle, Report, Scope, StopReason};
use sluice_presence::Presence;
use sluice_proto::grpc::{Message, Notice, RoomRun};
use sluice_proto::ids::{RoomId, lane_of};
use sluice_queue::Queue;
use sluice_service::config::sections::{Admin, Seeds};
use sluice_task::app::{App, Deps};
use sluice_task::config::Config;
use sluice_task::stages;
use sluice_testing::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::gateway::Gateway;

pub const SOON: Duration = Duration::from_secs(20);
/// What the stages of a stop may take together.
pub const STAGES: Duration = Duration::from_secs(5);
/// A stop that has nothing to wait for, on a machine with other work too.
pub const AT_ONCE: Duration = Duration::from_millis(2_500);

/// What tasks stand on, also within reach of a test: its own hold on the queue and on interest.
pub trait Ground: Sized {
    /// With nothing in it. A registry that is a server of its own is there only if `listed`.
    async fn start(listed: bool) -> Self;
    /// A configuration that leads there.
    fn config(&self) -> Config;
    /// What a task gets.
    async fn deps(&self, config: &Config, lifecycle: &Lifecycle, registration: Registration) -> Deps;
    /// Lists another service beside the tasks.
    async fn list(&self, scope: &Scope, registration: Registration) -> Arc<dyn Cluster>;
    fn queue(&self) -> &dyn Queue;
    fn presence(&self) -> &dyn Presence;
    /// From now on nobody can be asked who is interested, or can be again.
    fn presence_is_away(&self, away: bool);
    /// Notices that nobody has acknowledged, handed out or not.
    async fn unsettled(&self) -> u64;
}

/// Tests of one ground, by the names of their bodies.
macro_rules! cases {
    ($ground:ty, $($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            $(
                #[tokio::test]
                async fn $case() {
                    crate::$module::$case::<$ground>().await;
                }
            )+
        })+
    };
}

/// What a task does whatever it stands on.
macro_rules! all_cases {
    ($ground:ty) => {
        cases!($ground,
            delivery:
                a_notice_goes_to_the_interested_and_to_no_other,
                a_wedged_gateway_delays_nobody_and_is_told_resync_on_its_return,
                the_end_of_a_stream_releases_what_waited_for_it,
                a_new_id_on_an_open_stream_is_the_only_one_that_counts,
                without_presence_every_gateway_gets_everything,
                what_is_no_notice_is_acknowledged_and_counted,
                a_working_stream_is_life_whatever_the_registry_says;
            duties: duties_are_spread_done_and_handed_over;
            firing:
                a_stop_ends_the_firing_however_often_it_is_asked_for,
                a_stop_in_the_middle_of_what_is_due_waits_for_one_call_at_most;
            missed: a_kill_is_safe_exactly_while_no_client_would_notice;
            standby: a_drained_task_fetches_nothing_and_comes_back;
            stop:
                an_idle_task_stops_at_once,
                the_last_task_pushes_until_draining_gateways_are_gone,
                a_notice_in_hand_is_brought_to_its_end,
                a_task_leaves_nothing_behind;
        );
    };
}

/// A configuration with these gateways as seeds and short leases; where servers are is not said.
pub fn config(gateways: &[&Gateway]) -> Config {
    Config {
        admin: Admin::at(0),
        etcd: Etcd { lease_ttl_s: 2, ..Etcd::default() },
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
    pub async fn start(ground: &impl Ground, config: Config) -> Self {
        Self::with(config, async |config, lifecycle, registration| {
            ground.deps(config, lifecycle, registration).await
        })
        .await
    }

    /// On whatever `deps` makes.
    pub async fn with(
        config: Config,
        deps: impl AsyncFnOnce(&Config, &Lifecycle, Registration) -> Deps,
    ) -> Self {
        let (lifecycle, engine) = Lifecycle::new(stages::plan(&config.shutdown));
        let app = App::build(config.clone(), lifecycle.clone()).await.unwrap();
        let admin = app.admin_address().to_string();
        let deps = deps(&config, &lifecycle, app.registration()).await;
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

    /// Until the queue is connected and every gateway has a stream.
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

/// Head and body of a page.
pub async fn get(address: &str, path: &str) -> (String, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// A ground, and the numbers of what a test publishes there.
pub struct Rig<G> {
    pub ground: G,
    seq: u64,
}

impl<G: Ground> Rig<G> {
    /// Tasks know gateways as seeds only.
    pub async fn start() -> Self {
        Self { ground: G::start(false).await, seq: 0 }
    }

    /// Tasks and gateways find each other.
    pub async fn listed() -> Self {
        Self { ground: G::start(true).await, seq: 0 }
    }

    /// For a task that knows these gateways as seeds.
    pub fn config(&self, gateways: &[&Gateway]) -> Config {
        Config { gateway: config(gateways).gateway, ..self.ground.config() }
    }

    pub async fn task(&self, gateways: &[&Gateway]) -> Task {
        let task = Task::start(&self.ground, self.config(gateways)).await;
        task.ready().await;
        task
    }

    pub async fn interest(&self, gateway: &Gateway, rooms: &[&str]) {
        let rooms: Vec<RoomId> = rooms.iter().map(|room| RoomId::parse(room).unwrap()).collect();
        self.ground.presence().add_interest(&gateway.id(), &rooms).await.unwrap();
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
            ..RoomRun::default()
        };
        let runs: Vec<RoomRun> = rooms.iter().map(run).collect();
        let notice = Notice { epoch: 5, runs: runs.clone() }.encode_to_vec();
        self.ground.queue().publish(lane_of(rooms[0]), notice.into()).await.unwrap();
        runs
    }

    pub async fn settled(&self) {
        eventually("the queue has all acks", SOON, async || self.ground.unsettled().await == 0).await;
    }
}
