//! A logic in this process, its real gRPC server on loopback, and a caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sluice_lifecycle::{Lifecycle, Report, StopReason};
use sluice_logic::app::{App, Deps};
use sluice_logic::config::Config;
use sluice_logic::stages;
use sluice_proto::grpc::logic_client::LogicClient;
use sluice_proto::grpc::{Outcome, PublishItem, PublishReply, PublishRequest};
use sluice_service::clock::Clock;
use sluice_service::config::Address;
use sluice_store::Store;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::fake::{Away, Faulty, Neighbours, Remembering};

pub const SECRET: &str = "a secret that only tests may know";
/// Wall time of rigs on fakes.
pub const NOW_MS: i64 = 1_000;

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
        let (lifecycle, engine) = Lifecycle::new(stages::plan(config.shutdown.total()));
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

/// A logic on fakes.
pub struct Faked {
    pub rig: Rig,
    pub store: Arc<Faulty>,
    pub queue: Arc<Remembering>,
    pub neighbours: Arc<Neighbours>,
    pub clock: Clock,
}

pub async fn faked() -> Faked {
    let (store, queue, neighbours) = (Faulty::new(), Remembering::new(), Neighbours::none());
    let clock = Clock::manual(NOW_MS);
    let rig = Rig::start(config(), async |_, _| Deps {
        store: {
            let store: Arc<dyn Store> = store.clone();
            Box::new(move || std::future::ready(Ok(Arc::clone(&store))).boxed())
        },
        queue: queue.clone(),
        presence: Arc::new(Away),
        cluster: neighbours.clone(),
        clock: clock.clone(),
    })
    .await;
    Faked { rig, store, queue, neighbours, clock }
}

pub fn item(room: &str, sender: &str, key: &str, data: &str) -> PublishItem {
    let data = data.to_owned().into();
    PublishItem { room: room.into(), sender: sender.into(), key: key.into(), data }
}

/// A call that may be stored for a minute of fake time.
pub fn call(items: Vec<PublishItem>) -> PublishRequest {
    PublishRequest { items, not_after_ms: NOW_MS + 60_000 }
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
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    let status = text[9..12].parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
