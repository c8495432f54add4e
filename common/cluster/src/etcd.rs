//! The cluster on etcd: `/<prefix>/instances/{service}/{id}` and `/<prefix>/duties/{duty}`, both under the
//! lease of whom they name.
//!
//! etcd may be away from the start, for any time, or come back empty. Nothing here treats one of its keys as
//! a lock.

mod duties;
mod lease;
mod registry;
mod watching;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::registry::Registry;
pub use self::registry::RegistryError;
use crate::known::Known;
use crate::{Cluster, Duty, DutyInfo, Instance, Registration, Service, State, View};

/// Longest part of a call that waits for etcd.
const CALL: Duration = Duration::from_millis(500);
/// etcd grants no shorter lease.
const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// Where etcd is and what is ours in it.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `http://host:port`, one or more.
    pub endpoints: Vec<String>,
    /// Begins all keys, so that two deployments can share a server.
    pub prefix: String,
    /// How long a process that stopped renewing stays listed; at least 2 s.
    pub lease_ttl: Duration,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "sluice".into(),
            lease_ttl: Duration::from_secs(10),
        }
    }
}

/// [`Cluster`] on etcd.
pub struct EtcdCluster(Arc<Shared>);

struct Shared {
    registry: Registry,
    registration: Registration,
    host: String,
    started_ms: i64,
    ttl: Duration,
    known: Mutex<Known>,
    view: watch::Sender<Arc<View>>,
    me: watch::Sender<InstanceId>,
    owned: watch::Sender<BTreeSet<Duty>>,
    /// The lease in force, and what was written under it.
    lease: watch::Sender<Option<i64>>,
    state: watch::Sender<State>,
    written: watch::Sender<Option<State>>,
    /// Wakes the lease: this process ought to be listed and is not.
    doubt: Notify,
    /// Wakes the duties: something was learned.
    learned: Notify,
    /// Cancelled by the scope's stage or by a close.
    closed: CancellationToken,
}

impl EtcdCluster {
    /// Registers this process and follows the others, in tasks of the scope; returns at once, also when etcd
    /// is away. `logic_seeds` are addresses (`host:port`) that stand for logic instances until some register
    /// with them. `candidates` are the duties that this process is willing to do.
    ///
    /// # Errors
    /// An endpoint that is no URL.
    pub async fn start(
        scope: &Scope,
        config: EtcdConfig,
        registration: Registration,
        logic_seeds: &[String],
        candidates: BTreeSet<Duty>,
    ) -> Result<Self, RegistryError> {
        let registry = Registry::open(&config.endpoints, &config.prefix).await?;
        let ttl = config.lease_ttl.max(LEASE_TTL_MIN);
        let host = host();
        let me = InstanceId::fresh(registration.service.as_str(), &host);
        let seeds = logic_seeds.iter().filter_map(|address| seed(address)).collect();
        let known = Known::new(ttl, me.clone(), seeds, candidates, Instant::now());
        let shared = Arc::new(Shared {
            registry,
            registration,
            host,
            started_ms: now_ms(),
            ttl,
            view: watch::Sender::new(Arc::new(known.view(Instant::now()))),
            known: Mutex::new(known),
            me: watch::Sender::new(me),
            owned: watch::Sender::default(),
            lease: watch::Sender::new(None),
            state: watch::Sender::new(State::Serving),
            written: watch::Sender::new(None),
            doubt: Notify::new(),
            learned: Notify::new(),
            closed: scope.token().child_token(),
        });
        let tokens = || (shared.closed.clone(), scope.token());
        scope.spawn("cluster-lease", until(tokens(), lease::hold(Arc::clone(&shared))));
        scope.spawn("cluster-watch", until(tokens(), watching::follow(Arc::clone(&shared))));
        scope.spawn("cluster-duties", until(tokens(), duties::keep(Arc::clone(&shared))));
        Ok(Self(shared))
    }
}

/// Runs a task until the close, then waits for the stage it dies in: to end earlier would be a failure.
async fn until(
    (closed, stage): (CancellationToken, CancellationToken),
    task: impl Future<Output = ()> + Send,
) {
    tokio::select! {
        biased;
        () = closed.cancelled() => {}
        () = task => {}
    }
    stage.cancelled().await;
}

impl Shared {
    fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is known and tells everybody whom it concerns.
    fn learn(&self, change: impl FnOnce(&mut Known, Instant)) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known, now);
        known.tick(now);
        let (me, view, owned) = (known.me().clone(), known.view(now), known.owned(now));
        set(&self.me, me);
        self.view.send_if_modified(|last| {
            let changed = **last != view;
            if changed {
                *last = Arc::new(view);
            }
            changed
        });
        set(&self.owned, owned);
        drop(known);
        self.learned.notify_one();
    }

    /// This process as others are to see it.
    fn instance(&self, id: InstanceId, state: State) -> Instance {
        let Registration { service, address, url, version } = self.registration.clone();
        Instance { id, service, address, url, version, started_ms: self.started_ms, state, headroom: None }
    }
}

fn set<T: PartialEq>(place: &watch::Sender<T>, value: T) {
    place.send_if_modified(|last| {
        let changed = *last != value;
        if changed {
            *last = value;
        }
        changed
    });
}

#[async_trait]
impl Cluster for EtcdCluster {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    fn me(&self) -> watch::Receiver<InstanceId> {
        self.0.me.subscribe()
    }

    async fn set_state(&self, state: State) {
        self.0.state.send_replace(state);
        let mut written = self.0.written.subscribe();
        if timeout(CALL, written.wait_for(|last| *last == Some(state))).await.is_err() {
            tracing::warn!(?state, "etcd did not take the state in time.");
        }
    }

    fn gone(&self) -> Vec<InstanceId> {
        self.0.look(Known::gone)
    }

    fn owned(&self) -> watch::Receiver<BTreeSet<Duty>> {
        self.0.owned.subscribe()
    }

    fn duties(&self) -> Vec<DutyInfo> {
        let now = Instant::now();
        self.0.look(|known| known.duties(now))
    }

    async fn release_duties(&self) {
        self.0.learn(|known, _| known.release());
        let steps = self.0.look(|known| known.steps(Instant::now()));
        let release = futures::future::join_all(steps.into_iter().map(|step| duties::take(&self.0, step)));
        // Draining, or the others would wait for this process to take its share again.
        let (released, ()) = tokio::join!(timeout(CALL, release), self.set_state(State::Draining));
        if released.is_err() {
            tracing::warn!("etcd did not take the duties back in time; they end with the lease.");
        }
    }

    async fn close(&self) {
        self.0.learn(|known, _| known.release());
        self.0.closed.cancel();
        let Some(lease) = self.0.lease.send_replace(None) else { return };
        match timeout(CALL, self.0.registry.revoke(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "The lease could not be given back and will expire."),
            Err(_) => tracing::warn!("etcd did not take the lease back in time; it will expire."),
        }
    }
}

/// Stands for a logic instance at a configured address.
fn seed(address: &str) -> Option<Instance> {
    let id = InstanceId::parse(&format!("seed-{address}")).ok()?;
    let (address, version) = (address.to_owned(), String::new());
    let (service, state) = (Service::Logic, State::Serving);
    Some(Instance { id, service, address, url: None, version, started_ms: 0, state, headroom: None })
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = name.trim().split('.').next().unwrap_or_default();
    if short.is_empty() { "host".into() } else { short.into() }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
