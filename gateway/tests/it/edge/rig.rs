//! A gateway in this process, its logic, and clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use sluice_cluster::solo::{SoloCluster, SoloRegistry};
use sluice_cluster::{Registration, Service};
use sluice_gateway::app::{App, Deps};
use sluice_gateway::config::Config;
use sluice_lifecycle::{Engine, Lifecycle, Plan, Report, Stage, StopReason};
use sluice_service::clock::Clock;
use sluice_service::config::Address;
use sluice_service::process::Settings;
use sluice_testing::eventually;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::logic::Scripted;
use super::process::Process;

/// Longest wait for anything that is to happen.
pub const SOON: Duration = Duration::from_secs(5);
/// A stop that has nothing to wait for, on a machine with other work too: half of what the stages may take.
pub const AT_ONCE: Duration = Duration::from_secs(2);
/// All that a stop may take.
pub const TOTAL: Duration = Duration::from_secs(8);

/// Who is listed besides this gateway for as long as it runs.
#[derive(Clone)]
struct Others(SoloRegistry);

impl Others {
    fn join(&self, lifecycle: &Lifecycle, service: Service, address: String) -> SoloCluster {
        let registration = Registration { service, address, url: None, version: String::new() };
        self.0.join(&lifecycle.scope(Stage::Gone), registration, BTreeSet::new())
    }
}

/// A running gateway; clones share it.
#[derive(Clone)]
pub struct Rig {
    pub logic: Scripted,
    pub lifecycle: Lifecycle,
    pub url: String,
    /// Where tasks push.
    pub grpc: String,
    /// Where [`Rig::logic`] is.
    pub logic_at: String,
    /// Where a balancer asks.
    pub agent: Option<SocketAddr>,
    others: Others,
    status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Where its admin pages are.
    pub admin: String,
    /// How often two versions of a message met, and who has pushed.
    forged: Arc<dyn Fn() -> (u64, String) + Send + Sync>,
    close: Arc<dyn Fn() + Send + Sync>,
    engine: Arc<Mutex<Option<Engine>>>,
}

impl Rig {
    /// A gateway with so many shards; `peer`: another gateway serves.
    pub async fn start(shards: usize, peer: bool) -> Self {
        Self::with(Config { shards, ..Config::default() }, peer).await
    }

    /// A gateway with these settings, but addresses of its own.
    pub async fn with(config: Config, peer: bool) -> Self {
        Self::at(Clock::system(), config, peer).await
    }

    /// A gateway with one shard that begins beside this logic.
    pub async fn on(logic: Scripted) -> Self {
        Self::beside(logic, Clock::system(), Config { shards: 1, ..Config::default() }, false).await
    }

    /// With this wall clock.
    pub async fn at(clock: Clock, config: Config, peer: bool) -> Self {
        Self::beside(Scripted::default(), clock, config, peer).await
    }

    async fn beside(logic: Scripted, clock: Clock, mut config: Config, peer: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(logic.service());
        tokio::spawn(server.serve_with_incoming(incoming));

        let mut rig = Self { logic, ..Self::planned(config.plan()) };
        let any = || Address::local(0);
        config.listen = any();
        config.grpc.listen = any();
        config.admin.listen = any();
        let app = App::build(config, rig.lifecycle.clone()).await.unwrap();
        rig.url = app.url();
        rig.grpc = app.registration().address;
        rig.agent = app.agent_address();
        rig.admin = app.admin_address().to_string();
        rig.logic_at = address.clone();
        drop(rig.others.join(&rig.lifecycle, Service::Logic, address));
        if peer {
            drop(rig.peer());
        }
        let scope = rig.lifecycle.scope(Stage::Release);
        let cluster = Arc::new(rig.others.0.join(&scope, app.registration(), BTreeSet::new()));
        let shared = app.serve(Deps { cluster, clock }).await.unwrap();
        let (upgrades, stats, forged) = (Arc::clone(&shared), Arc::clone(&shared), shared);
        rig.status = Arc::new(move || stats.stats.to_json());
        rig.forged = Arc::new(move || (forged.metrics.conflicts.get(), forged.pushers.all()));
        let closing = rig.lifecycle.clone();
        rig.close = Arc::new(move || upgrades.upgrades.close(&closing, false));
        rig
    }

    /// Nothing is started yet.
    pub fn unstarted() -> Self {
        Self::planned(Config::default().plan())
    }

    fn planned(plan: Plan) -> Self {
        let (lifecycle, engine) = Lifecycle::new(plan);
        Self {
            logic: Scripted::default(),
            lifecycle,
            url: String::new(),
            grpc: String::new(),
            logic_at: String::new(),
            agent: None,
            others: Others(SoloRegistry::new(Duration::from_secs(10))),
            status: Arc::new(|| Value::Null),
            admin: String::new(),
            forged: Arc::new(|| (0, String::new())),
            close: Arc::new(|| {}),
            engine: Arc::new(Mutex::new(Some(engine))),
        }
    }

    /// Another gateway appears. It stays listed when this is dropped.
    pub fn peer(&self) -> SoloCluster {
        self.peer_at("127.0.0.1:1")
    }

    /// The same, at this address.
    pub fn peer_at(&self, address: &str) -> SoloCluster {
        self.others.join(&self.lifecycle, Service::Gateway, address.into())
    }

    /// Stops it as a signal would.
    pub async fn stop(self) -> Report {
        self.lifecycle.stop(StopReason::Signal("SIGTERM"));
        self.report().await
    }

    /// Runs the stop that was asked for.
    pub async fn report(&self) -> Report {
        let engine = self.engine.lock().unwrap().take().unwrap();
        timeout(Duration::from_secs(10), engine.run()).await.unwrap()
    }

    pub async fn lifecycle_at(&self, stage: Stage) {
        let mut progress = self.lifecycle.progress();
        timeout(SOON, progress.wait_for(|now| now.stage >= stage)).await.unwrap().unwrap();
    }

    pub fn status(&self) -> Value {
        (self.status)()
    }

    /// Waits until a scrape has these lines: shards add what they count ten times a second.
    pub async fn metrics_have(&self, lines: &[&str]) {
        for line in lines {
            let line = format!("\n{line}\n");
            let has = async || Process::get(&self.admin, "/metrics").await.contains(&line);
            eventually(&line, SOON, has).await;
        }
    }

    /// How often two versions of a message met.
    pub fn conflicts(&self) -> u64 {
        (self.forged)().0
    }

    /// Who has pushed.
    pub fn pushers(&self) -> String {
        (self.forged)().1
    }

    /// As stage notify does first.
    pub fn around_closed(&self) {
        (self.close)();
    }
}

/// A client that has its welcome.
pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn connect(rig: &Rig) -> Self {
        Self::connect_to(&rig.url).await
    }

    pub async fn connect_to(url: &str) -> Self {
        let (client, welcome) = Self::welcomed(url).await;
        assert!(welcome["welcome"]["user"].is_string());
        client
    }

    /// A client that is this user.
    pub async fn named(rig: &Rig, user: &str) -> Self {
        let mut client = Self::with_token(rig, user).await;
        assert_eq!(client.hear().await["welcome"]["user"], user);
        client
    }

    /// A client that came with this token and was not welcomed yet.
    pub async fn with_token(rig: &Rig, token: &str) -> Self {
        let mut request = rig.url.as_str().into_client_request().unwrap();
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("Authorization", bearer);
        let (socket, _) = timeout(SOON, tokio_tungstenite::connect_async(request)).await.unwrap().unwrap();
        Self(socket)
    }

    /// A client, and the welcome it got.
    pub async fn welcomed(url: &str) -> (Self, Value) {
        let mut client = Self::unwelcomed(url).await;
        let welcome = client.hear().await;
        (client, welcome)
    }

    /// A client that nobody has welcomed yet.
    pub async fn unwelcomed(url: &str) -> Self {
        let (socket, _) = timeout(SOON, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        Self(socket)
    }

    pub async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub async fn say(&mut self, frame: Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    /// The next text frame.
    pub async fn hear(&mut self) -> Value {
        loop {
            let message = timeout(SOON, self.0.next()).await.expect("a frame in time");
            match message.expect("not the end").expect("no error") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{other:?} instead of text")
                }
            }
        }
    }

    /// The close frame, then a clean end of TCP.
    pub async fn end(&mut self) -> Option<(u16, String)> {
        let message = timeout(SOON, self.0.next()).await.expect("a close in time");
        let Some(Ok(Message::Close(frame))) = message else { panic!("{message:?} instead of a close") };
        // Answers the close, then the server ends TCP without a reset.
        let rest = timeout(SOON, self.0.next()).await.expect("an end in time");
        assert!(rest.is_none(), "{rest:?}");
        frame.map(|frame| (frame.code.into(), frame.reason.to_string()))
    }

    /// Leaves for good.
    pub async fn goodbye(mut self) {
        let frame =
            tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = timeout(SOON, self.0.next()).await.unwrap() {}
    }
}
