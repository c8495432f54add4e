//! Puts task together: `build` binds its socket, `serve` starts everything and registers what the stop has to
//! do. Holds no rule of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};
use sluice_cluster::{Cluster, Duty, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_operator::{DrainSwitch, Operator};
use sluice_presence::Presence;
use sluice_proto::ids::InstanceId;
use sluice_queue::Queue;
use sluice_service::admin::AdminPages;
use sluice_service::dependency::Dependencies;
use sluice_service::grpc::channels::{Caller, Channels};
use sluice_service::grpc::peers::Peers;
use sluice_service::listen::{Bound, bind};
use sluice_service::metrics::Registry;
use sluice_service::process::{Settings as _, StartError};
use sluice_service::telemetry;
use sluice_service::tls::expiry::look_after;
use sluice_service::tls::{Identity, Role};
use sluice_trace::Tracer;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Config;
use crate::defaults::{CLOSE_WITHIN, STAY_MARGIN};
use crate::duties::{self, Duties};
use crate::fanout::FanOut;
use crate::metrics::Metrics;
use crate::outlet::Outlets;
use crate::{consumer, last};

/// What task stands on: the real parts, or in-process ones.
pub struct Deps {
    /// The fan-out queue.
    pub queue: Arc<dyn Queue>,
    /// Interest: which gateway wants which room.
    pub presence: Arc<dyn Presence>,
    /// Who is there, and who owns which duty.
    pub cluster: Arc<dyn Cluster>,
}

/// A task whose socket is bound; nothing is accepted yet.
pub struct App {
    config: Config,
    lifecycle: Lifecycle,
    admin: Bound,
    /// Of the admin pages.
    token: Option<Arc<str>>,
    identity: Option<Identity>,
}

impl App {
    /// Binds the socket.
    ///
    /// # Errors
    /// Files of `[tls]` that are of no use, an address that is taken or not ours; named in the text.
    pub async fn build(config: Config, lifecycle: Lifecycle) -> Result<Self, StartError> {
        let identity = Identity::load(&config.tls, Role::Task)?;
        let token = config.admin.token().map_err(|why| StartError::Contradictions(vec![why]))?;
        let admin = bind(config.admin.listen.as_str()).await?;
        Ok(Self { config, lifecycle, admin, token, identity })
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

    /// What the others are told. Nobody calls a task: its address is that of its admin page.
    #[must_use]
    pub fn registration(&self) -> Registration {
        Registration {
            service: Service::Task,
            address: self.admin.address().to_string(),
            url: None,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The line on stdout that says where everything is.
    #[must_use]
    pub fn announcement(&self, instance: &InstanceId) -> Value {
        json!({
            "service": "task",
            "instance": instance.as_str(),
            "admin": format!("http://{}", self.admin.address()),
            "pid": std::process::id(),
        })
    }

    /// Starts everything; nothing has to be up for that. Until NATS is, `/readyz` says so.
    pub fn serve(self, deps: Deps) {
        let Self { config, lifecycle, admin, token, identity } = self;
        let registry = Registry::new("task");
        telemetry::carry_instance(deps.cluster.me(), &lifecycle.scope(Stage::Gone));
        let metrics = Metrics::register(&registry);
        let released = lifecycle.scope(Stage::Release);
        // Behind the drain, which has the last of what is traced.
        let tracer =
            Tracer::start(&config.trace, ("task", deps.cluster.me().borrow().as_str()), &released, &registry);
        look_after(identity.clone(), &registry, &released);
        let (caller, peers) = (Caller::new(deps.cluster.me()).identified(identity), Peers::new());
        let scope = lifecycle.scope(Stage::Flush);
        let outlets =
            Outlets::new(scope, caller.clone(), peers.clone(), metrics.clone(), &config.gateway.seeds);
        let running = Running { config, lifecycle, deps, metrics, caller, peers, outlets, tracer };
        let cluster = Arc::clone(&running.deps.cluster);
        let operator = Operator::new(running.lifecycle.clone(), cluster, &registry);
        let mut pages = running.pages(registry, &operator);
        pages.token = token;
        operator.describe(&mut pages);
        running.watch(&pages.dependencies);
        pages.serve_with(operator.routes(), admin, &running.lifecycle.scope(Stage::Gone));
        // Before the first task starts: a stop during start-up gives everything back.
        running.on_stop();
        running.fan_out(operator.drain().clone());
        running.duties();
        running.follow_operator(&operator);
        running.lifecycle.ready();
    }
}

/// Everything, once the socket is bound.
struct Running {
    config: Config,
    lifecycle: Lifecycle,
    deps: Deps,
    metrics: Metrics,
    caller: Caller,
    peers: Peers,
    outlets: Outlets,
    tracer: Tracer,
}

impl Running {
    fn pages(&self, registry: Registry, operator: &Operator) -> AdminPages {
        let mut admin = AdminPages::new("task", self.lifecycle.clone(), registry);
        admin.warnings = self.config.warnings();
        let Deps { cluster, queue, .. } = &self.deps;
        let (me, drain) = (cluster.me(), operator.drain().clone());
        admin.instance = Arc::new(move || me.borrow().to_string());
        let (nats, outlets) = (Arc::clone(queue), self.outlets.clone());
        admin.missed = Arc::new(self.missed());
        admin.ready = Arc::new(move || {
            drain.ready()?;
            if !nats.connected() {
                return Err("NATS is not connected".into());
            }
            if !outlets.is_known() {
                return Err("etcd was not reached yet and there are no gateway.seeds".into());
            }
            Ok(())
        });
        let (nats, outlets, view, owned) =
            (Arc::clone(queue), self.outlets.clone(), cluster.view(), cluster.owned());
        let metrics = self.metrics.clone();
        admin.status = Arc::new(move || {
            json!({
                "nats": if nats.connected() { "connected" } else { "away" },
                "etcd": if view.borrow().sees_me { "registered" } else { "away" },
                "logics": view.borrow().of(Service::Logic).count(),
                "notices": metrics.notices.get(),
                "notices_in_flight": metrics.notices_in_flight.get(),
                "outlets": outlets.status(),
                "lagging": outlets.lagging(),
                "duties": owned.borrow().iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        admin
    }

    /// What task depends on, and what suffers without.
    fn watch(&self, dependencies: &Dependencies) {
        let Deps { queue, presence, cluster } = &self.deps;
        dependencies.add_part(
            "nats",
            "nothing is carried: messages reach other gateways late, by a look at the store once a second",
            queue,
            |queue| async move { queue.probe().await },
        );
        dependencies.add_part(
            "redis",
            "nobody says who wants what: every gateway gets every message",
            presence,
            |presence| async move { presence.probe().await },
        );
        dependencies.add_part(
            "etcd",
            "gateways that start now get nothing pushed, and duties do not change hands",
            cluster,
            |cluster| std::future::ready(cluster.health()),
        );
        let (view, prefix) = (self.deps.cluster.view(), self.config.prefix.clone());
        dependencies.add(
            "logic",
            "delayed messages wait, lost notices are not announced again and gone instances are not removed",
            move || {
                let none = view.borrow().of(Service::Logic).next().is_none();
                std::future::ready(if none {
                    Err(format!(
                        "no logic is registered under the prefix {prefix:?}, which has to be the same in every service"
                    ))
                } else {
                    Ok(())
                })
            },
        );
        dependencies.start(&self.lifecycle);
    }

    /// What a kill would do: NATS hands notices in hand to another task, which takes 2 s.
    fn missed(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let (metrics, outlets) = (self.metrics.clone(), self.outlets.clone());
        let (view, me) = (self.deps.cluster.view(), self.deps.cluster.me());
        move || {
            let (view, me) = (view.borrow(), me.borrow());
            let others =
                view.others(Service::Task, &me).filter(|one| one.state == InstanceState::Serving).count();
            match (outlets.living().len(), metrics.notices_in_flight.get(), others) {
                (0, ..) | (_, 0, 1..) => Ok(()),
                (_, 0, 0) => Err("leave gateways without a task: messages between them come late".to_owned()),
                (_, notices, _) => Err(format!("make the messages of {notices} notices come 2 s late")),
            }
        }
    }

    /// Queue → interest → outlets. Each part outlives the one before it.
    fn fan_out(&self, drain: DrainSwitch) {
        let Deps { queue, presence, cluster } = &self.deps;
        let flush = self.lifecycle.scope(Stage::Flush);
        flush.spawn("outlets", self.outlets.clone().follow(cluster.view()));
        let metrics = self.metrics.clone();
        let fanout = FanOut::start(&flush, Arc::clone(presence), self.outlets.clone(), metrics.clone());
        let fanout = fanout.traced(self.tracer.clone());
        let finish = self.lifecycle.scope(Stage::Notify).token();
        let (queue, outlets) = (Arc::clone(queue), self.outlets.clone());
        self.lifecycle.scope(Stage::Drain).spawn("consumer", async move {
            // Who knows no gateway would take notices away from those who do.
            match finish.run_until_cancelled(outlets.known()).await {
                // A stop during the wait takes no notice at all.
                Some(()) => consumer::run(queue, fanout, metrics, (drain, finish)).await,
                None => Ok(()),
            }
        });
    }

    /// The first to stop.
    fn duties(&self) {
        let scope = self.lifecycle.scope(Stage::NotReady);
        let Deps { presence, cluster, .. } = &self.deps;
        let targets = watch::Sender::new(duties::logics(&cluster.view().borrow()));
        let logics = Channels::new(targets.subscribe(), Role::Logic, self.caller.clone());
        scope.spawn("logics", duties::follow_logics(cluster.view(), targets, scope.token()));
        let duties = Arc::new(Duties {
            cluster: Arc::clone(cluster),
            logics,
            presence: Arc::clone(presence),
            outlets: self.outlets.clone(),
            lease_ttl: self.config.etcd.lease_ttl(),
            metrics: self.metrics.clone(),
        });
        scope.spawn("sweep", Arc::clone(&duties).sweep(scope.token()));
        for part in 0..Duty::DUE_PARTS {
            scope.spawn("fire-due", Arc::clone(&duties).fire(part, scope.token()));
        }
        scope.spawn("leaves", Arc::clone(&duties).tell_leaves(scope.token()));
        scope.spawn("reap", duties.reap(scope.token()));
    }

    /// A task that an operator drains fetches nothing more and has given its duties back.
    fn follow_operator(&self, operator: &Operator) {
        let cluster = Arc::clone(&self.deps.cluster);
        let scope = self.lifecycle.scope(Stage::NotReady);
        let (wish, stop) = (operator.drain().clone(), scope.token());
        scope.spawn("standby", async move {
            wish.follow(stop, || cluster.release_duties(), || cluster.resume_duties()).await;
            // The stop may have cut a way back that had said the opposite; noted at once, and not waited for.
            cluster.release_duties().now_or_never();
        });
        operator.follow();
    }

    fn on_stop(&self) {
        let Deps { cluster, queue, presence } = &self.deps;
        let (caller, peers, leaving) = (self.caller.clone(), self.peers.clone(), Arc::clone(cluster));
        let longest =
            Duration::from_millis(self.config.shutdown.stages.not_ready_ms).saturating_sub(STAY_MARGIN);
        self.lifecycle.hook(Stage::NotReady, "draining", move || async move {
            // First, as it costs nothing: every call from here on says so.
            caller.drains();
            let stay = last::stay(&peers, leaving.view(), leaving.me(), longest);
            // Says `draining` too. Nobody reads it while the registry does not list us: then it is only noted.
            // A registry that does not list us has nothing to change.
            let within = if leaving.view().borrow().sees_me { CLOSE_WITHIN } else { Duration::ZERO };
            // Beside each other: duties are given back while the last task stays.
            let (_, ()) = tokio::join!(timeout(within, leaving.release_duties()), stay);
            Ok(())
        });
        self.lifecycle.release("lease", CLOSE_WITHIN, Arc::clone(cluster), |cluster| async move {
            cluster.close().await
        });
        self.lifecycle
            .release("nats", CLOSE_WITHIN, Arc::clone(queue), |queue| async move { queue.close().await });
        self.lifecycle.release("redis", CLOSE_WITHIN, Arc::clone(presence), |presence| async move {
            presence.close().await
        });
        let (metrics, progress) = (self.metrics.clone(), self.lifecycle.progress());
        // Behind the drain nobody holds what it left: NATS hands it to another task.
        self.lifecycle.report_work(move || metrics.work(progress.borrow().stage > Stage::Drain));
    }
}
