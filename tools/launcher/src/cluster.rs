//! The cluster: its processes, started together, replaced one by one, stopped in order. It holds no knowledge of what
//! the services do, only of how they are started, asked and stopped.

mod environment;
mod event;
mod start;
mod state;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use nix::sys::signal::Signal;
use rand::distr::{Alphanumeric, SampleString};
use tokio::sync::broadcast;

pub use event::Event;
use state::ClusterShared;
pub use stop::Stopped;

use crate::access::Credentials;
use crate::error::Error;
use crate::family;
use crate::leader;
use crate::log_reader::LogReading;
use crate::node::Node;
use crate::options::{Options, Setting};
use crate::process::{Exit, Process};
use crate::service::Service;
use crate::store::Store;
use crate::token::{self, Grants};

/// A private Sluice. Dropping it kills what still runs; [`Cluster::stop`] is the kind way.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<ClusterShared>,
}

impl Cluster {
    /// Prepares a cluster: nothing runs yet.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        let secret = options.token_secret.clone();
        let secret = secret.unwrap_or_else(|| Alphanumeric.sample_string(&mut rand::rng(), 40));
        Ok(Self { shared: Arc::new(ClusterShared::new(options, secret)?) })
    }

    /// Starts the servers, then the services, and returns when all are ready.
    ///
    /// # Errors
    /// The first process that could not be found or started, or was not ready in time, with the end of its log.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let cluster = Self::new(options)?;
        cluster.launch().await?;
        Ok(cluster)
    }

    /// What [`Cluster::start`] does after [`Cluster::new`]; may be cancelled, [`Cluster::stop`] then stops what runs.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn launch(&self) -> Result<(), Error> {
        start::launch(&self.shared).await
    }

    /// Where data and logs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.shared.folder.path()
    }

    /// Where the authority and the certificates of the services are, if it is a secure one.
    #[must_use]
    pub fn certs(&self) -> Option<PathBuf> {
        self.shared.options.secure.then(|| self.shared.certs())
    }

    /// The secret that tokens are signed with.
    #[must_use]
    pub fn token_secret(&self) -> &str {
        &self.shared.token_secret
    }

    /// A key of the HTTP API that is good for every call, in every room.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.shared.api_key
    }

    /// A token for `user`, good for a day, with these grants to subscribe and to publish.
    ///
    /// # Errors
    /// When the user is no valid name.
    pub fn token(&self, user: &str, sub: &[&str], publish: &[&str]) -> Result<String, token::Refused> {
        let rooms = |list: &[&str]| list.iter().map(|room| (*room).to_owned()).collect();
        let grants = Grants { sub: rooms(sub), publish: rooms(publish) };
        token::mint(self.token_secret(), user, grants, Duration::from_secs(24 * 3600))
    }

    /// The newest process of a place, running or not.
    #[must_use]
    pub fn node(&self, service: Service, index: usize) -> Option<Node> {
        self.shared.state().nodes.get(&(service, index)).cloned()
    }

    /// All places of a service, in order of their index.
    #[must_use]
    pub fn nodes(&self, service: Service) -> Vec<Node> {
        self.shared.state().nodes.values().filter(|node| node.service == service).cloned().collect()
    }

    fn expect(&self, service: Service, index: usize) -> Node {
        let node = self.node(service, index);
        node.unwrap_or_else(|| panic!("{}", Error::NoSuch(service, index)))
    }

    /// The gateway with this index.
    ///
    /// # Panics
    /// When there is none; so do its siblings. [`Cluster::node`] asks politely.
    #[must_use]
    pub fn gateway(&self, index: usize) -> Node {
        self.expect(Service::Gateway, index)
    }

    /// The logic with this index.
    #[must_use]
    pub fn logic(&self, index: usize) -> Node {
        self.expect(Service::Logic, index)
    }

    /// The task with this index.
    #[must_use]
    pub fn task(&self, index: usize) -> Node {
        self.expect(Service::Task, index)
    }

    /// NATS, etcd, Redis or PostgreSQL; of a group the first member.
    #[must_use]
    pub fn store(&self, service: Service) -> Node {
        self.expect(service, 0)
    }

    /// What a kind of server is reached by: all members of a group, of a Redis behind Sentinel those. Holds no password.
    #[must_use]
    pub fn url(&self, store: Service) -> String {
        self.shared.state().url(store, None)
    }

    /// The same as this service is given it: of PostgreSQL with its certificate.
    #[must_use]
    pub fn url_for(&self, service: Service, store: Service) -> String {
        self.shared.state().url(store, Some(service))
    }

    /// URL of a server with the password in it, of a group the first, for programs that read no file for it.
    #[must_use]
    pub fn url_with_password(&self, store: Service) -> String {
        let leads = self.shared.state().stores.get(&(Service::Haproxy, 0)).cloned();
        if let Some(leads) = leads.filter(|_| store == Service::Postgres) {
            return leads.url_with_password();
        }
        self.with_store(store).map(|store| store.url_with_password()).unwrap_or_default()
    }

    /// How a kind of server lets in who is none of the services; `None` where it lets everybody in.
    #[must_use]
    pub fn credentials(&self, store: Service) -> Option<Credentials> {
        self.shared.access.as_ref().map(|access| access.credentials(store, None))
    }

    /// POSTs JSON to etcd, `/v3/kv/range` or another of its paths, as the user that services are.
    ///
    /// # Errors
    /// What etcd said.
    pub async fn ask_etcd(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, Error> {
        self.with_store(Service::Etcd)?.ask_etcd(path, body).await
    }

    /// The index of the member that leads a group now: of etcd, of the stream in NATS, the primary of Redis, of a Redis
    /// Cluster the one with the first slot. `None` while nobody does. One that is alone leads itself.
    pub async fn leader(&self, store: Service) -> Option<usize> {
        let (members, sentinels) = (self.shared.members(store), self.shared.members(Service::Sentinel));
        leader::leader(store, &members, &sentinels).await
    }

    /// Signals the PostgreSQL that the Patroni at this place runs, with its sessions where it is to stand still or go on;
    /// `false` where there is none.
    pub fn signal_postmaster(&self, index: usize, signal: Signal) -> bool {
        let member = self.shared.state().stores.get(&(Service::Postgres, index)).cloned();
        member.is_some_and(|member| member.signal_postmaster(signal))
    }

    /// All processes of a server: itself, its children, and the PostgreSQL that is none of a Patroni's.
    #[must_use]
    pub fn pids(&self, store: Service, index: usize) -> Vec<u32> {
        let own = self.node(store, index).map(|node| node.pid());
        let member = self.shared.state().stores.get(&(store, index)).cloned();
        let parents = own.into_iter().chain(member.and_then(|member| member.postmaster()));
        parents.flat_map(|pid| [pid].into_iter().chain(family::children_of(pid))).collect()
    }

    /// How often a standby of PostgreSQL was promoted, plus one; `None` while there is no primary, and without Patroni.
    pub async fn timeline(&self) -> Option<u64> {
        for member in self.shared.members(Service::Postgres) {
            if let Some(timeline) = member.timeline().await {
                return Some(timeline);
            }
        }
        None
    }

    /// The pid of the PostgreSQL that the Patroni at this place runs now.
    #[must_use]
    pub fn postmaster(&self, index: usize) -> Option<u32> {
        let member = self.shared.state().stores.get(&(Service::Postgres, index)).cloned();
        member?.postmaster()
    }

    /// Whether every PostgreSQL that Patroni looks after runs and follows, or is followed.
    pub async fn is_whole(&self) -> bool {
        let members = self.shared.members(Service::Postgres);
        let mut whole = members.len() > 1;
        for member in members {
            whole &= member.has_postmaster() && member.has_joined().await.is_ok();
        }
        whole
    }

    /// Has Patroni promote the synchronous standby in an ordered way, by `patronictl`.
    ///
    /// # Errors
    /// There is no Patroni or no primary, or what it said.
    pub async fn switch_over(&self) -> Result<(), Error> {
        let primary = self.leader(Service::Postgres).await.unwrap_or(0);
        let primary = self.shared.members(Service::Postgres).into_iter().nth(primary);
        primary.ok_or(Error::NoSuch(Service::Postgres, 0))?.switch_over().await
    }

    /// Events from now on: exits, and starts of replacements once they are ready.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Adds a setting for processes started from now on; later settings win.
    pub fn set(&self, setting: Setting) {
        self.shared.state().settings.push(setting);
    }

    /// How the log of the process at this place is read from now on, and of those started there later. Needs
    /// [`Options::log_readers`].
    pub fn set_log_reading(&self, service: Service, index: usize, reading: LogReading) {
        let mut state = self.shared.state();
        state.log_readings.entry((service, index)).or_default().send_replace(reading);
    }

    /// Starts a replacement and waits until it is ready: in the place of one that has ended or is stopping, else as
    /// one more. A gateway listens on the client port of its predecessor. A store keeps port and data.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_replacement(&self, service: Service) -> Result<Node, Error> {
        start::replacement(&self.shared, service, None).await
    }

    /// Starts a process in this very place, whatever its predecessor is doing.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_at(&self, service: Service, index: usize) -> Result<Node, Error> {
        start::replacement(&self.shared, service, Some(index)).await
    }

    /// Starts a process of a service in this very place and returns at once: for who wants to stop it while it starts.
    /// It does not become the process of its place.
    ///
    /// # Errors
    /// When it could not be started at all.
    pub async fn start_unawaited(&self, service: Service, index: usize) -> Result<Arc<Process>, Error> {
        start::unawaited(&self.shared, service, index).await
    }

    /// As [`Cluster::start_replacement`], without waiting: the outcome is an event.
    pub fn request_start(&self, service: Service, index: Option<usize>) {
        let shared = Arc::clone(&self.shared);
        self.shared.spawn(async move {
            if let Err(error) = start::replacement(&shared, service, index).await {
                shared.emit(Event::Failed { service, error: error.to_string() });
            }
        });
    }

    /// Stops one process kindly (killed when it takes too long) and waits for its end.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn stop_node(&self, service: Service, index: usize) -> Result<Exit, Error> {
        let node = self.node(service, index).ok_or(Error::NoSuch(service, index))?;
        let (signal, limit) = stop::manner(&self.shared, service);
        Ok(stop::end(&node.process, signal, limit).await.0)
    }

    /// Stops a store and leaves it down.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn stop_store(&self, store: Service) -> Result<Exit, Error> {
        self.stop_node(store, 0).await
    }

    /// Starts a store again, on its port and with its data.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_store(&self, store: Service) -> Result<Node, Error> {
        self.start_at(store, 0).await
    }

    /// Stops a store and starts it again, on its port and with its data.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn restart_store(&self, store: Service) -> Result<Node, Error> {
        self.stop_store(store).await?;
        self.start_store(store).await
    }

    /// Stops a store, of a group all members, removes all it holds and starts it again, on its port.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn wipe_store(&self, store: Service) -> Result<Node, Error> {
        let members = self.shared.members(store);
        if store == Service::Postgres && members.len() > 1 {
            let why = "PostgreSQL under Patroni is not emptied: etcd knows what it holds";
            return Err(Error::System(why.to_owned()));
        }
        // Stopped first, and all: a server that runs would write again what is removed, or tell the others.
        try_join_all(members.iter().map(|member| self.stop_node(store, member.index))).await?;
        members.iter().try_for_each(|member| member.wipe())?;
        let nodes = try_join_all(members.iter().map(|member| self.start_at(store, member.index))).await?;
        nodes.into_iter().next().ok_or(Error::NoSuch(store, 0))
    }

    /// Has a replica of Redis take over from its primary, of a Redis Cluster from the one that leads: nothing dies.
    ///
    /// # Errors
    /// When there is no replica that could, or it does not answer as it should.
    pub async fn fail_over_redis(&self) -> Result<(), Error> {
        if let Some(sentinel) = self.shared.members(Service::Sentinel).first() {
            return sentinel.fail_over().await;
        }
        let members = self.shared.members(Service::Redis);
        let leader = self.leader(Service::Redis).await.and_then(|index| members.get(index));
        let port = leader.ok_or(Error::NoSuch(Service::Redis, 0))?.client_port();
        for member in &members {
            if member.follows(port).await {
                return member.fail_over().await;
            }
        }
        Err(Error::System("no replica of Redis follows".to_owned()))
    }

    /// Removes all keys of Redis while it runs; of a Redis Cluster those of the node that leads.
    ///
    /// # Errors
    /// When Redis does not answer as it should.
    pub async fn flush_redis(&self) -> Result<(), Error> {
        let primary = self.leader(Service::Redis).await.unwrap_or(0);
        let primary = self.shared.members(Service::Redis).into_iter().nth(primary);
        primary.ok_or(Error::NoSuch(Service::Redis, 0))?.flush(Duration::from_secs(2)).await
    }

    /// The folder with all data of a store: copy it while the store is stopped, put it back later.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn store_data(&self, store: Service) -> Result<std::path::PathBuf, Error> {
        Ok(self.with_store(store)?.data().to_owned())
    }

    /// The program of a store: what comes with it lies beside it.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub fn store_program(&self, store: Service) -> Result<std::path::PathBuf, Error> {
        Ok(self.with_store(store)?.binary().to_owned())
    }

    /// Starts a store that is down on another port, where no service looks, for as long as `work` does something with
    /// its URL.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn aside<T>(&self, store: Service, work: impl AsyncFnOnce(&str) -> T) -> Result<T, Error> {
        start::aside(&self.shared, self.with_store(store)?.as_ref(), work).await
    }

    fn with_store(&self, store: Service) -> Result<Arc<Store>, Error> {
        self.shared.state().stores.get(&(store, 0)).cloned().ok_or(Error::NoSuch(store, 0))
    }

    /// Stops everything in order: gateways, tasks, logics, stores. Bounded: what does not stop is killed.
    pub async fn stop(&self) -> Stopped {
        stop::all(&self.shared).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First: a start under way would add a process behind the list that is ended here.
        self.shared.tasks().abort_all();
        stop::now(&self.shared);
        self.shared.guard.end(); // before the folder goes, which it reads
        self.shared.folder.discard(); // an aborted task may hold the rest a little longer
    }
}
