//! Everything in one process: starts the services in order, restarts one of them, and has all of them stop in order.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sluice_cluster::Service;
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_store::Store;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};

use crate::embedded::Embedded;
use crate::error::{Error, Refused};
use crate::event::Event;
use crate::folder::{Folder, State};
use crate::options::Options;
use crate::page;
use crate::ports::Ports;
use crate::supervised::{Addresses, Life, Supervised};

/// Where clients of the first gateway connect, when the port is free.
const USUAL_CLIENTS: u16 = 8080;
/// Where the page is, when the port is free.
const USUAL_PAGE: u16 = 8081;
/// A stop takes 4 s at most and a start much less, also on a busy machine.
const RESTART_WITHIN: Duration = Duration::from_secs(15);
/// Events kept for a reader that is behind: a restart has two.
const EVENTS: usize = 256;

/// A gateway's addresses; they do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Its place: `gateway-1`.
    pub name: String,
    /// Where clients connect.
    pub ws: String,
    /// Its admin pages.
    pub admin: String,
}

/// How a restart went.
#[derive(Debug, Clone, Serialize)]
pub struct Restarted {
    /// The place.
    pub name: String,
    /// From the request until the next life was ready.
    pub elapsed_ms: u64,
}

/// All services of this process.
#[derive(Clone)]
pub struct Dev {
    inner: Arc<Inner>,
}

struct Inner {
    lifecycle: Lifecycle,
    folder: Folder,
    memory: bool,
    supervised: Vec<Arc<Supervised>>,
    page: String,
    notes: Vec<String>,
    events: broadcast::Sender<Event>,
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
        let (folder, mut state) = Folder::open(&options.dir)?;
        let ports = Ports::new(options.host, std::mem::take(&mut state.ports));
        let places = Places::choose(ports, &options)?;
        let bound = page::bind(places.page).await.map_err(|error| start_error("the page", &error))?;
        let path = (!options.memory).then(|| folder.store());
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(SqliteConfig { path, ..SqliteConfig::default() }).await?);
        let embedded = Arc::new(Embedded::new(store, state.token_secret.clone()));
        let (events, _) = broadcast::channel(EVENTS);
        let page = format!("http://{}", places.page);
        let supervised = places.supervised(&embedded, &events);
        state.ports = places.ports.by_name().clone();
        (state.pid, state.admin) = (Some(std::process::id()), Some(page.clone()));
        folder.write(&state)?;
        let inner = Inner {
            lifecycle: lifecycle.clone(),
            folder,
            memory: options.memory,
            supervised,
            page,
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

    fn of(&self, service: Service) -> impl Iterator<Item = &Arc<Supervised>> {
        self.inner.supervised.iter().filter(move |one| one.service == service)
    }

    /// The gateways, in order.
    #[must_use]
    pub fn gateways(&self) -> Vec<Gateway> {
        let gateway = |one: &Arc<Supervised>| {
            Some(Gateway { name: one.name.clone(), ws: one.ws()?, admin: one.admin_url() })
        };
        self.of(Service::Gateway).filter_map(gateway).collect()
    }

    /// Admin pages of logic and task, by name.
    #[must_use]
    pub fn others(&self) -> Vec<(String, String)> {
        let others = self.inner.supervised.iter().filter(|one| one.service != Service::Gateway);
        others.map(|one| (one.name.clone(), one.admin_url())).collect()
    }

    /// The page with everything on it, `http://host:port`.
    #[must_use]
    pub fn page(&self) -> &str {
        &self.inner.page
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.inner.folder.path()
    }

    /// The file with the messages; `None`: memory.
    #[must_use]
    pub fn store(&self) -> Option<std::path::PathBuf> {
        (!self.inner.memory).then(|| self.inner.folder.store())
    }

    /// Sentences for people: what is not as expected.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Who is there and where each stands, as the page shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "pid": std::process::id(),
            "dir": self.dir(),
            "memory": self.inner.memory,
            "stage": self.inner.lifecycle.stage().as_str(),
            "services": self.inner.supervised.iter().map(|one| one.to_json()).collect::<Vec<_>>(),
        })
    }

    /// Stops one service as a signal would and starts it again at the same addresses. Returns when it is ready.
    ///
    /// # Errors
    /// [`Refused`] when there is no such place or it does not come back.
    pub async fn restart(&self, name: &str) -> Result<Restarted, Refused> {
        let Some(one) = self.inner.supervised.iter().find(|one| one.name == name) else {
            let names: Vec<&str> = self.inner.supervised.iter().map(|one| one.name.as_str()).collect();
            return Err(Refused::Unknown(name.to_owned(), names.join(", ")));
        };
        let begun = Instant::now();
        let mut present = one.present.subscribe();
        let (life, lifecycle) = {
            let present = present.borrow();
            (present.life, present.lifecycle.clone())
        };
        if !lifecycle.is_some_and(|lifecycle| lifecycle.stop(sluice_lifecycle::StopReason::Admin)) {
            return Err(Refused::Busy(name.to_owned()));
        }
        let again = present.wait_for(|present| present.life > life && present.ready);
        match self.inner.lifecycle.until_stopping(timeout(RESTART_WITHIN, again)).await {
            None => Err(Refused::Stopping),
            Some(Ok(Ok(_))) => Ok(Restarted { name: name.to_owned(), elapsed_ms: millis(begun.elapsed()) }),
            Some(Ok(Err(_)) | Err(_)) => Err(Refused::Late(name.to_owned())),
        }
    }
}

/// Who sits where.
struct Places {
    ports: Ports,
    page: std::net::SocketAddr,
    services: Vec<(String, Service, Addresses)>,
}

impl Places {
    fn choose(mut ports: Ports, options: &Options) -> Result<Self, Error> {
        let fixed = options.port.map(|port| ports.fix("gateway-1", port)).transpose()?;
        let mut services = Vec::new();
        for number in 1..=options.gateways {
            let name = format!("gateway-{number}");
            let clients = match fixed {
                Some(fixed) if number == 1 => fixed,
                Some(_) | None => ports.choose(&name, if number == 1 { USUAL_CLIENTS } else { 0 })?,
            };
            let admin = ports.choose(&format!("{name} admin"), 0)?;
            services.push((name, Service::Gateway, Addresses { clients: Some(clients), admin }));
        }
        for (name, service) in [("logic", Service::Logic), ("task", Service::Task)] {
            let admin = ports.choose(&format!("{name} admin"), 0)?;
            services.push((name.to_owned(), service, Addresses { clients: None, admin }));
        }
        let page = ports.choose("page", USUAL_PAGE)?;
        Ok(Self { ports, page, services })
    }

    fn supervised(
        &self,
        embedded: &Arc<Embedded>,
        events: &broadcast::Sender<Event>,
    ) -> Vec<Arc<Supervised>> {
        let origins = vec![format!("http://{}", self.page), format!("http://localhost:{}", self.page.port())];
        let supervised = |(name, service, at): &(String, Service, Addresses)| {
            Arc::new(Supervised {
                name: name.clone(),
                service: *service,
                at: at.clone(),
                origins: origins.clone(),
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
