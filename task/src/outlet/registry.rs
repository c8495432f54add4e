//! Which outlets there are and whose they are.
//!
//! An outlet belongs to an address and carries the id that its gateway says; before the first word, the ids the
//! registry lists for the address. It lives while its address is listed or its stream works: a working stream is
//! life, whatever the registry says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sluice_cluster::{ClusterView, Service};
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::Caller;
use sluice_service::grpc::peers::Peers;
use tokio::sync::watch;

use super::{NoticePart, Outlet, Ticket, stream};
use crate::metrics::Metrics;

/// All outlets; clones share them.
#[derive(Clone)]
pub struct Outlets(Arc<OutletsShared>);

struct OutletsShared {
    scope: Scope,
    caller: Caller,
    peers: Peers,
    metrics: Metrics,
    seeds: Vec<Arc<str>>,
    registered: Mutex<Registered>,
    /// Whether anybody ever said who is there.
    known: watch::Sender<bool>,
}

#[derive(Default)]
struct Registered {
    listed: BTreeMap<Arc<str>, BTreeSet<InstanceId>>,
    entries: BTreeMap<Arc<str>, RegisteredOutlet>,
    directory: Arc<Directory>,
}

struct RegisteredOutlet {
    outlet: Arc<Outlet>,
    /// Set while its stream works.
    said: Option<InstanceId>,
}

/// A picture of all outlets at one moment.
#[derive(Default)]
pub struct Directory {
    outlets: Vec<Arc<Outlet>>,
    places: HashMap<InstanceId, usize>,
    unnamed: Vec<usize>,
}

impl Directory {
    /// Where an instance's outlet is, if it has one.
    pub fn place(&self, instance: &InstanceId) -> Option<usize> {
        self.places.get(instance).copied()
    }

    /// Outlets whose gateway has not said who it is, and nobody else has.
    pub fn unnamed(&self) -> &[usize] {
        &self.unnamed
    }

    /// How many outlets there are.
    pub fn len(&self) -> usize {
        self.outlets.len()
    }

    /// Hands a push to an outlet; there is none above [`Directory::len`].
    pub fn offer(&self, place: usize, push: NoticePart<Ticket>) {
        if let Some(outlet) = self.outlets.get(place) {
            outlet.offer(push);
        }
    }
}

impl Outlets {
    /// No outlets yet, but to the seeds. Streams are tasks of `scope`: when its stage begins they send what is left
    /// and end.
    pub fn new(scope: Scope, caller: Caller, peers: Peers, metrics: Metrics, seeds: &[String]) -> Self {
        let seeds: Vec<Arc<str>> = seeds.iter().map(|seed| seed.as_str().into()).collect();
        let known = watch::Sender::new(!seeds.is_empty());
        let registered = Mutex::default();
        let outlets =
            Self(Arc::new(OutletsShared { scope, caller, peers, metrics, seeds, registered, known }));
        outlets.learn(&ClusterView::default());
        outlets
    }

    /// Follows the registry until the stage of the scope.
    pub async fn follow(self, mut view: watch::Receiver<Arc<ClusterView>>) {
        let stop = self.0.scope.token();
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            self.learn(&now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() {
                    // The last known set stays.
                    return stop.cancelled().await;
                },
            }
        }
    }

    /// Takes over who is listed and begins streams to whoever is new.
    fn learn(&self, view: &ClusterView) {
        let mut listed: BTreeMap<Arc<str>, BTreeSet<InstanceId>> =
            self.0.seeds.iter().map(|seed| (Arc::clone(seed), BTreeSet::new())).collect();
        for gateway in view.of(Service::Gateway) {
            listed.entry(gateway.address.as_str().into()).or_default().insert(gateway.id.clone());
        }
        if view.sees_me || !listed.is_empty() {
            self.0.known.send_replace(true);
        }
        let mut registered = self.registered();
        if registered.listed == listed {
            return;
        }
        for address in listed.keys() {
            if !registered.entries.contains_key(address) {
                let outlet = Arc::new(Outlet::new(Arc::clone(address), self.0.metrics.clone()));
                registered.entries.insert(
                    Arc::clone(address),
                    RegisteredOutlet { outlet: Arc::clone(&outlet), said: None },
                );
                let keep = stream::keep(outlet, self.clone(), self.0.scope.token());
                self.0.scope.spawn_transient("push-stream", keep);
            }
        }
        registered.listed = listed;
        registered.redraw();
    }

    /// Outlets as of now.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.registered().directory)
    }

    /// Ends when somebody has said who is there.
    pub async fn known(&self) {
        // An error is impossible: self holds the sender.
        let _ = self.0.known.subscribe().wait_for(|known| *known).await;
    }

    /// Whether somebody has said who is there.
    pub fn is_known(&self) -> bool {
        *self.0.known.borrow()
    }

    /// Gateways whose stream works.
    pub fn living(&self) -> BTreeSet<InstanceId> {
        self.registered().entries.values().filter_map(|entry| entry.said.clone()).collect()
    }

    /// Outlets that lag, by the name of their gateway or address.
    pub fn lagging(&self) -> Vec<String> {
        let registered = self.registered();
        let lagging = registered.entries.values().filter(|entry| entry.outlet.is_lagging());
        lagging.map(RegisteredOutlet::name).collect()
    }

    /// For `/status`.
    pub fn status(&self) -> Value {
        let registered = self.registered();
        let one = |entry: &RegisteredOutlet| {
            let mut status = entry.outlet.status();
            status["instance"] = entry.said.as_ref().map(|id| id.as_str()).into();
            status["listed"] = registered.listed.contains_key(&entry.outlet.address).into();
            status
        };
        registered.entries.values().map(one).collect()
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The gateway at the other end has said who it is: whoever it was before is dead.
    pub(super) fn says(&self, outlet: &Outlet, instance: InstanceId) {
        let mut registered = self.registered();
        if let Some(entry) = registered.entries.get_mut(&outlet.address)
            && entry.said.as_ref() != Some(&instance)
        {
            tracing::info!(gateway = %instance, address = &*outlet.address, former = ?entry.said, "Pushing to a gateway.");
            entry.said = Some(instance);
            registered.redraw();
        }
    }

    /// The stream has ended or could not be opened.
    pub(super) fn silent(&self, outlet: &Outlet) {
        let mut registered = self.registered();
        if let Some(entry) = registered.entries.get_mut(&outlet.address)
            && let Some(gone) = entry.said.take()
        {
            tracing::info!(gateway = %gone, address = &*outlet.address, "The push stream to a gateway has ended.");
            registered.redraw();
        }
    }

    /// Removes an outlet whose address is listed no more; false when it is.
    pub(super) fn leave(&self, outlet: &Outlet) -> bool {
        let mut registered = self.registered();
        let leaves = !registered.listed.contains_key(&outlet.address);
        if leaves {
            registered.entries.remove(&outlet.address);
            registered.redraw();
        }
        leaves
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.0.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegisteredOutlet {
    fn name(&self) -> String {
        self.said.as_ref().map_or_else(|| self.outlet.address.to_string(), ToString::to_string)
    }
}

impl Registered {
    /// Draws the directory anew. Two addresses of one gateway count once: the one with a working stream.
    fn redraw(&mut self) {
        let mut directory = Directory::default();
        let (working, others): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|(_, entry)| entry.said.is_some());
        for (address, entry) in working.into_iter().chain(others) {
            let listed = self.listed.get(address);
            let ids: Vec<&InstanceId> = match &entry.said {
                Some(said) => vec![said],
                None => listed.into_iter().flatten().collect(),
            };
            if !ids.is_empty() && ids.iter().all(|id| directory.places.contains_key(*id)) {
                continue;
            }
            let place = directory.outlets.len();
            directory.outlets.push(Arc::clone(&entry.outlet));
            if ids.is_empty() {
                directory.unnamed.push(place);
            }
            for id in ids {
                directory.places.entry(id.clone()).or_insert(place);
            }
        }
        self.directory = Arc::new(directory);
    }
}
