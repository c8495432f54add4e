//! The start: chooses addresses, opens the store, starts the services in order, and says what the stop has to do at
//! its beginning and its end. What runs afterwards is the supervisor's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::Service;
use sluice_gateway::files;
use sluice_lifecycle::{BoxError, Lifecycle, Stage};
use sluice_presence::LEAVE_GRACE;
use sluice_service::listen::Bound;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dev_config;
use crate::embedded::Embedded;
use crate::error::Error;
use crate::folder::{Folder, Kind, State};
use crate::identities::Identities;
use crate::options::Options;
use crate::page::{self, Pages};
use crate::ports::Ports;
use crate::supervised::{Addresses, Life, Placed, ServiceConfig, Supervised};
use crate::supervisor::{Dev, DevInner};

/// Where clients of the first gateway connect, when the port is free.
const USUAL_CLIENTS: u16 = 8080;
/// Where the page is, when the port is free.
const USUAL_PAGE: u16 = 8081;
/// Between two looks whether the file with the messages is still there.
const FILE_LOOK: Duration = Duration::from_secs(1);
/// Events kept for a reader that is behind: a restart has two.
const EVENTS: usize = 256;

/// All that a start needs, whoever asked for it.
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) state: State,
    pub(crate) ports: Ports,
    /// The page of the process, bound before a file is made: a taken port is said first.
    pub(crate) bound: Bound,
    pub(crate) services: Placed,
    /// Messages are gone with the process.
    pub(crate) memory: bool,
    pub(crate) leave_grace: Duration,
    pub(crate) identities: Identities,
    pub(crate) pages: Pages,
}

impl Dev {
    /// Starts everything on `lifecycle`, which has to have [`plan`](crate::plan), and returns when all are ready.
    ///
    /// # Errors
    /// [`Error`]: nothing that could be started differently goes on; stop the lifecycle then.
    pub async fn start(options: Options, lifecycle: &Lifecycle) -> Result<Self, Error> {
        if !options.host.is_loopback() {
            return Err(Error::NotLoopback(options.host));
        }
        if options.gateways == 0 {
            return Err(Error::NoGateway);
        }
        let (folder, mut state) = Folder::open(Kind::Dev, &options.dir)?;
        let mut ports = Ports::new(options.host, std::mem::take(&mut state.ports));
        let (services, at) = places(&mut ports, &options, &folder, &state)?;
        let bound = page::bind(at).await.map_err(|error| start_error("the page", &error))?;
        folder.write_api_keys(&state)?;
        let parts = Parts {
            folder,
            state,
            ports,
            bound,
            services,
            memory: options.memory,
            leave_grace: LEAVE_GRACE,
            identities: Identities::NONE,
            pages: Pages::ForPeople,
        };
        Self::run(parts, lifecycle).await
    }

    /// Opens the store, starts the services in order, and says what the stop has to do.
    pub(crate) async fn run(parts: Parts, lifecycle: &Lifecycle) -> Result<Self, Error> {
        let Parts { folder, mut state, ports, bound, services, memory, leave_grace, identities, pages } =
            parts;
        raise_file_limit(&services);
        let path = (!memory).then(|| folder.store());
        let store = Arc::new(SqliteStore::open(SqliteConfig { path, ..SqliteConfig::default() }).await?);
        lifecycle
            .scope(Stage::NotReady)
            .spawn("store file", watch_file(Arc::clone(&store), lifecycle.stopping()));
        let embedded = Arc::new(Embedded::new(store, leave_grace, identities));
        let (events, _) = broadcast::channel(EVENTS);
        let supervised = services.into_iter().map(|(name, config, at)| {
            let (embedded, events) = (Arc::clone(&embedded), events.clone());
            let present = watch::Sender::new(Life::default());
            Arc::new(Supervised { name, config, at, embedded, events, present })
        });
        let page = format!("http://{}", bound.address());
        state.ports = ports.by_name().clone();
        (state.pid, state.admin) = (Some(std::process::id()), Some(page.clone()));
        folder.write(&state)?;
        let inner = DevInner {
            lifecycle: lifecycle.clone(),
            folder,
            memory,
            supervised: supervised.collect(),
            page,
            api_key: state.api_key.clone(),
            notes: ports.notes.clone(),
            events,
        };
        let dev = Self { inner: Arc::new(inner) };
        dev.on_stop(state, ports, &embedded);
        pages.serve(dev.clone(), bound, lifecycle);
        dev.start_all().await;
        lifecycle.ready();
        Ok(dev)
    }

    /// Those who are asked first start first.
    async fn start_all(&self) {
        for service in [Service::Logic, Service::Task, Service::Gateway] {
            if self.inner.lifecycle.stopping().is_cancelled() {
                return;
            }
            let of = || self.inner.supervised.iter().filter(move |one| one.service() == service);
            // They end the other way round: who asks is gone before who is asked.
            let (stage, name) = match service {
                Service::Gateway => (Stage::Drain, "gateway"),
                Service::Task => (Stage::Flush, "task"),
                Service::Logic => (Stage::Release, "logic"),
            };
            let scope = self.inner.lifecycle.scope(stage);
            of().for_each(|one| scope.spawn(name, Arc::clone(one).live(scope.token())));
            for one in of() {
                let mut present = one.present.subscribe();
                let ready = present.wait_for(|present| present.ready);
                self.inner.lifecycle.until_stopping(ready).await;
            }
        }
    }

    fn on_stop(&self, state: State, ports: Ports, embedded: &Arc<Embedded>) {
        let gateways: Vec<_> = self.of(Service::Gateway).cloned().collect();
        self.inner.lifecycle.hook(Stage::NotReady, "leaving", move || async move {
            for gateway in gateways {
                gateway.leaves().await;
            }
            Ok(())
        });
        let (dev, embedded) = (self.clone(), Arc::clone(embedded));
        self.inner.lifecycle.hook(Stage::Gone, "store", move || async move {
            embedded.store.close().await;
            // Ours to the end.
            drop(ports);
            let ended = State { pid: None, admin: None, ..state };
            Ok(dev.inner.folder.write(&ended)?)
        });
    }
}

/// One process has one limit, so the clients of all its gateways count together.
fn raise_file_limit(services: &Placed) {
    let gateways = services.iter().filter_map(|(_, config, _)| match config {
        ServiceConfig::Gateway(config) => Some(config.connections_max),
        ServiceConfig::Logic(_) | ServiceConfig::Task(_) => None,
    });
    // All are told the same.
    files::raise(gateways.clone().count(), gateways.max().unwrap_or_default());
}

/// Fails, and so stops everything, when the folder was emptied under us: `git clean` does that. Publishes are refused
/// before; whoever reads is told by the end.
async fn watch_file(store: Arc<SqliteStore>, stopping: CancellationToken) -> Result<(), BoxError> {
    while stopping.run_until_cancelled(sleep(FILE_LOOK)).await.is_some() {
        store.check_file()?;
    }
    Ok(())
}

/// The services of `sluice dev` with their addresses, and that of the page.
fn places(
    ports: &mut Ports,
    options: &Options,
    folder: &Folder,
    state: &State,
) -> Result<(Placed, SocketAddr), Error> {
    let fixed = options.port.map(|port| ports.fix("gateway-1", port)).transpose()?;
    let mut gateways = Vec::new();
    for number in 1..=options.gateways {
        let name = format!("gateway-{number}");
        let clients = match fixed {
            Some(fixed) if number == 1 => fixed,
            Some(_) | None => ports.choose(&name, if number == 1 { USUAL_CLIENTS } else { 0 })?,
        };
        let admin = ports.choose(&format!("{name} admin"), 0)?;
        gateways.push((name, clients, admin));
    }
    let logic = ports.choose("logic admin", 0)?;
    let api = ports.choose("logic api", 0)?;
    let task = ports.choose("task admin", 0)?;
    let page = ports.choose("page", USUAL_PAGE)?;
    let own = [format!("http://{page}"), format!("http://localhost:{}", page.port())];
    let origins: Vec<String> = own.into_iter().chain(options.origins.iter().cloned()).collect();
    let mut services = Vec::new();
    for (name, clients, admin) in gateways {
        let config = ServiceConfig::Gateway(Box::new(dev_config::gateway(clients, admin, &origins)));
        services.push((name, config, Addresses { clients: Some(clients), api: None, admin }));
    }
    let config = dev_config::logic(api, &folder.api_keys(), logic, &state.token_secret);
    let at = Addresses { clients: None, api: Some(api), admin: logic };
    services.push(("logic".to_owned(), ServiceConfig::Logic(Box::new(config)), at));
    let config = ServiceConfig::Task(Box::new(dev_config::task(task)));
    services.push(("task".to_owned(), config, Addresses { clients: None, api: None, admin: task }));
    Ok((services, page))
}

pub(crate) fn start_error(what: &str, error: &impl ToString) -> Error {
    Error::Start(what.to_owned(), error.to_string())
}
