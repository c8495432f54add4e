//! A logic in this process, its real gRPC server on loopback, and a caller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use prost::Message as _;
use sluice_cluster::solo::{SoloCluster, SoloRegistry};
use sluice_cluster::{Cluster as _, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Report, Stage, StopReason};
use sluice_logic::app::{App, Deps};
use sluice_logic::config::Config;
use sluice_logic::stages;
use sluice_presence::memory::MemoryPresence;
use sluice_proto::grpc::logic_client::LogicClient;
use sluice_proto::grpc::{Notice, Outcome, PublishItem, PublishReply, PublishRequest};
use sluice_queue::Queue as _;
use sluice_queue::memory::MemoryQueue;
use sluice_service::clock::Clock;
use sluice_service::config::Address;
use sluice_store::{Store, StoreError};
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::fake::Faulty;

pub const SECRET: &str = "a secret that only tests may know";
/// Wall time of rigs on fakes.
pub const NOW_MS: i64 = 1_000;

/// A stop that has nothing to wait for, on a machine with other work too.
pub const AT_ONCE: Duration = Duration::from_millis(2_500);
/// How long the last logic stays for gateways that drain.
pub const STAY: Duration = Duration::from_secs(5);
/// All that a stop may take.
pub const TOTAL: Duration = Duration::from_secs(8);

pub type Caller = LogicClient<Channel>;

pub struct Rig {
    pub lifecycle: Lifecycle,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    end: JoinHandle<Report>,
}

impl Rig {
    /// Serves with these parts; returns when ready.
    pub async fn start(config: Config, deps: impl AsyncFnOnce(&Lifecycle, &App) -> Deps) -> Self {
        let (lifecycle, engine) = Lifecycle::new(stages::plan(&config.shutdown));
        let app = App::build(config, lifecycle.clone()).await.unwrap();
        let (grpc, admin) = (app.grpc_address(), app.admin_address());
        let end = tokio::spawn(engine.run());
        let deps = deps(&lifecycle, &app).await;
        app.serve(deps).await.unwrap();
        Self { lifecycle, grpc, admin, end }
    }

    pub async fn caller(&self) -> Caller {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        LogicClient::new(endpoint.connect().await.unwrap())
    }

    /// Stops and says how that went.
    pub async fn stop(self) -> Report {
        self.lifecycle.stop(StopReason::Manual("the test is over".into()));
        self.end.await.unwrap()
    }
}

/// A configuration with free ports.
pub fn config() -> Config {
    let mut config = Config { token_secret: SECRET.into(), ..Config::default() };
    config.grpc.listen = Address::local(0);
    config.admin.listen = Address::local(0);
    config
}

/// A logic on a store that fails on command, and on parts of this process. Its Redis is away.
pub struct Faked {
    pub rig: Rig,
    pub store: Arc<Faulty>,
    pub queue: MemoryQueue,
    pub presence: MemoryPresence,
    pub neighbours: Neighbours,
    pub clock: Clock,
}

pub async fn faked() -> Faked {
    faked_with(config()).await
}

/// With these settings.
pub async fn faked_with(config: Config) -> Faked {
    let (store, queue, presence) = (Faulty::new(), MemoryQueue::default(), MemoryPresence::default());
    presence.set_away(true);
    let (clock, mut neighbours) = (Clock::manual(NOW_MS), None);
    let rig = Rig::start(config, async |lifecycle, app| Deps {
        store: {
            let store: Arc<dyn Store> = store.clone();
            Box::new(move || std::future::ready(Ok(Arc::clone(&store))).boxed())
        },
        queue: Arc::new(queue.share()),
        presence: Arc::new(presence.share()),
        cluster: neighbours.insert(Neighbours::none(lifecycle)).cluster(lifecycle, app),
        clock: clock.clone(),
    })
    .await;
    Faked { rig, store, queue, presence, neighbours: neighbours.unwrap(), clock }
}

/// A logic that does not reach its store, on this Redis; and whom it has beside it.
pub async fn starting(presence: MemoryPresence) -> (Rig, Neighbours) {
    let config = config();
    let (lifecycle, engine) = Lifecycle::new(stages::plan(&config.shutdown));
    let app = App::build(config, lifecycle.clone()).await.unwrap();
    let (grpc, admin) = (app.grpc_address(), app.admin_address());
    let neighbours = Neighbours::none(&lifecycle);
    let deps = Deps {
        store: Box::new(|| std::future::ready(Err(StoreError::Unreachable("down".into()))).boxed()),
        queue: Arc::new(MemoryQueue::default()),
        presence: Arc::new(presence),
        cluster: neighbours.cluster(&lifecycle, &app),
        clock: Clock::system(),
    };
    let serving = tokio::spawn(app.serve(deps));
    let end = tokio::spawn(async move {
        let report = engine.run().await;
        serving.await.unwrap().unwrap();
        report
    });
    (Rig { lifecycle, grpc, admin, end }, neighbours)
}

/// Whom a logic has beside it: nobody, but whom a test adds. They stay until its last stage.
#[derive(Clone)]
pub struct Neighbours {
    registry: SoloRegistry,
    lifecycle: Lifecycle,
}

impl Neighbours {
    pub fn none(lifecycle: &Lifecycle) -> Self {
        Self { registry: SoloRegistry::new(Duration::from_secs(10)), lifecycle: lifecycle.clone() }
    }

    /// The logic itself.
    pub fn cluster(&self, lifecycle: &Lifecycle, app: &App) -> Arc<SoloCluster> {
        Arc::new(self.registry.join(&lifecycle.scope(Stage::Release), app.registration(), BTreeSet::new()))
    }

    fn join(&self, service: Service) -> SoloCluster {
        let (address, version) = ("127.0.0.1:1".into(), "1".into());
        let registration = Registration { service, address, url: None, version };
        self.registry.join(&self.lifecycle.scope(Stage::Gone), registration, BTreeSet::new())
    }

    /// Where an operator asks.
    pub fn operator(&self) -> SoloCluster {
        self.join(Service::Gateway)
    }

    /// Another logic is there, in this state.
    pub async fn logic(&self, state: InstanceState) {
        self.join(Service::Logic).set_state(state).await;
    }

    /// What others see of the only logic, from now on until it has left.
    pub fn states(&self) -> JoinHandle<Vec<InstanceState>> {
        let mut view = self.join(Service::Gateway).view();
        tokio::spawn(async move {
            let mut states = Vec::new();
            loop {
                let state = view.borrow_and_update().of(Service::Logic).map(|it| it.state).next();
                let Some(state) = state else { break };
                if states.last() != Some(&state) {
                    states.push(state);
                }
                view.changed().await.unwrap();
            }
            states
        })
    }
}

/// The next notices that the queue has, once there are so many.
pub async fn sent(queue: &MemoryQueue, notices: usize) -> Vec<Notice> {
    let (mut consumer, mut sent) = (queue.consumer().await.unwrap(), Vec::new());
    while sent.len() < notices {
        let delivery = consumer.next().await.unwrap();
        sent.push(Notice::decode(delivery.payload.clone()).unwrap());
        delivery.ack().await;
    }
    sent
}

pub fn item(room: &str, sender: &str, key: &str, data: &str) -> PublishItem {
    let data = data.to_owned().into();
    PublishItem { room: room.into(), sender: sender.into(), key: key.into(), data }
}

/// A call that may be stored for a minute of fake time.
pub fn call(items: Vec<PublishItem>) -> PublishRequest {
    PublishRequest { items, not_after_ms: NOW_MS + 60_000, ..PublishRequest::default() }
}

pub fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

/// Publishes with the deadline a gateway gives.
pub async fn publish(caller: &Caller, request: PublishRequest) -> PublishReply {
    caller.clone().publish(within(Duration::from_secs(2), request)).await.unwrap().into_inner()
}

/// As [`publish`], in the background.
pub fn publishing(caller: &Caller, request: PublishRequest) -> JoinHandle<PublishReply> {
    let caller = caller.clone();
    tokio::spawn(async move { publish(&caller, request).await })
}

pub fn outcomes(reply: &PublishReply) -> Vec<Outcome> {
    reply.results.iter().map(sluice_proto::grpc::PublishResult::outcome).collect()
}

/// One HTTP request to the admin page: status and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    let status = text[9..12].parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
