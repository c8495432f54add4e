//! Which outlets there are and whose they are: the routing table from instances to outlets.
//!
//! An outlet belongs to an address and carries the id that its gateway says; before the first word, the ids the
//! registry lists for the address. It lives while its address is listed or its stream works: a working stream is
//! life, whatever the registry says. Starts nothing and waits for nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sluice_proto::ids::InstanceId;

use super::{NoticePart, Outlet, Ticket};
use crate::defaults::BROKEN_MAX;
use crate::metrics::Metrics;

/// Who is listed where, by address.
pub(super) type Listed = BTreeMap<Arc<str>, BTreeSet<InstanceId>>;

/// All outlets by their addresses.
#[derive(Default)]
pub(super) struct OutletRegistry(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    listed: Listed,
    entries: BTreeMap<Arc<str>, RegisteredOutlet>,
    /// Whose stream worked and ended, the oldest first.
    broken: VecDeque<InstanceId>,
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

    /// Where an outlet leads to.
    pub fn address(&self, place: usize) -> &str {
        self.outlets.get(place).map_or("", |outlet| &*outlet.address)
    }

    /// Hands a push to an outlet; there is none above [`Directory::len`].
    pub fn offer(&self, place: usize, push: NoticePart<Ticket>) {
        if let Some(outlet) = self.outlets.get(place) {
            outlet.offer(push);
        }
    }
}

impl OutletRegistry {
    /// Takes over who is listed; returns the outlets that are new and have no stream yet.
    pub(super) fn list(&self, listed: Listed, metrics: &Metrics) -> Vec<Arc<Outlet>> {
        let mut registered = self.registered();
        if registered.listed == listed {
            return Vec::new();
        }
        let mut new = Vec::new();
        for address in listed.keys() {
            // An outlet that was listed before may still have its stream: it goes on.
            if !registered.entries.contains_key(address) {
                let outlet = Arc::new(Outlet::new(Arc::clone(address), metrics.clone()));
                let entry = RegisteredOutlet { outlet: Arc::clone(&outlet), said: None };
                registered.entries.insert(Arc::clone(address), entry);
                new.push(outlet);
            }
        }
        registered.listed = listed;
        registered.redraw();
        new
    }

    /// Outlets as of now.
    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.registered().directory)
    }

    /// Gateways whose stream works.
    pub(super) fn living(&self) -> BTreeSet<InstanceId> {
        self.registered().entries.values().filter_map(|entry| entry.said.clone()).collect()
    }

    /// Gateways whose stream worked, broke and did not come back.
    pub(super) fn broken(&self) -> BTreeSet<InstanceId> {
        self.registered().broken.iter().cloned().collect()
    }

    /// Outlets that lag, by the name of their gateway or address.
    pub(super) fn lagging(&self) -> Vec<String> {
        let registered = self.registered();
        let lagging = registered.entries.values().filter(|entry| entry.outlet.is_lagging());
        lagging.map(RegisteredOutlet::name).collect()
    }

    /// What `/status` shows of all outlets.
    pub(super) fn status(&self) -> Value {
        let registered = self.registered();
        let one = |entry: &RegisteredOutlet| {
            let mut status = entry.outlet.status();
            status["instance"] = entry.said.as_ref().map(|id| id.as_str()).into();
            status["listed"] = registered.listed.contains_key(&entry.outlet.address).into();
            status
        };
        registered.entries.values().map(one).collect()
    }

    /// The gateway at the other end has said who it is: whoever it was before is dead.
    pub(super) fn says(&self, outlet: &Outlet, instance: InstanceId) {
        let mut registered = self.registered();
        if let Some(entry) = registered.entries.get_mut(&outlet.address)
            && entry.said.as_ref() != Some(&instance)
        {
            tracing::info!(gateway = %instance, address = &*outlet.address, former = entry.said.as_ref().map(tracing::field::display), "Pushing to a gateway.");
            entry.said = Some(instance.clone());
            registered.broken.retain(|broken| *broken != instance);
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
            if registered.broken.len() >= BROKEN_MAX {
                registered.broken.pop_front();
            }
            registered.broken.push_back(gone);
            registered.redraw();
        }
    }

    /// Removes an outlet whose address is listed no more; false when it is.
    pub(super) fn leave(&self, outlet: &Outlet) -> bool {
        let mut registered = self.registered();
        // Under the lock that `list` takes: an address listed again meanwhile keeps this outlet and its stream.
        let leaves = !registered.listed.contains_key(&outlet.address);
        if leaves {
            registered.entries.remove(&outlet.address);
            registered.redraw();
        }
        leaves
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            // Those with a working stream first: of two addresses of one gateway theirs counts.
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
                // Nobody knows who it is: it gets everything until it says so.
                directory.unnamed.push(place);
            }
            for id in ids {
                directory.places.entry(id.clone()).or_insert(place);
            }
        }
        self.directory = Arc::new(directory);
    }
}
