//! The cluster on etcd: `/<prefix>/instances/{service}/{id}` and `/<prefix>/duties/{duty}`, both under the
//! lease of whom they name, and `/<prefix>/commands/{id}`, what an operator wants of that instance, for a minute.
//!
//! etcd may be away from the start, for any time, or come back empty. Nothing here treats one of its keys as
//! a lock.

mod access;
mod connection;
mod duties;
mod error;
mod lease;
mod registry;
mod watching;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::ConnectOptions;
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::access::Access;
pub use self::error::RegistryError;
use self::registry::EtcdRegistry;
use crate::known::Known;
use crate::registrant::Registrant;
use crate::shown::Shown;
use crate::{
    Cluster, ClusterCounts, ClusterView, Command, Commanded, Duty, DutyInfo, Etcd, Headroom, Instance,
    InstanceState, LeaseLeft, NotCarried, NotGivenBack, Registration, Released, Service, until,
};

/// Longest part of a call that waits for etcd.
const CALL: Duration = Duration::from_millis(500);
/// The same for the last call: less than what the services give it, so that it can say what went wrong.
const REVOKE: Duration = Duration::from_millis(400);
/// Pause before it is repeated.
const REVOKE_AGAIN: Duration = Duration::from_millis(20);
/// etcd grants no shorter lease.
const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// Where etcd is and what is ours in it.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// The section of the configuration.
    pub etcd: Etcd,
    /// Begins all keys, so that two deployments can share a server.
    pub prefix: String,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self { etcd: Etcd::default(), prefix: "sluice".into() }
    }
}

/// The registry of instances and duties on etcd: leases, watches, compare-and-put.
pub struct EtcdCluster(Arc<EtcdShared>);

struct EtcdShared {
    registry: EtcdRegistry,
    registrant: Registrant,
    ttl: Duration,
    shown: Shown,
    /// The lease in force, and what was written under it.
    lease: watch::Sender<Option<i64>>,
    state: watch::Sender<InstanceState>,
    written: watch::Sender<Option<InstanceState>>,
    /// Why etcd did not do what it was last asked for, if it did not.
    trouble: Mutex<Option<String>>,
    /// Wakes the lease: this process ought to be listed and is not.
    doubt: Notify,
    /// Wakes the duties: something was learned.
    learned: Notify,
    /// Cancelled by the scope's stage or by a close.
    closed: CancellationToken,
}

/// Connects once to each endpoint; what the servers say of themselves.
///
/// # Errors
/// Why one of them cannot be used.
pub async fn probe(etcd: Etcd) -> Result<String, String> {
    let mut said = Vec::new();
    for endpoint in &etcd.endpoints {
        let status = async {
            let options = Access::read(&etcd)?.put_into(ConnectOptions::new());
            let mut client = etcd_client::Client::connect([endpoint.reveal()], Some(options)).await?;
            client.status().await
        };
        let status = status.await.map_err(|error| format!("{endpoint}: {}", error::describe(&error)))?;
        said.push(format!("etcd {}", status.version()));
    }
    Ok(said.join(", "))
}

impl EtcdCluster {
    /// Registers this process and follows the others, in tasks of the scope; returns at once, also when etcd
    /// is away. `logic_seeds` are addresses (`host:port`) that stand for logic instances until some register
    /// with them. `candidates` are the duties that this process is willing to do.
    ///
    /// # Errors
    /// An endpoint that is no URL, or a file of the section that cannot be used.
    pub async fn start(
        scope: &Scope,
        config: EtcdConfig,
        registration: Registration,
        logic_seeds: &[String],
        candidates: BTreeSet<Duty>,
    ) -> Result<Self, RegistryError> {
        let registry = EtcdRegistry::open(&config.etcd, &config.prefix).await?;
        let ttl = config.etcd.lease_ttl().max(LEASE_TTL_MIN);
        let registrant = Registrant::new(registration);
        let seeds = logic_seeds.iter().filter_map(|address| seed(address)).collect();
        let known = Known::new(ttl, registrant.fresh_id(), seeds, candidates, Instant::now());
        let shared = Arc::new(EtcdShared {
            registry,
            registrant,
            ttl,
            shown: Shown::new(known),
            lease: watch::Sender::new(None),
            state: watch::Sender::new(InstanceState::Serving),
            written: watch::Sender::new(None),
            trouble: Mutex::default(),
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

impl EtcdShared {
    /// How the last call went, for whoever asks for the health.
    fn went<T>(&self, outcome: &Result<T, RegistryError>) {
        let trouble = match outcome {
            // Its own word: it answers.
            Ok(_) | Err(RegistryError::LeaseGone) => None,
            Err(RegistryError::Timeout) => Some("etcd does not answer".to_owned()),
            Err(RegistryError::Etcd(error)) => Some(error::describe(error)),
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        self.shown.look(look)
    }

    /// Changes what is known and tells everybody whom it concerns.
    fn learn(&self, change: impl FnOnce(&mut Known, Instant)) {
        self.shown.learn(change);
        self.learned.notify_one();
    }
}

#[async_trait]
impl Cluster for EtcdCluster {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.0.shown.view.subscribe()
    }

    fn me(&self) -> watch::Receiver<InstanceId> {
        self.0.shown.me.subscribe()
    }

    async fn set_state(&self, state: InstanceState) {
        // Noted first: a lease that is lost meanwhile is registered again with this state.
        self.0.state.send_replace(state);
        let mut written = self.0.written.subscribe();
        if timeout(CALL, written.wait_for(|last| *last == Some(state))).await.is_err() {
            // That etcd is away is said by the lease; this is written when it is back.
            tracing::debug!(?state, "etcd did not take the state in time.");
        }
    }

    fn health(&self) -> Result<(), String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    fn set_headroom(&self, headroom: Headroom) {
        self.0.registrant.set_headroom(headroom);
    }

    fn gone(&self) -> Vec<InstanceId> {
        self.0.look(Known::gone)
    }

    fn owned(&self) -> watch::Receiver<BTreeSet<Duty>> {
        self.0.shown.owned.subscribe()
    }

    fn duties(&self) -> Vec<DutyInfo> {
        let now = Instant::now();
        self.0.look(|known| known.duties(now))
    }

    async fn release_duties(&self) {
        self.0.learn(|known, _| known.release());
        // Taken here and not left to the duties' task: the caller waits for the release, not for a
        // beat.
        let steps = self.0.look(|known| known.steps(Instant::now()));
        let release = futures::future::join_all(steps.into_iter().map(|step| duties::take(&self.0, step)));
        // Draining, or the others would wait for this process to take its share again.
        let (released, ()) = tokio::join!(timeout(CALL, release), self.set_state(InstanceState::Draining));
        if released.is_err() {
            tracing::warn!("etcd did not take the duties back in time; they end with the lease.");
        }
    }

    async fn resume_duties(&self) {
        self.0.learn(|known, _| known.resume());
        self.set_state(InstanceState::Serving).await;
    }

    async fn release_duty(&self, duty: Duty) -> Result<Option<InstanceId>, NotCarried> {
        // If it is ours: no loss, as an operator wants it so.
        self.0.learn(|known, _| known.gives(duty));
        self.0.registry.take_from_owner(duty).await.map_err(not_carried)
    }

    async fn release_everything(&self) -> Result<Released, NotCarried> {
        let duties = self.0.registry.take_all_duties().await.map_err(not_carried)?;
        let registrations = self.0.registry.remove_gone().await.map_err(not_carried)?;
        Ok(Released { duties, registrations })
    }

    async fn command(&self, to: &InstanceId, command: Command) -> Result<(), NotCarried> {
        self.0.registry.command(to, command, &self.0.shown.id()).await.map_err(not_carried)
    }

    fn commanded(&self) -> watch::Receiver<Option<Commanded>> {
        self.0.shown.commanded.subscribe()
    }

    async fn leases(&self) -> HashMap<InstanceId, LeaseLeft> {
        self.0.registry.leases().await
    }

    fn counts(&self) -> ClusterCounts {
        self.0.shown.counts()
    }

    async fn close(&self) -> Result<(), NotGivenBack> {
        self.0.learn(|known, _| known.release());
        self.0.closed.cancel();
        // Taken out, so that a second close has nothing to give back.
        let Some(lease) = self.0.lease.send_replace(None) else { return Ok(()) };
        let mut reason = format!("etcd did not answer within {} ms", REVOKE.as_millis());
        // Removes the instance and its duties with the lease, in one step.
        let revoke = async {
            loop {
                match self.0.registry.revoke(lease).await {
                    Ok(()) | Err(RegistryError::LeaseGone) => return true,
                    Err(error) => reason = error.to_string(),
                }
                // One that is away refuses what the next would take: the client chooses among them by chance.
                if !self.0.registry.has_several_endpoints() {
                    return false;
                }
                sleep(REVOKE_AGAIN).await;
            }
        };
        match timeout(REVOKE, revoke).await {
            Ok(true) => {
                tracing::info!(id = %self.0.shown.id(), "Lease given back.");
                Ok(())
            }
            Ok(false) | Err(_) => Err(NotGivenBack { reason, expires_in: self.0.ttl }),
        }
    }
}

fn not_carried(error: RegistryError) -> NotCarried {
    NotCarried(match error {
        RegistryError::LeaseGone | RegistryError::Timeout => error.to_string(),
        RegistryError::Etcd(error) => error::describe(&error),
    })
}

/// Stands for a logic instance at a configured address.
fn seed(address: &str) -> Option<Instance> {
    let id = InstanceId::parse(&format!("seed-{address}")).ok()?;
    let (address, version) = (address.to_owned(), String::new());
    let (service, state) = (Service::Logic, InstanceState::Serving);
    Some(Instance { id, service, address, url: None, version, started_ms: 0, state, headroom: None })
}
