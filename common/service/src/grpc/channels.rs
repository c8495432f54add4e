//! One lazily connected channel per instance, chosen by lane.
//!
//! The list of targets is followed without a task: it is looked at whenever a channel is picked. Whether a
//! failed call may be sent again is the caller's to decide; nothing is retried here.

mod dial;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use dial::OpenConnections;
pub use dial::{BadTarget, dial};

use super::complaints::Complaints;
use super::{DRAINING_HEADER, INSTANCE_HEADER};
use crate::tls::{Identity, Reason, Role};

/// A target rests this long after its first failure: another one is tried at once.
pub const REST_FIRST: Duration = Duration::from_millis(50);
/// Longest rest of a target that keeps failing; below a retry horizon of 10 s by far.
pub const REST_MAX: Duration = Duration::from_secs(1);

/// An instance that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The instance id of the peer.
    pub id: InstanceId,
    /// Where it listens for gRPC, `host:port`.
    pub address: String,
    /// Whether it drains: called only while nobody serves.
    pub draining: bool,
}

/// What we say of ourselves in the metadata of every call, and the certificate we show; clones share it.
#[derive(Debug, Clone)]
pub struct Caller {
    instance: watch::Receiver<InstanceId>,
    draining: Arc<AtomicBool>,
    identity: Option<Identity>,
    complaints: Complaints<(String, Reason)>,
}

impl Caller {
    /// A caller that follows its own instance id, which changes when a lease was lost.
    #[must_use]
    pub fn new(instance: watch::Receiver<InstanceId>) -> Self {
        Self { instance, draining: Arc::default(), identity: None, complaints: Complaints::default() }
    }

    /// With an identity connections are encrypted, and only to whom our authorities call what we expect there.
    #[must_use]
    pub fn identified(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// A caller whose instance id never changes.
    #[must_use]
    pub fn fixed(instance: InstanceId) -> Self {
        Self::new(watch::Sender::new(instance).subscribe())
    }

    /// From now on every call says that we drain.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let instance = MetadataValue::try_from(self.instance.borrow().as_str());
        if let Ok(instance) = instance {
            request.metadata_mut().insert(INSTANCE_HEADER, instance);
        }
        if self.draining.load(Ordering::Relaxed) {
            let yes: MetadataValue<Ascii> = MetadataValue::from_static("1");
            request.metadata_mut().insert(DRAINING_HEADER, yes);
        }
        Ok(request)
    }
}

/// What a generated client is built on: a channel that stamps every call.
pub type CallerChannel = InterceptedService<Channel, Caller>;

struct TargetChannel {
    target: Target,
    channel: Channel,
    open: OpenConnections,
    /// Counts the channels this slot has had, so that a late failure of an old one is ignored.
    generation: u64,
    failures: u32,
    rests_until: Option<Instant>,
}

struct ChannelTable {
    /// What all targets are, and who calls them.
    ends: (Role, Caller),
    targets: watch::Receiver<Arc<Vec<Target>>>,
    slots: BTreeMap<InstanceId, TargetChannel>,
}

/// Channels to all targets of a list; clones share them.
#[derive(Clone)]
pub struct Channels {
    caller: Caller,
    targets: watch::Receiver<Arc<Vec<Target>>>,
    state: Arc<Mutex<ChannelTable>>,
}

impl Channels {
    /// Channels to whatever `targets` names, which are services of this kind; nothing is connected before the
    /// first call.
    #[must_use]
    pub fn new(mut targets: watch::Receiver<Arc<Vec<Target>>>, peer: Role, caller: Caller) -> Self {
        // The first look must reconcile, also when the list was seen elsewhere.
        targets.mark_changed();
        let ends = (peer, caller.clone());
        let state = ChannelTable { ends, targets: targets.clone(), slots: BTreeMap::new() };
        Self { caller, targets, state: Arc::new(Mutex::new(state)) }
    }

    /// The channel a lane prefers: of the serving targets, else of the draining ones, that do not rest
    /// after a failure, the one with the highest hash. `None` when there is none now.
    #[must_use]
    pub fn pick(&self, lane: u8) -> Option<Pick> {
        let now = Instant::now();
        let state = self.state();
        let best = state
            .slots
            .values()
            .filter(|slot| slot.rests_until.is_none_or(|until| until <= now))
            // Serving wins over draining, then the hash: all processes prefer the same one for a
            // lane.
            .max_by_key(|slot| (!slot.target.draining, weight(&slot.target.id, lane)))?;
        Some(self.picked(best))
    }

    /// Like [`Channels::pick`], waits until there is one. Bound it by the caller's own deadline.
    pub async fn pick_or_wait(&self, lane: u8) -> Pick {
        let mut changes = self.targets.clone();
        loop {
            // Before the look: a change in between is seen by the wait.
            changes.mark_unchanged();
            if let Some(pick) = self.pick(lane) {
                return pick;
            }
            let rested = self.state().slots.values().filter_map(|slot| slot.rests_until).min();
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = sleep_until(rested) => {}
            }
        }
    }

    /// The targets we have an open connection to, in the order of their ids.
    #[must_use]
    pub fn connected(&self) -> Vec<Pick> {
        let state = self.state();
        state.slots.values().filter(|slot| slot.open.count() > 0).map(|slot| self.picked(slot)).collect()
    }

    /// All targets, rested or not, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Pick> {
        self.state().slots.values().map(|slot| self.picked(slot)).collect()
    }

    /// Whether a target serves (does not drain), whether or not it answers.
    #[must_use]
    pub fn any_serving(&self) -> bool {
        self.state().slots.values().any(|slot| !slot.target.draining)
    }

    /// What is said of us on these channels.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    fn state(&self) -> MutexGuard<'_, ChannelTable> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed channel counts as changed: its last value stays in force.
        if !matches!(state.targets.has_changed(), Ok(false)) {
            state.reconcile();
        }
        state
    }

    fn picked(&self, slot: &TargetChannel) -> Pick {
        Pick {
            target: slot.target.clone(),
            calls: InterceptedService::new(slot.channel.clone(), self.caller.clone()),
            generation: slot.generation,
            state: Arc::clone(&self.state),
        }
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl ChannelTable {
    /// Keeps the channels of targets that are still there, makes and drops the others.
    fn reconcile(&mut self) {
        let targets = Arc::clone(&self.targets.borrow_and_update());
        let mut slots = BTreeMap::new();
        for target in targets.iter() {
            let slot = match self.slots.remove(&target.id) {
                // Also when it drains now: its connection and its failures go on.
                Some(slot) if slot.target.address == target.address => {
                    Some(TargetChannel { target: target.clone(), ..slot })
                }
                // Another address under the same name: the old connection leads to somebody else.
                Some(_) | None => TargetChannel::new(target.clone(), &self.ends),
            };
            slots.extend(slot.map(|slot| (target.id.clone(), slot)));
        }
        self.slots = slots;
    }
}

impl TargetChannel {
    fn new(target: Target, (peer, caller): &(Role, Caller)) -> Option<Self> {
        let open = OpenConnections::default();
        match dial::channel(&target.address, *peer, caller, &open) {
            Ok(channel) => {
                Some(Self { target, channel, open, generation: 0, failures: 0, rests_until: None })
            }
            Err(error) => {
                tracing::warn!(peer = %target.id, %error, "An instance cannot be called.");
                None
            }
        }
    }

    /// A fresh channel (the old one may go on using a connection that is going away), and a rest.
    fn fail(&mut self, (peer, caller): &(Role, Caller)) {
        if let Ok(channel) = dial::channel(&self.target.address, *peer, caller, &self.open) {
            self.channel = channel;
        }
        // Failures of calls on the old channel come later, and must not cost the new one its rest.
        self.generation += 1;
        // Doubles at each failure in a row, up to a second.
        let rest = REST_FIRST.saturating_mul(1 << self.failures.min(10)).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        // Between half and all of it, so that many callers do not come back together.
        self.rests_until = Some(Instant::now() + rest.mul_f64(rand::random_range(0.5..=1.0)));
    }
}

/// A chosen target and the channel to it.
#[derive(Clone)]
pub struct Pick {
    target: Target,
    calls: CallerChannel,
    generation: u64,
    state: Arc<Mutex<ChannelTable>>,
}

impl Pick {
    /// The instance that was chosen.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// To build a generated client on; cheap to clone.
    #[must_use]
    pub fn calls(&self) -> CallerChannel {
        self.calls.clone()
    }

    /// The call failed because of the target or the way to it: it rests for a moment, and whoever comes
    /// next gets a fresh channel. Calls in flight on the old one go on. Many failures of one channel count
    /// once.
    pub fn failed(&self) {
        self.with_slot(TargetChannel::fail);
    }

    /// The target answered: past failures are forgotten.
    pub fn succeeded(&self) {
        self.with_slot(|slot, _| {
            slot.failures = 0;
            slot.rests_until = None;
        });
    }

    fn with_slot(&self, change: impl FnOnce(&mut TargetChannel, &(Role, Caller))) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if let Some(slot) = state.slots.get_mut(&self.target.id)
            // Many calls fail with one channel: the first failure counts.
            && slot.generation == self.generation
            && slot.target.address == self.target.address
        {
            change(slot, &state.ends);
        }
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Rendezvous hashing: equal in every process, moves a lane only when its own target comes or goes.
fn weight(id: &InstanceId, lane: u8) -> u64 {
    xxh3_64_with_seed(id.as_str().as_bytes(), u64::from(lane))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
