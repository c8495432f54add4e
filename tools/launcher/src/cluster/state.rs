//! What the parts of a cluster share: its options, its folder and which processes there are. It starts and stops none.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_access::{ApiKeyEntry, new_api_key};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use super::event::Event;
use crate::access::{Access, certs_in};
use crate::defaults::EVENTS;
use crate::error::Error;
use crate::folder::Folder;
use crate::guard::Guard;
use crate::log_reader::LogReading;
use crate::node::Node;
use crate::options::{Options, Setting};
use crate::port::Port;
use crate::process::Process;
use crate::record::ProcessRecord;
use crate::service::Service;
use crate::store::{PRIMARY, Store, Stores};

/// The name of the file with the keys of the HTTP API.
const API_KEYS: &str = "api-keys.toml";

#[derive(Debug)]
pub(super) struct ClusterShared {
    pub(super) options: Options,
    pub(super) token_secret: String,
    /// Good for every call of the HTTP API, in every room.
    pub(super) api_key: String,
    pub(super) folder: Folder,
    /// What opens the servers; `None` where they let everybody in.
    pub(super) access: Option<Arc<Access>>,
    pub(super) record: ProcessRecord,
    pub(super) guard: Guard,
    pub(super) events: broadcast::Sender<Event>,
    state: Mutex<ClusterState>,
    /// One watcher per process, and the starts asked for without waiting.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) stopping: bool,
    pub(super) settings: Vec<Setting>,
    /// How often a place was started, where versions alternate.
    starts: BTreeMap<(Service, usize), usize>,
    pub(super) stores: Stores,
    /// Client ports of gateways by index: a replacement listens where its predecessor did.
    pub(super) ports: BTreeMap<usize, Arc<Port>>,
    /// How the logs of a place are read, where that is not as usual.
    pub(super) log_readings: BTreeMap<(Service, usize), watch::Sender<LogReading>>,
    /// The newest process of each place.
    pub(super) nodes: BTreeMap<(Service, usize), Node>,
    /// Places whose next process is on its way.
    pub(super) starting: HashSet<(Service, usize)>,
    /// All that may still run, replaced ones included.
    pub(super) processes: Vec<(Service, Arc<Process>)>,
}

impl ClusterState {
    pub(super) fn members(&self, service: Service) -> Vec<Arc<Store>> {
        let members = self.stores.iter().filter(|((kind, _), _)| *kind == service);
        members.map(|(_, store)| Arc::clone(store)).collect()
    }

    /// What this service is given to reach a kind of server, or who is none.
    pub(super) fn url(&self, store: Service, service: Option<Service>) -> String {
        let sentinels = self.members(Service::Sentinel);
        if let (Service::Redis, Some(first)) = (store, sentinels.first()) {
            let scheme = if first.is_secured() { "rediss" } else { "redis" };
            let places: Vec<String> = sentinels.iter().map(|sentinel| sentinel.address()).collect();
            return format!("{scheme}+sentinel://{}/{PRIMARY}", places.join(","));
        }
        if let (Service::Postgres, Some(leads)) = (store, self.stores.get(&(Service::Haproxy, 0))) {
            return leads.url_for(service);
        }
        let members = self.members(store);
        if let Some(first) = members.first().filter(|member| member.is_node()) {
            let scheme = if first.is_secured() { "rediss" } else { "redis" };
            let places: Vec<String> = members.iter().map(|node| node.address()).collect();
            return format!("{scheme}+cluster://{}", places.join(","));
        }
        let urls: Vec<String> = members.iter().map(|member| member.url_for(service)).collect();
        urls.join(",")
    }
}

impl ClusterShared {
    pub(super) fn new(options: Options, token_secret: String) -> Result<Self, Error> {
        options.engines.check()?;
        if options.doors.is_some() && options.secure {
            return Err(Error::System("members of a secure cluster have no doors".to_owned()));
        }
        // Locked first: the record and the guard belong to whoever has the lock.
        let folder = Folder::open(options.dir.as_deref())?;
        let access = Access::open(&folder, options.secure)?;
        let record = ProcessRecord::open(folder.path())?;
        let guard = Guard::start(folder.path(), folder.is_temporary())?;
        let state = ClusterState { settings: options.settings.clone(), ..ClusterState::default() };
        let (events, state, tasks) = (broadcast::Sender::new(EVENTS), Mutex::new(state), Mutex::default());
        let api_key = new_api_key();
        write_keys(&folder.path().join(API_KEYS), &api_key)?;
        Ok(Self { options, token_secret, api_key, folder, access, record, guard, events, state, tasks })
    }

    /// Where the program of the next process of a place is: in turn the previous version and this one, if there are two.
    pub(super) fn next_bin_dir(&self, service: Service, index: usize) -> Option<PathBuf> {
        let Options { bin_dir, previous, .. } = &self.options;
        let mut state = self.state();
        let starts = state.starts.entry((service, index)).or_default();
        *starts += 1;
        if *starts % 2 == 1 && previous.is_some() { previous.clone() } else { bin_dir.clone() }
    }

    /// The file of keys that logics read.
    pub(super) fn api_keys(&self) -> PathBuf {
        self.folder.path().join(API_KEYS)
    }

    /// Where the certificates of a secure cluster are.
    pub(super) fn certs(&self) -> PathBuf {
        certs_in(self.folder.path())
    }

    /// All members of a kind of server, in order.
    pub(super) fn members(&self, service: Service) -> Vec<Arc<Store>> {
        self.state().members(service)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {} // forget what has ended
        tasks.spawn(work);
    }

    pub(super) fn emit(&self, event: Event) {
        // an error means that nobody listens, which is fine
        self.events.send(event).ok();
    }
}

/// A file with one key that may do everything.
fn write_keys(file: &Path, key: &str) -> Result<(), Error> {
    let all = || vec!["*".to_owned(), "@*".to_owned()];
    let entry =
        ApiKeyEntry { sub: all(), publish: all(), disconnect: all(), ..ApiKeyEntry::of("cluster", key) };
    let text = entry.to_toml().map_err(Error::System)?;
    std::fs::write(file, text).map_err(Error::file("cannot write", file))
}
