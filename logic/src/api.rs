//! The API for backends: publish, look, schedule, disconnect. One service for all its faces: [`http`] speaks HTTP and JSON, `grpc`
//! the same calls on the same port.
//!
//! What it stores goes the way of gateways' publishes, by the same lanes, groups and keys. Whatever a key can make this
//! process do is counted for that key before it is begun, and above its bound it waits or is told to come again.

mod caller;
pub mod calls;
pub mod counts;
pub mod export;
mod grpc;
pub mod http;
pub mod keys;
pub mod look;
pub mod openapi;
pub mod problem;
pub mod refusals;
pub mod send;
mod status;
pub mod types;
pub mod users;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sluice_access::ApiKeyEntry;
use sluice_cluster::{Cluster, ClusterView};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_proto::ids::InstanceId;
use sluice_proto::limits::LANES;
use sluice_service::clock::Clock;
use sluice_service::http::{ENDING, HttpServer};
use sluice_service::listen::Bound;
use sluice_trace::Tracer;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::counts::Counts;
use self::keys::Keys;
use self::problem::{Code, Problem};
use crate::config::Config;
use crate::defaults::{API_BULK_MAX, API_CALLS_MAX, API_EXPORTS_MAX, API_LANE_ITEMS_MAX, API_READS_MAX};
use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::rpc::Core;

/// What calls of the API stand on.
pub struct Api {
    /// Empty until the store was reached.
    core: Arc<OnceLock<Core>>,
    probe: Probe,
    clock: Clock,
    lifecycle: Lifecycle,
    view: watch::Receiver<Arc<ClusterView>>,
    me: watch::Receiver<InstanceId>,
    /// Who may call.
    pub keys: Keys,
    /// What became of calls.
    pub counts: Counts,
    /// Cancelled when nothing new is taken any more.
    refuse: CancellationToken,
    /// Cancelled when calls have had their time.
    give_up: CancellationToken,
    /// Messages that one key has scheduled and that wait; 0 = any number.
    scheduled_max: u32,
    /// Items under way, by lane.
    lanes: Vec<Semaphore>,
    reads: Semaphore,
    exports: Arc<Semaphore>,
    calls: Semaphore,
    bulk: Arc<Semaphore>,
    tracer: Tracer,
}

/// What an API is made of, besides its keys.
pub struct Parts {
    /// Answers once the store was reached.
    pub core: Arc<OnceLock<Core>>,
    /// Says why there is no core yet.
    pub probe: Probe,
    /// When keys expire.
    pub clock: Clock,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
    /// Who else is there.
    pub cluster: Arc<dyn Cluster>,
    /// Counts calls.
    pub metrics: Metrics,
    /// Begins traces.
    pub tracer: Tracer,
}

impl Api {
    /// Serves it, until its stage of a stop. In stage notify it begins to refuse what is new; what was accepted before is
    /// answered in stage drain, or told that it may or may not be done.
    pub fn start(parts: Parts, config: &Config, entries: Vec<ApiKeyEntry>, bound: Bound) -> Arc<Self> {
        let (calls, give_up) = (TaskTracker::new(), CancellationToken::new());
        let Parts { core, probe, clock, lifecycle, cluster, metrics, tracer } = parts;
        let api = Arc::new(Self {
            core,
            probe,
            clock,
            view: cluster.view(),
            me: cluster.me(),
            keys: Keys::new(entries, config.api.calls_per_s),
            counts: Counts::new(metrics, calls.clone()),
            refuse: lifecycle.scope(Stage::Notify).token(),
            give_up: give_up.clone(),
            scheduled_max: config.api.scheduled_per_key,
            lanes: (0..LANES).map(|_| Semaphore::new(API_LANE_ITEMS_MAX)).collect(),
            reads: Semaphore::new(API_READS_MAX),
            exports: Arc::new(Semaphore::new(API_EXPORTS_MAX)),
            calls: Semaphore::new(API_CALLS_MAX),
            bulk: Arc::new(Semaphore::new(API_BULK_MAX)),
            tracer,
            lifecycle: lifecycle.clone(),
        });
        let scope = lifecycle.scope(Stage::Drain);
        scope.spawn("api-keys", api.keys.clone().follow(config.api.keys_file.clone().into(), scope.token()));
        let grace = Duration::from_millis(config.shutdown.stages.drain_ms).saturating_sub(ENDING);
        let router = http::router(Arc::clone(&api), &openapi::OPENAPI);
        HttpServer { router, calls, give_up, grace }.serve(bound, &scope);
        api
    }

    fn core(&self) -> Result<&Core, Problem> {
        self.core.get().ok_or_else(|| {
            let reason = self.probe.store().err().unwrap_or_default();
            self.says_where_it_stands(Problem::new(Code::NotSent, format!("logic is starting: {reason}")))
        })
    }

    /// Whether new calls are taken.
    ///
    /// # Errors
    /// The problem, with state and stage.
    pub fn admits(&self) -> Result<(), Problem> {
        if !self.refuse.is_cancelled() {
            return Ok(());
        }
        let detail =
            "this process stops, and nothing was done: send it again, at once to another one or in a second";
        Err(self.says_where_it_stands(Problem::new(Code::NotSent, detail)))
    }

    fn says_where_it_stands(&self, mut problem: Problem) -> Problem {
        let stage = self.lifecycle.stage();
        problem.more.insert("state".into(), stage.state().as_str().into());
        problem.more.insert("stage".into(), stage.as_str().into());
        problem
    }
}
