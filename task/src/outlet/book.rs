//! Which outlets there are and whose they are.
//!
//! An outlet belongs to an address and carries the id that its gateway says; before the first word, the ids the
//! registry lists for the address. It lives while its address is listed or its stream works: a working stream is
//! life, whatever the registry says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sluice_cluster::{Service, View};
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::Caller;
use sluice_service::grpc::peers::Peers;
use tokio::sync::watch;

use super::{Outlet, Push, stream};
use crate::metrics::Metrics;

/// All outlets; clones share them.
#[derive(Clone)]
pub struct Outlets(Arc<Shared>);

struct Shared {
    scope: Scope,
    caller: Caller,
    peers: Peers,
    metrics: Metrics,
    seeds: Vec<Arc<str>>,
    book: Mutex<Book>,
    /// Whether anybody ever said who is there.
    known: watch::Sender<bool>,
}

#[derive(Default)]
struct Book {
    listed: BTreeMap<Arc<str>, BTreeSet<InstanceId>>,
    entries: BTreeMap<Arc<str>, Entry>,
    directory: Arc<Directory>,
}

struct Entry {
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
    pub fn offer(&self, place: usize, push: Push) {
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
        let book = Mutex::default();
        let outlets = Self(Arc::new(Shared { scope, caller, peers, metrics, seeds, book, known }));
        outlets.learn(&View::default());
        outlets
    }

    /// Follows the registry until the stage of the scope.
    pub async fn follow(self, mut view: watch::Receiver<Arc<View>>) {
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
    fn learn(&self, view: &View) {
        let mut listed: BTreeMap<Arc<str>, BTreeSet<InstanceId>> =
            self.0.seeds.iter().map(|seed| (Arc::clone(seed), BTreeSet::new())).collect();
        for gateway in view.of(Service::Gateway) {
            listed.entry(gateway.address.as_str().into()).or_default().insert(gateway.id.clone());
        }
        if view.sees_me || !listed.is_empty() {
            self.0.known.send_replace(true);
        }
        let mut book = self.book();
        if book.listed == listed {
            return;
        }
        for address in listed.keys() {
            if !book.entries.contains_key(address) {
                let outlet = Arc::new(Outlet::new(Arc::clone(address), self.0.metrics.clone()));
                book.entries.insert(Arc::clone(address), Entry { outlet: Arc::clone(&outlet), said: None });
                let keep = stream::keep(outlet, self.clone(), self.0.scope.token());
                self.0.scope.spawn_transient("push-stream", keep);
            }
        }
        book.listed = listed;
        book.draw();
    }

    /// Outlets as of now.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.book().directory)
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
        self.book().entries.values().filter_map(|entry| entry.said.clone()).collect()
    }

    /// Outlets that lag, by the name of their gateway or address.
    pub fn lagging(&self) -> Vec<String> {
        let book = self.book();
        let lagging = book.entries.values().filter(|entry| entry.outlet.is_lagging());
        lagging.map(Entry::name).collect()
    }

    /// For `/status`.
    pub fn status(&self) -> Value {
        let book = self.book();
        let one = |entry: &Entry| {
            let mut status = entry.outlet.status();
            status["instance"] = entry.said.as_ref().map(|id| id.as_str()).into();
            status["listed"] = book.listed.contains_key(&entry.outlet.address).into();
            status
        };
        book.entries.values().map(one).collect()
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The gateway at the other end has said who it is: whoever it was before is dead.
    pub(super) fn says(&self, outlet: &Outlet, instance: InstanceId) {
        let mut book = self.book();
        if let Some(entry) = book.entries.get_mut(&outlet.address)
            && entry.said.as_ref() != Some(&instance)
        {
            tracing::info!(gateway = %instance, address = &*outlet.address, former = ?entry.said, "Pushing to a gateway.");
            entry.said = Some(instance);
            book.draw();
        }
    }

    /// The stream has ended or could not be opened.
    pub(super) fn silent(&self, outlet: &Outlet) {
        let mut book = self.book();
        if let Some(entry) = book.entries.get_mut(&outlet.address)
            && let Some(gone) = entry.said.take()
        {
            tracing::info!(gateway = %gone, address = &*outlet.address, "The push stream to a gateway has ended.");
            book.draw();
        }
    }

    /// Removes an outlet whose address is listed no more; false when it is.
    pub(super) fn leave(&self, outlet: &Outlet) -> bool {
        let mut book = self.book();
        let leaves = !book.listed.contains_key(&outlet.address);
        if leaves {
            book.entries.remove(&outlet.address);
            book.draw();
        }
        leaves
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn name(&self) -> String {
        self.said.as_ref().map_or_else(|| self.outlet.address.to_string(), ToString::to_string)
    }
}

impl Book {
    /// Draws the directory anew. Two addresses of one gateway count once: the one with a working stream.
    fn draw(&mut self) {
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
