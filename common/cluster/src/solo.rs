//! The cluster inside one process: what etcd is to a cluster, without a server.
//!
//! All members share one [`SoloRegistry`]. A change is known to all of them before the call that made it returns;
//! what follows from it is decided by the same rules as with etcd. Nothing here is kept beyond the process.

mod listed;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::listed::Listed;
use crate::known::Known;
use crate::registrant::Registrant;
use crate::shown::{Shown, beat};
use crate::{
    Cluster, ClusterCounts, ClusterView, Command, Commanded, Duty, DutyInfo, Headroom, InstanceState,
    LeaseLeft, NotCarried, NotGivenBack, Registration, Released, until,
};

/// The registry that all members of one process share. Cheap to clone; clones are the same registry.
#[derive(Clone)]
pub struct SoloRegistry(Arc<SoloShared>);

struct SoloShared {
    ttl: Duration,
    listed: Mutex<Listed>,
}

/// One service of this process.
struct SoloMember {
    registrant: Registrant,
    shown: Shown,
}

/// [`Cluster`] inside one process.
pub struct SoloCluster {
    registry: SoloRegistry,
    member: Arc<SoloMember>,
    closed: CancellationToken,
}

impl SoloRegistry {
    /// Makes a registry without members. Who left is gone after twice this time, as if it were that of a lease.
    #[must_use]
    pub fn new(lease_ttl: Duration) -> Self {
        Self(Arc::new(SoloShared { ttl: lease_ttl, listed: Mutex::default() }))
    }

    /// Registers a service, serving, until it closes or the stage of the scope begins. `candidates` are the
    /// duties that it is willing to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn join(&self, scope: &Scope, registration: Registration, candidates: BTreeSet<Duty>) -> SoloCluster {
        let registrant = Registrant::new(registration);
        let me = registrant.fresh_id();
        let known = Known::new(self.0.ttl, me.clone(), Vec::new(), candidates, Instant::now());
        let instance = registrant.instance(me, InstanceState::Serving);
        let member = Arc::new(SoloMember { registrant, shown: Shown::new(known) });
        self.change(|listed| listed.join(Arc::clone(&member), instance));
        let closed = scope.token().child_token();
        let membership = Membership { registry: self.clone(), member: Arc::clone(&member) };
        let beats = until((closed.clone(), scope.token()), async move { membership.beats().await });
        scope.spawn("cluster-beat", beats);
        SoloCluster { registry: self.clone(), member, closed }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Listed) -> T) -> T {
        let mut listed = self.0.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut listed);
        // Within the same lock, so that every change is complete when its call returns.
        listed.settle();
        changed
    }
}

/// Leaves when it is dropped, however the task ends that has it.
struct Membership {
    registry: SoloRegistry,
    member: Arc<SoloMember>,
}

impl Membership {
    /// Lets time pass for what depends on it. Never ends.
    async fn beats(&self) {
        loop {
            sleep(beat(self.registry.0.ttl)).await;
            self.registry.change(|listed| listed.beat(&self.member));
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.change(|listed| listed.leave(&self.member));
    }
}

impl SoloCluster {
    /// What a lost lease does: this process is off the list with its duties, and on it again under a new id.
    pub fn expire(&self) {
        self.member.shown.count(|counts| counts.leases_lost += 1);
        self.registry.change(|listed| listed.rename(&self.member));
    }
}

#[async_trait]
impl Cluster for SoloCluster {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.member.shown.view.subscribe()
    }

    fn me(&self) -> watch::Receiver<InstanceId> {
        self.member.shown.me.subscribe()
    }

    async fn set_state(&self, state: InstanceState) {
        self.registry.change(|listed| listed.set_state(&self.member, state));
    }

    fn set_headroom(&self, headroom: Headroom) {
        self.member.registrant.set_headroom(headroom);
        if self.member.registrant.headroom_is_stale() {
            self.registry.change(|listed| listed.put_again(&self.member));
        }
    }

    fn gone(&self) -> Vec<InstanceId> {
        self.member.shown.look(Known::gone)
    }

    fn owned(&self) -> watch::Receiver<BTreeSet<Duty>> {
        self.member.shown.owned.subscribe()
    }

    fn duties(&self) -> Vec<DutyInfo> {
        let now = Instant::now();
        self.member.shown.look(|known| known.duties(now))
    }

    async fn release_duties(&self) {
        self.registry.change(|listed| {
            self.member.shown.learn(|known, _| known.release());
            // Draining, or the others would wait for this process to take its share again.
            listed.set_state(&self.member, InstanceState::Draining);
        });
    }

    async fn resume_duties(&self) {
        self.registry.change(|listed| {
            self.member.shown.learn(|known, _| known.resume());
            listed.set_state(&self.member, InstanceState::Serving);
        });
    }

    async fn release_duty(&self, duty: Duty) -> Result<Option<InstanceId>, NotCarried> {
        Ok(self.registry.change(|listed| listed.release(duty)))
    }

    async fn release_everything(&self) -> Result<Released, NotCarried> {
        let duties = self.registry.change(|listed| {
            let all = listed.owned().into_iter();
            all.filter_map(|duty| listed.release(duty).map(|owner| (duty, owner))).collect()
        });
        // Who is off the list has left it himself: nothing is left of anybody.
        Ok(Released { duties, registrations: Vec::new() })
    }

    async fn command(&self, to: &InstanceId, command: Command) -> Result<(), NotCarried> {
        let by = self.member.shown.id();
        if self.registry.change(|listed| listed.command(to, command, by)) {
            Ok(())
        } else {
            Err(NotCarried(format!("{to} is not there any more")))
        }
    }

    fn commanded(&self) -> watch::Receiver<Option<Commanded>> {
        self.member.shown.commanded.subscribe()
    }

    async fn leases(&self) -> HashMap<InstanceId, LeaseLeft> {
        let ttl = self.registry.0.ttl;
        let ids = self.registry.change(|listed| listed.ids());
        ids.into_iter().map(|id| (id, LeaseLeft { granted: ttl, left: ttl })).collect()
    }

    fn counts(&self) -> ClusterCounts {
        self.member.shown.counts()
    }

    async fn close(&self) -> Result<(), NotGivenBack> {
        self.registry.change(|listed| {
            self.member.shown.learn(|known, _| known.release());
            listed.leave(&self.member);
        });
        self.closed.cancel();
        Ok(())
    }
}
