//! Puts a gateway together: `build` binds its sockets, `serve` starts everything on them and registers what
//! the stop has to do. Holds no rule of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_cluster::{Cluster, ClusterView, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_operator::Operator;
use sluice_proto::ids::InstanceId;
use sluice_service::admin::AdminPages;
use sluice_service::clock::Clock;
use sluice_service::clock::skew::Clocks;
use sluice_service::dependency::Dependencies;
use sluice_service::grpc::access::Access;
use sluice_service::grpc::channels::{Caller, Channels, Target};
use sluice_service::grpc::health::Health;
use sluice_service::grpc::peers::Peers;
use sluice_service::grpc::server::GrpcServer;
use sluice_service::listen::{Bound, bind, bind_bounded};
use sluice_service::metrics::Registry;
use sluice_service::process::{Settings as _, StartError};
use sluice_service::telemetry;
use sluice_service::tls::expiry::look_after;
use sluice_service::tls::{Identity, Role};
use sluice_trace::Tracer;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::service::Routes;

use crate::agent_check;
use crate::calls::Calls;
use crate::config::Config;
use crate::defaults::{
    ANSWER_AGAIN, ANSWER_WITHIN, CLOSE_CLUSTER_WITHIN, FLUSH_MARGIN, PUSH_STREAMS_MAX, RECEIVE_BUFFER_BYTES,
    REPORTER_QUEUE_MAX, TICKET_CALLS_MAX,
};
use crate::disconnect::{Disconnects, untold};
use crate::drain::DrainHooks;
use crate::drain::standby::Standby;
use crate::handshake::{Names, Proxies};
use crate::headroom;
use crate::limits::Usages;
use crate::listener;
use crate::metrics::{Metrics, Stats};
use crate::push::{self, Push};
use crate::pushers::Pushers;
use crate::refusals::{self, Refusals};
use crate::repair::Missed;
use crate::revocations::RevokedTokens;
use crate::shard::handle::Shards;
use crate::shard::runtime::{self, Start};
use crate::shard::shared::{Shared, UpgradeGate};
use crate::status::Report;
use crate::status::reporter::{FlushLimit, Reporter};

/// What a gateway stands on: the real registry, or an in-process one.
pub struct Deps {
    /// The registry of instances.
    pub cluster: Arc<dyn Cluster>,
    /// The wall clock.
    pub clock: Clock,
}

/// A gateway whose sockets are bound; nothing is accepted yet.
pub struct App {
    config: Config,
    lifecycle: Lifecycle,
    admin: Bound,
    /// Of the admin pages.
    token: Option<Arc<str>>,
    agent: Option<Bound>,
    grpc: Bound,
    clients: Bound,
    identity: Option<Identity>,
}

impl App {
    /// Binds the sockets.
    ///
    /// # Errors
    /// Files of `[tls]` that are of no use, an address that is taken or not ours; named in the text.
    pub async fn build(config: Config, lifecycle: Lifecycle) -> Result<Self, StartError> {
        let identity = Identity::load(&config.tls, Role::Gateway)?;
        let token = config.admin.token().map_err(|why| StartError::Contradictions(vec![why]))?;
        let admin = bind(config.admin.listen.as_str()).await?;
        let agent =
            config.agent.address().map_err(|error| StartError::Contradictions(vec![error.to_string()]))?;
        let agent = match agent {
            Some(address) => Some(bind(address.as_str()).await?),
            None => None,
        };
        let grpc = bind(config.grpc.listen.as_str()).await?;
        // Last: from here on the kernel lets clients in, and a start that fails now would drop them.
        let clients = bind_bounded(config.listen.as_str(), RECEIVE_BUFFER_BYTES).await?;
        Ok(Self { config, lifecycle, admin, token, agent, grpc, clients, identity })
    }

    /// With this identity, which no file has, in the place of what the configuration names.
    #[must_use]
    pub fn identified(self, identity: Option<Identity>) -> Self {
        Self { identity: identity.or(self.identity), ..self }
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.clients.address()
    }

    /// Where the admin page listens.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Where balancers are told the weight, if anywhere.
    #[must_use]
    pub fn agent_address(&self) -> Option<SocketAddr> {
        self.agent.as_ref().map(Bound::address)
    }

    /// The URL clients use.
    #[must_use]
    pub fn url(&self) -> String {
        match self.config.advertise.as_str() {
            "" => format!("ws://{}/ws", self.clients.address()),
            advertised => advertised.to_owned(),
        }
    }

    /// What the others are told.
    #[must_use]
    pub fn registration(&self) -> Registration {
        let address = match self.config.grpc.advertise.as_str() {
            "" => self.grpc.address().to_string(),
            advertised => advertised.to_owned(),
        };
        Registration {
            service: Service::Gateway,
            address,
            url: Some(self.url()),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The line on stdout that says where everything is.
    #[must_use]
    pub fn announcement(&self, instance: &InstanceId) -> Value {
        json!({
            "service": "gateway",
            "instance": instance.as_str(),
            "ws": self.url(),
            "grpc": self.registration().address,
            "admin": format!("http://{}", self.admin.address()),
            "pid": std::process::id(),
        })
    }

    /// Starts everything. Returns at once: `/readyz` says 200 as soon as a logic answers. Gives what the
    /// shards share, for whoever wants to look at it.
    ///
    /// # Errors
    /// [`StartError::System`] when the system refuses a thread.
    pub async fn serve(self, deps: Deps) -> Result<Arc<Shared>, StartError> {
        let Self { config, lifecycle, admin, token, agent, grpc, clients, identity } = self;
        let registry = Registry::new("gateway");
        // Until the very end: the last lines of a stop name their instance too.
        telemetry::carry_instance(deps.cluster.me(), &lifecycle.scope(Stage::Gone));
        let me = deps.cluster.me();
        let caller = Caller::new(me.clone()).identified(identity.clone());
        let targets = targets(&lifecycle, &*deps.cluster);
        let names = Names::read(&config.origins, &config.hosts).map_err(StartError::Contradictions)?;
        let proxies = Proxies::read(&config.trusted_proxies).map_err(StartError::Contradictions)?;
        let released = lifecycle.scope(Stage::Release);
        let shared = Arc::new(Shared {
            tracer: Tracer::start(&config.trace, ("gateway", me.borrow().as_str()), &released, &registry),
            usages: Usages::new(&config.limits),
            names,
            proxies,
            refusals: Arc::new(Refusals::default()),
            pushers: Pushers::default(),
            revoked: RevokedTokens::default(),
            ticket_calls: Semaphore::new(TICKET_CALLS_MAX),
            calls: Calls::new(Channels::new(targets, Role::Logic, caller.clone()), me.clone())
                .comparing(deps.clock.clone(), Clocks::new(&registry, config.not_after())),
            stats: Stats::default(),
            metrics: Metrics::new(&registry).with_connections_max(config.connections_max),
            config,
            clock: deps.clock.clone(),
            upgrades: UpgradeGate::default(),
        });
        look_after(identity.clone(), &registry, &released);
        let operator = Operator::new(lifecycle.clone(), Arc::clone(&deps.cluster), &registry);
        let mut pages = pages(&lifecycle, registry, &deps, &shared, &operator);
        pages.token = token;
        operator.describe(&mut pages);
        watch(&pages.dependencies, &lifecycle, &deps, &shared);
        // First to begin and last to end: a start or a stop that hangs is looked at here.
        pages.serve_with(operator.routes(), admin, &lifecycle.scope(Stage::Gone));
        let (told, inbox) = mpsc::channel(REPORTER_QUEUE_MAX);
        let missed = watch::Sender::new(Missed::default());
        let start =
            || Start { shared: Arc::clone(&shared), reporter: told.clone(), missed: missed.subscribe() };
        let count = shared.config.shard_count();
        // Until release: drain and flush, the stages before it, are work that shards do.
        let shards = runtime::start(count, &lifecycle.scope(Stage::Release), start)?;
        let disconnects = Disconnects::new(Arc::clone(&shared), shards.clone());
        // As long as anybody is connected.
        let scope = lifecycle.scope(Stage::Flush);
        scope.spawn("revocations", untold::follow(disconnects.clone(), scope.token()));
        let running = Running { lifecycle, deps, shared, shards, me, identity, disconnects };
        running.report(inbox);
        let (health, draining) = running.serve_tasks(grpc, missed).await;
        // After the shards and the reporter: whoever comes in finds somebody to be served by.
        running.accept(clients);
        running.tell_balancers(agent);
        running.on_stop(health.clone(), draining, caller);
        running.tell_headroom();
        running.count();
        running.ask_until_answered();
        running.lifecycle.ready();
        // Last: whoever hears that this gateway serves may call in the same moment.
        health.serving().await;
        // After that, or it would take back what an operator has said first.
        running.follow_operator(&operator, health);
        Ok(running.shared)
    }
}

/// Everything, once the shards run.
struct Running {
    lifecycle: Lifecycle,
    deps: Deps,
    shared: Arc<Shared>,
    shards: Shards,
    me: watch::Receiver<InstanceId>,
    identity: Option<Identity>,
    disconnects: Disconnects,
}

impl Running {
    fn report(&self, inbox: mpsc::Receiver<Report>) {
        let scope = self.lifecycle.scope(Stage::Flush);
        // A little less than the stage, so that it ends by itself.
        let until = FlushLimit {
            flush: scope.token(),
            within: millis(self.shared.config.shutdown.stages.flush_ms).saturating_sub(FLUSH_MARGIN),
        };
        let (shared, shards) = (Arc::clone(&self.shared), self.shards.clone());
        scope.spawn("status", Reporter::new(shared, shards, inbox, self.me.clone(), until).run());
    }

    /// The gRPC server that tasks push to.
    async fn serve_tasks(&self, grpc: Bound, missed: watch::Sender<Missed>) -> (Health, watch::Sender<bool>) {
        let scope = self.lifecycle.scope(Stage::Release);
        // The scope is that of the shards: pushes go on while clients leave, or those who are still here
        // would miss what is published meanwhile.
        let (health, health_service) = Health::new().await;
        let draining = watch::Sender::new(false);
        let push = Push {
            shards: self.shards.clone(),
            me: self.me.clone(),
            draining: draining.subscribe(),
            missed,
            stop: scope.token(),
            pushers: self.shared.pushers.clone(),
            metrics: self.shared.metrics.clone(),
            streams: Arc::new(Semaphore::new(PUSH_STREAMS_MAX)),
            disconnects: self.disconnects.clone(),
        };
        let server = GrpcServer {
            routes: Routes::new(health_service).add_service(push.service()),
            health: health.clone(),
            access: Access::new(self.identity.clone(), push::may_call),
            peers: Peers::new(),
            goaway: scope.token(),
            grace: millis(self.shared.config.shutdown.stages.release_ms),
        };
        server.serve(grpc, &scope);
        (health, draining)
    }

    fn accept(&self, clients: Bound) {
        let scope = self.lifecycle.scope(Stage::Drain);
        let (shared, shards) = (Arc::clone(&self.shared), self.shards.clone());
        // Until stage drain, not notify: who comes while clients are told is answered 503, which says when
        // to come back; a closed port says nothing.
        scope.spawn("accept", listener::accept(clients, shared, shards, scope.token()));
        let refusals = Arc::clone(&self.shared.refusals);
        scope.spawn("refusals", refusals::report(refusals, scope.token()));
    }

    /// Until the stop: then `/readyz` says all there is to say.
    fn tell_balancers(&self, agent: Option<Bound>) {
        let Some(agent) = agent else { return };
        let scope = self.lifecycle.scope(Stage::NotReady);
        scope.spawn("agent", agent_check::answer(agent, Arc::clone(&self.deps.cluster), scope.token()));
    }

    fn drain_hooks(&self) -> DrainHooks {
        DrainHooks {
            lifecycle: self.lifecycle.clone(),
            shared: Arc::clone(&self.shared),
            shards: self.shards.clone(),
            cluster: Arc::clone(&self.deps.cluster),
        }
    }

    /// Until the stop, which has its own way of draining.
    fn follow_operator(&self, operator: &Operator, health: Health) {
        let scope = self.lifecycle.scope(Stage::NotReady);
        let standby = Standby { drain: self.drain_hooks(), health };
        scope.spawn("standby", standby.follow(operator.drain().clone(), scope.token()));
        operator.follow();
    }

    fn on_stop(&self, health: Health, draining: watch::Sender<bool>, caller: Caller) {
        let drains = self.drain_hooks();
        let not_ready = drains.clone();
        self.lifecycle.hook(Stage::NotReady, "draining", move || async move {
            health.not_serving().await;
            // Before the grace that follows: a logic or a task that stops at the same time looks for 0.2 s only
            // whether somebody still needs it.
            caller.drains();
            draining.send_replace(true);
            not_ready.announce_draining().await;
            Ok(())
        });
        let notify = drains.clone();
        self.lifecycle.hook(Stage::Notify, "clients-told", move || async move {
            notify.notify().await;
            Ok(())
        });
        self.lifecycle.hook(Stage::Drain, "connections", move || async move {
            drains.close().await;
            Ok(())
        });
        let cluster = Arc::clone(&self.deps.cluster);
        // At the end: without the lease others would reap what the stages before have still to report.
        self.lifecycle.release("lease", CLOSE_CLUSTER_WITHIN, cluster, |it| async move { it.close().await });
    }

    /// Others who stop close their clients no faster than there is room for them.
    fn tell_headroom(&self) {
        let scope = self.lifecycle.scope(Stage::NotReady);
        let (shared, cluster) = (Arc::clone(&self.shared), Arc::clone(&self.deps.cluster));
        scope.spawn("headroom", headroom::tell(shared, cluster, scope.token()));
    }

    /// What the lines of the stop say in numbers, also of a drain that was late.
    fn count(&self) {
        let tally = |key, read: fn(&Stats) -> u64| {
            let shared = Arc::clone(&self.shared);
            self.lifecycle.tally(Stage::Drain, key, move || read(&shared.stats));
        };
        tally("moved", |stats| stats.moved.load(Ordering::Relaxed));
        tally("closed", |stats| stats.closed.load(Ordering::Relaxed));
        tally("dropped", |stats| stats.dropped.load(Ordering::Relaxed));
        tally("publishes_unknown", Stats::unknown_at_stop);
        let shared = Arc::clone(&self.shared);
        self.lifecycle.summarize("unknown", move || shared.stats.unknown.load(Ordering::Relaxed));
        let shared = Arc::clone(&self.shared);
        self.lifecycle.report_work(move || shared.stats.work(shared.metrics.retries.get()));
    }

    /// Looks for a logic that answers, at first often; later the homes' own calls tell.
    fn ask_until_answered(&self) {
        let scope = self.lifecycle.scope(Stage::NotReady);
        let shared = Arc::clone(&self.shared);
        let stop = scope.token();
        scope.spawn("first-answer", async move {
            let asking = async {
                while !shared.calls.answers(ANSWER_WITHIN).await {
                    tokio::time::sleep(ANSWER_AGAIN).await;
                }
                tracing::info!("A logic answers.");
                // Not a return: a task that ends before its stage counts as died, and stops the process.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = asking => {}
            }
        });
    }
}

fn pages(
    lifecycle: &Lifecycle,
    registry: Registry,
    deps: &Deps,
    shared: &Arc<Shared>,
    operator: &Operator,
) -> AdminPages {
    let mut admin = AdminPages::new("gateway", lifecycle.clone(), registry);
    let me = deps.cluster.me();
    admin.instance = Arc::new(move || me.borrow().to_string());
    admin.warnings = shared.config.warnings();
    let stats = Arc::clone(shared);
    admin.status = Arc::new(move || stats.stats.to_json());
    let heard = Arc::clone(shared);
    let door = Arc::clone(shared);
    admin.accepts = Arc::new(move || !door.upgrades.is_closed());
    let clients = Arc::clone(shared);
    admin.missed = Arc::new(move || clients.stats.missed());
    // Not by etcd: the seeds suffice for a start while it is away (D9).
    let drain = operator.drain().clone();
    admin.ready = Arc::new(move || {
        drain.ready()?;
        if !heard.calls.heard_lately() {
            return Err("no logic answers".into());
        }
        heard.calls.clock_agrees()
    });
    admin
}

/// What the gateway depends on, and what suffers without.
fn watch(dependencies: &Dependencies, lifecycle: &Lifecycle, deps: &Deps, shared: &Arc<Shared>) {
    dependencies.add_part(
        "etcd",
        "logics and tasks that start now are not found, and no new task finds this gateway: messages from other \
         gateways come seconds late",
        &deps.cluster,
        |cluster| std::future::ready(cluster.health()),
    );
    let (logic, view) = (Arc::clone(shared), deps.cluster.view());
    dependencies.add(
        "logic",
        "clients wait: nothing is published, subscribed to or read, and nobody new is let in",
        move || {
            let listed = view.borrow().of(Service::Logic).count();
            std::future::ready(match (logic.calls.heard_lately(), listed) {
                (true, _) => Ok(()),
                // Nobody listed, and somebody who is silent: the first is mended in the configuration.
                (false, 0) => Err(format!(
                    "no logic is registered under the prefix {:?}, which has to be the same in every service",
                    logic.config.prefix
                )),
                (false, listed) => Err(format!("none of {listed} registered logics answers")),
            })
        },
    );
    dependencies.start(lifecycle);
}

/// The logics of the cluster as targets of calls, followed until the release.
fn targets(lifecycle: &Lifecycle, cluster: &dyn Cluster) -> watch::Receiver<Arc<Vec<Target>>> {
    let mut view = cluster.view();
    let (sender, receiver) = watch::channel(Arc::new(logics(&view.borrow_and_update())));
    // Until release: drain and flush still call logic.
    let scope = lifecycle.scope(Stage::Release);
    let stop = scope.token();
    scope.spawn("targets", async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // An `Err` disables the arm: where the registry has ended, its last view stays in force.
                Ok(()) = view.changed() => {
                    sender.send_replace(Arc::new(logics(&view.borrow_and_update())));
                }
            }
        }
    });
    receiver
}

fn logics(view: &ClusterView) -> Vec<Target> {
    view.of(Service::Logic)
        .map(|logic| Target {
            id: logic.id.clone(),
            address: logic.address.clone(),
            // Listed all the same: while all drain, a draining logic is better than none.
            draining: logic.state == InstanceState::Draining,
        })
        .collect()
}

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
