//! The start: chooses addresses, opens the store, starts the services in order, and says what the stop has to do at
//! its beginning and its end. What runs afterwards is the supervisor's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::Service;
use sluice_lifecycle::{BoxError, Lifecycle, Stage};
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::embedded::Embedded;
use crate::error::Error;
use crate::event::Event;
use crate::folder::{Folder, State};
use crate::options::Options;
use crate::page;
use crate::ports::Ports;
use crate::supervised::{Addresses, Life, Supervised};
use crate::supervisor::{Dev, DevInner};

/// Where clients of the first gateway connect, when the port is free.
const USUAL_CLIENTS: u16 = 8080;
/// Where the page is, when the port is free.
const USUAL_PAGE: u16 = 8081;
/// Between two looks whether the file with the messages is still there.
const FILE_LOOK: Duration = Duration::from_secs(1);
/// Events kept for a reader that is behind: a restart has two.
const EVENTS: usize = 256;

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
        let (folder, mut state) = Folder::open(&options.dir)?;
        let ports = Ports::new(options.host, std::mem::take(&mut state.ports));
        let places = Places::choose(ports, &options, folder.api_keys())?;
        // Bound before the store is opened: a taken port is said before a file is made.
        let bound = page::bind(places.page).await.map_err(|error| start_error("the page", &error))?;
        let path = (!options.memory).then(|| folder.store());
        let store = Arc::new(SqliteStore::open(SqliteConfig { path, ..SqliteConfig::default() }).await?);
        lifecycle
            .scope(Stage::NotReady)
            .spawn("store file", watch_file(Arc::clone(&store), lifecycle.stopping()));
        let embedded = Arc::new(Embedded::new(store, state.token_secret.clone()));
        let (events, _) = broadcast::channel(EVENTS);
        let page = format!("http://{}", places.page);
        let supervised = places.supervised(&embedded, &events);
        state.ports = places.ports.by_name().clone();
        (state.pid, state.admin) = (Some(std::process::id()), Some(page.clone()));
        folder.write(&state)?;
        folder.write_api_keys(&state)?;
        let inner = DevInner {
            lifecycle: lifecycle.clone(),
            folder,
            memory: options.memory,
            supervised,
            page,
            api_key: state.api_key.clone(),
            notes: places.ports.notes.clone(),
            events,
        };
        let dev = Self { inner: Arc::new(inner) };
        dev.on_stop(state, places.ports, &embedded);
        page::serve(dev.clone(), bound, lifecycle);
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
            let of = || self.inner.supervised.iter().filter(move |one| one.service == service);
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

/// Fails, and so stops everything, when the folder was emptied under us: `git clean` does that. Publishes are refused
/// before; whoever reads is told by the end.
async fn watch_file(store: Arc<SqliteStore>, stopping: CancellationToken) -> Result<(), BoxError> {
    while stopping.run_until_cancelled(sleep(FILE_LOOK)).await.is_some() {
        store.check_file()?;
    }
    Ok(())
}

/// Who listens where.
struct Places {
    ports: Ports,
    page: std::net::SocketAddr,
    services: Vec<(String, Service, Addresses)>,
    /// Whose pages may connect.
    origins: Vec<String>,
}

impl Places {
    fn choose(mut ports: Ports, options: &Options, api_keys: PathBuf) -> Result<Self, Error> {
        let fixed = options.port.map(|port| ports.fix("gateway-1", port)).transpose()?;
        let mut services = Vec::new();
        for number in 1..=options.gateways {
            let name = format!("gateway-{number}");
            let clients = match fixed {
                Some(fixed) if number == 1 => fixed,
                Some(_) | None => ports.choose(&name, if number == 1 { USUAL_CLIENTS } else { 0 })?,
            };
            let admin = ports.choose(&format!("{name} admin"), 0)?;
            services.push((name, Service::Gateway, Addresses { clients: Some(clients), api: None, admin }));
        }
        for (name, service) in [("logic", Service::Logic), ("task", Service::Task)] {
            let admin = ports.choose(&format!("{name} admin"), 0)?;
            let api = (service == Service::Logic)
                .then(|| Ok::<_, Error>((ports.choose("logic api", 0)?, api_keys.clone())))
                .transpose()?;
            services.push((name.to_owned(), service, Addresses { clients: None, api, admin }));
        }
        let page = ports.choose("page", USUAL_PAGE)?;
        let own = [format!("http://{page}"), format!("http://localhost:{}", page.port())];
        let origins = own.into_iter().chain(options.origins.iter().cloned()).collect();
        Ok(Self { ports, page, services, origins })
    }

    fn supervised(
        &self,
        embedded: &Arc<Embedded>,
        events: &broadcast::Sender<Event>,
    ) -> Vec<Arc<Supervised>> {
        let supervised = |(name, service, at): &(String, Service, Addresses)| {
            Arc::new(Supervised {
                name: name.clone(),
                service: *service,
                at: at.clone(),
                origins: self.origins.clone(),
                embedded: Arc::clone(embedded),
                events: events.clone(),
                present: watch::Sender::new(Life::default()),
            })
        };
        self.services.iter().map(supervised).collect()
    }
}

fn start_error(what: &str, error: &impl ToString) -> Error {
    Error::Start(what.to_owned(), error.to_string())
}
