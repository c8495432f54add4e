//! A supervised service: one life after the other, each with its own lifecycle, at the same addresses. Decides when
//! the next life begins; what a service does is its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_cluster::{Cluster, InstanceState, Service};
use sluice_gateway::shard::shared::Shared as Gateway;
use sluice_lifecycle::{BoxError, Lifecycle, Plan, Report, StopReason, error_chain};
use sluice_logic::probe::Probe;
use sluice_service::process::{Settings, StartError};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::embedded::Embedded;
use crate::error::Error;
use crate::event::Event;

/// Between two looks whether a gateway has heard of a logic.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A start takes much less, also on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(11);

/// Where a service listens, besides ports that only others of this process need.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) clients: Option<SocketAddr>,
    /// Of a logic: its HTTP API, if it has one.
    pub(crate) api: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

/// What a service is told, the same in each of its lives.
#[derive(Debug, Clone)]
pub(crate) enum ServiceConfig {
    Gateway(Box<sluice_gateway::config::Config>),
    Logic(Box<sluice_logic::config::Config>),
    Task(Box<sluice_task::config::Config>),
}

impl ServiceConfig {
    fn service(&self) -> Service {
        match self {
            Self::Gateway(_) => Service::Gateway,
            Self::Logic(_) => Service::Logic,
            Self::Task(_) => Service::Task,
        }
    }

    fn plan(&self) -> Plan {
        match self {
            Self::Gateway(config) => config.plan(),
            Self::Logic(config) => config.plan(),
            Self::Task(config) => config.plan(),
        }
    }
}

/// Services by name, what each is told, and where it is.
pub(crate) type Placed = Vec<(String, ServiceConfig, Addresses)>;

pub(crate) struct Supervised {
    pub(crate) name: String,
    pub(crate) config: ServiceConfig,
    pub(crate) at: Addresses,
    pub(crate) embedded: Arc<Embedded>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) present: watch::Sender<Life>,
}

/// The present life.
#[derive(Clone, Default)]
pub(crate) struct Life {
    /// Counts from 1.
    pub(crate) life: u64,
    /// Whether it is ready for work.
    pub(crate) ready: bool,
    pub(crate) lifecycle: Option<Lifecycle>,
    cluster: Option<Arc<dyn Cluster>>,
    gateway: Option<Arc<Gateway>>,
    /// Of a logic: whether its store takes commits.
    store: Option<Probe>,
}

impl Supervised {
    pub(crate) fn service(&self) -> Service {
        self.config.service()
    }

    /// Lives until `stop`; ended by somebody else before that, it lives again.
    pub(crate) async fn live(self: Arc<Self>, stop: CancellationToken) -> Result<(), BoxError> {
        for life in 1.. {
            let span = tracing::info_span!("service", name = self.name);
            let report = self.life(life, &stop).instrument(span).await?;
            let (name, failed) = (self.name.clone(), report.exit_code() != 0);
            let reason = report.reason.to_string();
            self.events.send(Event::Ended { name, report }).ok(); // nobody may be looking
            // One that failed is not begun again: everything stops, and its reason is the exit of all.
            if failed {
                return Err(format!("{}: {reason}", self.name).into());
            }
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    async fn life(&self, life: u64, stop: &CancellationToken) -> Result<Report, BoxError> {
        let (lifecycle, engine) = Lifecycle::new(self.config.plan());
        let present = Life { life, lifecycle: Some(lifecycle.clone()), ..Life::default() };
        self.present.send_replace(present);
        let begin = async {
            let begun = self.begin(&lifecycle).await;
            match &begun {
                Ok(()) => self.is_ready(life, &lifecycle),
                Err(error) => {
                    // Whoever is given the error says it: once is enough.
                    let said = "it did not start".to_owned();
                    lifecycle.stop(StopReason::NotStarted(said, error.exit_code()));
                }
            }
            begun
        };
        let stopped = async {
            stop.cancelled().await;
            lifecycle.stop(StopReason::Manual("everything stops".to_owned()));
            std::future::pending::<Infallible>().await
        };
        let (report, begun) = tokio::select! {
            // What has ended counts before the wish that it end.
            biased;
            lived = async { tokio::join!(engine.run(), begin) } => lived,
            never = stopped => match never {},
        };
        // What is held of a service that has ended would hold its connections too.
        self.present.send_modify(|present| {
            (present.ready, present.cluster, present.gateway, present.store) = (false, None, None, None);
        });
        begun.map_err(|error| Error::Start(self.name.clone(), error_chain(&error)))?;
        Ok(report)
    }

    fn is_ready(&self, life: u64, lifecycle: &Lifecycle) {
        if !lifecycle.stopping().is_cancelled() {
            self.present.send_modify(|present| present.ready = true);
            self.events.send(Event::Ready { name: self.name.clone(), life }).ok(); // nobody may be looking
        }
    }

    /// Binds, starts, and waits until it is ready or stops.
    async fn begin(&self, lifecycle: &Lifecycle) -> Result<(), StartError> {
        match self.config.clone() {
            ServiceConfig::Gateway(config) => self.begin_gateway(*config, lifecycle).await,
            ServiceConfig::Logic(config) => self.begin_logic(*config, lifecycle).await,
            ServiceConfig::Task(config) => self.begin_task(*config, lifecycle).await,
        }
    }

    async fn begin_gateway(
        &self,
        config: sluice_gateway::config::Config,
        lifecycle: &Lifecycle,
    ) -> Result<(), StartError> {
        let app = sluice_gateway::app::App::build(config, lifecycle.clone()).await?;
        let app = app.identified(self.embedded.identities.gateway.clone());
        let deps = self.embedded.gateway(lifecycle, app.registration());
        let cluster = Arc::clone(&deps.cluster);
        let gateway = app.serve(deps).await?;
        let seen = Arc::clone(&gateway);
        self.present.send_modify(|present| {
            present.cluster = Some(cluster);
            present.gateway = Some(gateway);
        });
        let heard = async {
            // Ready to others only when a logic has answered: the page would show a gateway that refuses all.
            while !seen.calls.heard_lately() {
                sleep(LOOK_AGAIN).await;
            }
        };
        lifecycle.until_stopping(heard).await;
        Ok(())
    }

    async fn begin_logic(
        &self,
        config: sluice_logic::config::Config,
        lifecycle: &Lifecycle,
    ) -> Result<(), StartError> {
        let app = sluice_logic::app::App::build(config, lifecycle.clone()).await?;
        let app = app.identified(self.embedded.identities.logic.clone());
        let deps = self.embedded.logic(lifecycle, app.registration());
        self.is_member(&deps.cluster);
        let store = app.serve(deps).await?;
        self.present.send_modify(|present| present.store = Some(store));
        Ok(())
    }

    async fn begin_task(
        &self,
        config: sluice_task::config::Config,
        lifecycle: &Lifecycle,
    ) -> Result<(), StartError> {
        let app = sluice_task::app::App::build(config, lifecycle.clone()).await?;
        let app = app.identified(self.embedded.identities.task.clone());
        let deps = self.embedded.task(lifecycle, app.registration());
        self.is_member(&deps.cluster);
        app.serve(deps);
        Ok(())
    }

    fn is_member(&self, cluster: &Arc<dyn Cluster>) {
        let cluster = Some(Arc::clone(cluster));
        self.present.send_modify(|present| present.cluster = cluster);
    }

    /// Whether it can do its work now.
    ///
    /// # Errors
    /// Why not: of a logic, what its store says.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let present = self.present.borrow();
        if !present.ready {
            return Err(format!("{} is not ready", self.name));
        }
        present.store.as_ref().map_or(Ok(()), Probe::store)
    }

    /// Longest restart: all that its stop may take as it is configured, and a start.
    pub(crate) fn restart_within(&self) -> Duration {
        self.config.plan().total + START_WITHIN
    }

    /// Says to all that it will not stay, before it begins to stop.
    pub(crate) async fn leaves(&self) {
        let cluster = self.present.borrow().cluster.clone();
        if let Some(cluster) = cluster {
            cluster.set_state(InstanceState::Draining).await;
        }
    }

    pub(crate) fn ws(&self) -> Option<String> {
        self.at.clients.map(|address| format!("ws://{address}/ws"))
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.at.admin)
    }

    pub(crate) fn http(&self) -> Option<String> {
        self.at.api.map(|address| format!("http://{address}"))
    }

    /// For the page: who it is, and where it stands now.
    pub(crate) fn to_json(&self) -> Value {
        let present = self.present.borrow().clone();
        let progress = present.lifecycle.as_ref().map(|lifecycle| lifecycle.progress().borrow().clone());
        let instance = present.cluster.as_ref().map(|cluster| cluster.me().borrow().to_string());
        let connections =
            present.gateway.as_ref().map(|gateway| gateway.stats.connections.load(Ordering::Relaxed));
        json!({
            "name": self.name,
            "service": self.service().as_str(),
            "life": present.life,
            "ready": self.ready().is_ok() && progress.as_ref().is_some_and(|progress| progress.is_ready()),
            "stage": progress.as_ref().map(|progress| progress.stage.as_str()),
            "state": progress.as_ref().map(|progress| progress.state().as_str()),
            "instance": instance,
            "connections": connections,
            // For whoever asks for a restart: how long to wait for the answer.
            "restart_within_ms": u64::try_from(self.restart_within().as_millis()).unwrap_or(u64::MAX),
            "ws": self.ws(),
            "admin": self.admin_url(),
        })
    }
}
