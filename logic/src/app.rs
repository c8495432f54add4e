//! Puts logic together: `build` binds its sockets, `serve` starts everything on them and registers what
//! the stop has to do. Holds no rule of its own.

mod store;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sluice_access::ApiKeyEntry;
use sluice_cluster::{Cluster, Instance, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_operator::Operator;
use sluice_presence::Presence;
use sluice_proto::ids::InstanceId;
use sluice_queue::Queue;
use sluice_service::admin::AdminPages;
use sluice_service::clock::Clock;
use sluice_service::clock::skew::Clocks;
use sluice_service::dependency::Dependencies;
use sluice_service::grpc::access::Access;
use sluice_service::grpc::health::Health;
use sluice_service::grpc::peers::Peers;
use sluice_service::grpc::server::GrpcServer;
use sluice_service::listen::{Bound, bind};
use sluice_service::metrics::Registry;
use sluice_service::process::{Settings as _, StartError};
use sluice_service::telemetry;
use sluice_service::tls::expiry::look_after;
use sluice_service::tls::{Identity, Role};
use sluice_store::{Store, StoreError};
use sluice_trace::Tracer;
use tonic::service::Routes;

use crate::api::{Api, Parts};
use crate::auth::Auth;
use crate::auth::keys::Key;
use crate::config::{ApiSettings, Config};
use crate::defaults::{CLOSE_WITHIN, STORE_CLOCK_BOUND};
use crate::disconnect;
use crate::jwks::Jwks;
use crate::jwks::source::Source;
use crate::last;
use crate::metrics::{Metrics, OutcomeLabel};
use crate::missed::{self, InHand};
use crate::notices::Notices;
use crate::presence::Alive;
use crate::probe::Probe;
use crate::publish::Publisher;
use crate::rpc::{Core, Rpc, may_call};
use crate::tickets::Tickets;

/// Opens the store; called again, with a pause, until it succeeds.
pub type OpenStore = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync>;

/// What logic stands on: the real parts, or in-process ones.
pub struct Deps {
    /// The store.
    pub store: OpenStore,
    /// The fan-out queue.
    pub queue: Arc<dyn Queue>,
    /// Interest and presence.
    pub presence: Arc<dyn Presence>,
    /// The registry of instances and duties.
    pub cluster: Arc<dyn Cluster>,
    /// The wall clock.
    pub clock: Clock,
}

/// A logic whose sockets are bound; nothing is accepted yet.
pub struct App {
    config: Config,
    lifecycle: Lifecycle,
    admin: Bound,
    /// Of the admin pages.
    token: Option<Arc<str>>,
    grpc: Bound,
    identity: Option<Identity>,
    /// Of files, and where others come from.
    keys: (Vec<Key>, Option<Source>),
    api: Option<BoundApi>,
}

/// The socket of the API, and the keys that are good at first.
struct BoundApi {
    bound: Bound,
    keys: Vec<ApiKeyEntry>,
}

impl BoundApi {
    async fn new(settings: &ApiSettings) -> Result<Option<Self>, StartError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let keys = settings.read_keys().map_err(|why| StartError::Contradictions(vec![why]))?;
        Ok(Some(Self { bound: bind(&settings.listen).await?, keys }))
    }
}

impl App {
    /// Binds the sockets.
    ///
    /// # Errors
    /// Files of `[tls]` that are of no use, an address that is taken or not ours; named in the text.
    pub async fn build(config: Config, lifecycle: Lifecycle) -> Result<Self, StartError> {
        if config.secret_is_published() {
            tracing::warn!(
                "ANYBODY CAN SIGN TOKENS: the secret is the published default. Set SLUICE_TOKEN_SECRET to the \
                 output of `openssl rand -hex 32`, the same for every logic."
            );
        }
        let identity = Identity::load(&config.tls, Role::Logic)?;
        let token = config.admin.token().map_err(|why| StartError::Contradictions(vec![why]))?;
        let keys = config.token_keys.read().map_err(StartError::Contradictions)?;
        let source = config.token_keys.source().map_err(|why| StartError::Contradictions(vec![why]))?;
        let admin = bind(config.admin.listen.as_str()).await?;
        let grpc = bind(config.grpc.listen.as_str()).await?;
        let api = BoundApi::new(&config.api).await?;
        Ok(Self { config, lifecycle, admin, token, grpc, identity, keys: (keys, source), api })
    }

    /// Where gRPC listens.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// With this identity, which no file has, in the place of what the configuration names.
    #[must_use]
    pub fn identified(self, identity: Option<Identity>) -> Self {
        Self { identity: identity.or(self.identity), ..self }
    }

    /// Where the admin page listens.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Where the HTTP API listens, if there is one.
    #[must_use]
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(|api| api.bound.address())
    }

    /// What the others are told.
    #[must_use]
    pub fn registration(&self) -> Registration {
        let advertise = &self.config.grpc.advertise;
        Registration {
            service: Service::Logic,
            address: if advertise.is_empty() { self.grpc.address().to_string() } else { advertise.clone() },
            url: None,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The line on stdout that says where everything is.
    #[must_use]
    pub fn announcement(&self, instance: &InstanceId) -> Value {
        let grpc = self.registration().address;
        let mut announcement = json!({
            "service": "logic",
            "instance": instance.as_str(),
            "grpc": grpc,
            "api": grpc,
            "admin": format!("http://{}", self.admin.address()),
            "pid": std::process::id(),
        });
        if let (Some(api), Some(announcement)) = (self.api_address(), announcement.as_object_mut()) {
            announcement.insert("http".into(), format!("http://{api}").into());
        }
        announcement
    }

    /// Starts everything and returns when it is ready, or when a stop was asked for. Until the store was
    /// reached calls are answered UNAVAILABLE, and `/readyz` says why. What is returned says whether commits are taken.
    ///
    /// # Errors
    /// [`StartError::Unusable`] when the store is there but cannot be used as it is configured.
    pub async fn serve(self, deps: Deps) -> Result<Probe, StartError> {
        let Self { config, lifecycle, admin, token, grpc, identity, keys: (keys, source), api } = self;
        let registry = Registry::new("logic");
        telemetry::carry_instance(deps.cluster.me(), &lifecycle.scope(Stage::Gone));
        let metrics = Metrics::register(&registry);
        let clocks = Clocks::new(&registry, STORE_CLOCK_BOUND);
        let probe = Probe::comparing(deps.clock.clone(), clocks);
        let (peers, core) = (Peers::new(), Arc::new(OnceLock::new()));
        let (health, health_service) = Health::new().await;
        // Whoever may still ask who somebody is finds it at work.
        let jwks = source.map(|source| Jwks::start(source, &lifecycle.scope(Stage::Flush), metrics.clone()));
        let seen = probe.clone();
        let released = lifecycle.scope(Stage::Release);
        // Behind the flush, which has the last of what is traced.
        let tracer = Tracer::start(
            &config.trace,
            ("logic", deps.cluster.me().borrow().as_str()),
            &released,
            &registry,
        );
        look_after(identity.clone(), &registry, &released);
        let running = Running {
            config,
            lifecycle,
            deps,
            metrics,
            probe,
            peers,
            core,
            health,
            identity,
            keys,
            jwks,
            tracer,
        };
        let cluster = Arc::clone(&running.deps.cluster);
        let operator = Operator::new(running.lifecycle.clone(), cluster, &registry);
        // Before anything is accepted: a stop during start-up gives everything back.
        running.on_stop();
        let api = api.map(|api| running.api(api));
        let mut pages = running.pages(registry, &operator, api);
        pages.token = token;
        operator.describe(&mut pages);
        running.watch(&pages.dependencies);
        pages.more.push(disconnect::PAGE);
        let routes = operator.routes().merge(disconnect::routes(Arc::clone(&running.core)));
        pages.serve_with(routes, admin, &running.lifecycle.scope(Stage::Gone));
        // Also one that never reaches its store is stopped from afar.
        operator.follow();
        let routes = Routes::new(health_service).add_service(running.rpc().into_server());
        running.server(routes).serve(grpc, &running.lifecycle.scope(Stage::Drain));
        // Known to the others from the start, but asked only when nobody else is there.
        // Listed while it starts, so that gateways which find nobody else try it.
        let reached = async {
            let draining = running.deps.cluster.set_state(InstanceState::Draining);
            tokio::join!(running.open_store(), draining).0
        };
        let Some(opened) = running.lifecycle.until_stopping(reached).await else { return Ok(seen) };
        let (store, revoked) = opened?;
        // Only now there is a core: until here calls are answered UNAVAILABLE.
        running.start(store, revoked);
        running.lifecycle.ready();
        // After the lifecycle is ready, so that nobody is told to come who is then refused.
        running.health.serving().await;
        running.lifecycle.until_stopping(running.deps.cluster.set_state(InstanceState::Serving)).await;
        // After that, or it would take back what an operator has said first.
        running.follow_operator(&operator);
        Ok(seen)
    }
}

/// What the summary of a stop says of publishes, beside the names that all services share: of the life of the process.
const SUMMARY: [(&str, OutcomeLabel); 3] = [
    ("stored", OutcomeLabel::Stored),
    ("duplicates", OutcomeLabel::Duplicate),
    ("unknown", OutcomeLabel::Unknown),
];

/// Everything, once the sockets are served.
struct Running {
    config: Config,
    lifecycle: Lifecycle,
    deps: Deps,
    metrics: Metrics,
    probe: Probe,
    peers: Peers,
    core: Arc<OnceLock<Core>>,
    health: Health,
    identity: Option<Identity>,
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    tracer: Tracer,
}

impl Running {
    fn rpc(&self) -> Rpc {
        let anonymous = self.config.anonymous.then(|| self.config.anonymous_grants.clone());
        let auth = Auth::new(self.config.token_secret.reveal(), anonymous)
            .accepting(&self.config.token_secrets_accepted)
            .trusting(self.keys.iter().cloned())
            .requiring(&self.config.token_claims);
        Rpc {
            core: Arc::clone(&self.core),
            auth: match &self.jwks {
                Some(jwks) => auth.following(jwks.keys()),
                None => auth,
            },
            jwks: self.jwks.clone(),
            tickets: Tickets::new(Arc::clone(&self.deps.presence)),
            probe: self.probe.clone(),
            clock: self.deps.clock.clone(),
        }
    }

    fn server(&self, routes: Routes) -> GrpcServer {
        GrpcServer {
            routes,
            health: self.health.clone(),
            access: Access::new(self.identity.clone(), may_call),
            peers: self.peers.clone(),
            goaway: self.lifecycle.scope(Stage::Notify).token(),
            grace: Duration::from_millis(self.config.shutdown.stages.drain_ms),
        }
    }

    /// Answers from now on, if only that the store was not reached yet.
    fn api(&self, api: BoundApi) -> Arc<Api> {
        let parts = Parts {
            core: Arc::clone(&self.core),
            probe: self.probe.clone(),
            clock: self.deps.clock.clone(),
            lifecycle: self.lifecycle.clone(),
            cluster: Arc::clone(&self.deps.cluster),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
        };
        Api::start(parts, &self.config, api.keys, api.bound)
    }

    fn pages(&self, registry: Registry, operator: &Operator, api: Option<Arc<Api>>) -> AdminPages {
        let mut admin = AdminPages::new("logic", self.lifecycle.clone(), registry);
        admin.warnings = self.config.warnings();
        let (me, probe, drain) = (self.deps.cluster.me(), self.probe.clone(), operator.drain().clone());
        admin.instance = Arc::new(move || me.borrow().to_string());
        admin.ready = Arc::new(move || drain.ready().and_then(|()| probe.store()));
        admin.missed = Arc::new(self.missed());
        let (core, queue) = (Arc::clone(&self.core), Arc::clone(&self.deps.queue));
        let (peers, metrics, probe) = (self.peers.clone(), self.metrics.clone(), self.probe.clone());
        let jwks = self.jwks.clone();
        admin.status = Arc::new(move || {
            json!({
                "store": probe.store().err().unwrap_or_else(|| "answers".into()),
                "epoch": format!("{:016x}", probe.epoch()),
                "nats": if queue.connected() { "connected" } else { "away" },
                "publishes": metrics.publishes().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                "token_keys": jwks.as_ref().map(Jwks::to_json),
                "calls_waiting": core.get().map_or(0, |core| core.publisher.waiting()),
                "peers": peers.to_json(),
                "api": api.as_ref().map(|api| api.counts.to_json()),
            })
        });
        admin
    }

    /// What logic depends on, and what suffers without.
    fn watch(&self, dependencies: &Dependencies) {
        let probe = self.probe.clone();
        dependencies.add(
            "postgres",
            "nothing is stored, or read where it does not answer: gateways hold publishes and try again",
            move || std::future::ready(probe.store()),
        );
        let Deps { queue, presence, cluster, .. } = &self.deps;
        dependencies.add_part(
            "nats",
            "messages reach other gateways late, by a look at the store once a second",
            queue,
            |queue| async move { queue.probe().await },
        );
        dependencies.add_part(
            "redis",
            "who is present is not known, every gateway gets every message, and no ticket is issued or taken",
            presence,
            |presence| async move { presence.probe().await },
        );
        dependencies.add_part(
            "etcd",
            "gateways and tasks that start now do not find this logic",
            cluster,
            |cluster| std::future::ready(cluster.health()),
        );
        dependencies.start(&self.lifecycle);
    }

    /// What clients would notice of a kill now.
    fn missed(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let (peers, view, me) = (self.peers.clone(), self.deps.cluster.view(), self.deps.cluster.me());
        let core = Arc::clone(&self.core);
        move || {
            let (view, me) = (view.borrow(), me.borrow());
            let serves = |one: &&Instance| one.state == InstanceState::Serving;
            missed::by_clients(InHand {
                gateways: peers.watch().borrow().values().filter(|peer| last::may_be_gateway(peer)).count(),
                publishes: core.get().map_or(0, |core| core.publisher.in_hand()),
                notices: core.get().map_or(0, |core| core.publisher.notices_in_hand()),
                others: view.others(Service::Logic, &me).filter(serves).count(),
            })
        }
    }

    /// Connected here, or seen by a registry that also sees me.
    fn alive(&self) -> Alive {
        let (peers, view) = (self.peers.clone(), self.deps.cluster.view());
        Box::new(move |instance| {
            // An open connection is better proof than the registry, which may be away or behind.
            let connected =
                peers.watch().borrow().values().any(|peer| peer.instance.as_ref() == Some(instance));
            let view = view.borrow();
            connected || (view.sees_me && view.instances.contains_key(instance))
        })
    }

    /// What a stop does whether or not the store was ever reached.
    fn on_stop(&self) {
        let (health, cluster, peers) =
            (self.health.clone(), Arc::clone(&self.deps.cluster), self.peers.clone());
        let longest = Duration::from_millis(self.config.shutdown.stages.not_ready_ms);
        self.lifecycle.hook(Stage::NotReady, "draining", move || async move {
            // First: balancers and gateways look elsewhere while this process still answers.
            health.not_serving().await;
            let stay = last::stay(&peers, cluster.view(), cluster.me(), longest);
            tokio::join!(cluster.set_state(InstanceState::Draining), stay);
            Ok(())
        });
        let Deps { cluster, queue, presence, .. } = &self.deps;
        self.lifecycle.release("lease", CLOSE_WITHIN, Arc::clone(cluster), |cluster| async move {
            cluster.close().await
        });
        self.lifecycle
            .release("nats", CLOSE_WITHIN, Arc::clone(queue), |queue| async move { queue.close().await });
        self.lifecycle.release("redis", CLOSE_WITHIN, Arc::clone(presence), |presence| async move {
            presence.close().await
        });
    }

    /// A logic that an operator drains answers as ever, and is asked only while no other one serves.
    fn follow_operator(&self, operator: &Operator) {
        let (health, cluster) = (self.health.clone(), Arc::clone(&self.deps.cluster));
        let say = move |state: InstanceState| {
            let (health, cluster) = (health.clone(), Arc::clone(&cluster));
            async move {
                match state {
                    InstanceState::Serving => health.serving().await,
                    InstanceState::Draining => health.not_serving().await,
                }
                cluster.set_state(state).await;
            }
        };
        let scope = self.lifecycle.scope(Stage::NotReady);
        let (wish, stop) = (operator.drain().clone(), scope.token());
        scope.spawn("standby", async move {
            let (out, back) = (|| say(InstanceState::Draining), || say(InstanceState::Serving));
            wish.follow(stop, out, back).await;
            // The stop may have cut a way back that had said the opposite; noted at once, and not waited for.
            say(InstanceState::Draining).now_or_never();
        });
    }

    /// Commits are through, then their notices; says how many publishes stayed unknown meanwhile, also when the store
    /// holds the last of them until the end.
    fn flush_with(&self, publisher: Arc<Publisher>, notices: Arc<Notices>) {
        let before = Arc::new(OnceLock::new());
        let (metrics, at_stop) = (self.metrics.clone(), Arc::clone(&before));
        self.lifecycle.hook(Stage::NotReady, "count", move || async move {
            at_stop.get_or_init(|| metrics.unknown());
            Ok(())
        });
        let (metrics, publishing) = (self.metrics.clone(), Arc::clone(&publisher));
        self.lifecycle.report_work(move || metrics.work(publishing.in_hand()));
        let (metrics, publishing) = (self.metrics.clone(), Arc::clone(&publisher));
        self.lifecycle.tally(Stage::Drain, "publishes_unknown", move || {
            let all = metrics.unknown();
            // Whoever waits for these hears nothing more from here.
            all - before.get().copied().unwrap_or(all) + publishing.in_hand()
        });
        self.lifecycle.hook(Stage::Flush, "hand-over", move || async move {
            // Commits first, their notices then: the order is what makes the second complete.
            publisher.close().await;
            notices.close().await;
            Ok(())
        });
        for (key, outcome) in SUMMARY {
            let metrics = self.metrics.clone();
            self.lifecycle.summarize(key, move || metrics.publish(outcome).get());
        }
    }
}
