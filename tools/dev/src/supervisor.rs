//! All services of this process while they run: who they are, how each is, and the restart of one of them.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sluice_cluster::Service;
use sluice_lifecycle::Lifecycle;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

use crate::error::Refused;
use crate::event::Event;
use crate::folder::Folder;
use crate::supervised::Supervised;

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

/// The logic's addresses; they do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logic {
    /// Its place: `logic`.
    pub name: String,
    /// Its HTTP API.
    pub http: String,
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
    pub(crate) inner: Arc<DevInner>,
}

pub(crate) struct DevInner {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) folder: Folder,
    pub(crate) memory: bool,
    pub(crate) supervised: Vec<Arc<Supervised>>,
    pub(crate) page: String,
    pub(crate) api_key: String,
    pub(crate) notes: Vec<String>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl Dev {
    pub(crate) fn of(&self, service: Service) -> impl Iterator<Item = &Arc<Supervised>> {
        self.inner.supervised.iter().filter(move |one| one.service() == service)
    }

    /// The gateways, in order.
    #[must_use]
    pub fn gateways(&self) -> Vec<Gateway> {
        let gateway = |one: &Arc<Supervised>| {
            Some(Gateway { name: one.name.clone(), ws: one.ws()?, admin: one.admin_url() })
        };
        self.of(Service::Gateway).filter_map(gateway).collect()
    }

    /// The logics, in order.
    #[must_use]
    pub fn logics(&self) -> Vec<Logic> {
        let logic = |one: &Arc<Supervised>| {
            Some(Logic { name: one.name.clone(), http: one.http()?, admin: one.admin_url() })
        };
        self.of(Service::Logic).filter_map(logic).collect()
    }

    /// A key of the HTTP API that is good for every call.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.inner.api_key
    }

    /// Admin pages of logic and task, by name.
    #[must_use]
    pub fn others(&self) -> Vec<(String, String)> {
        let others = self.inner.supervised.iter().filter(|one| one.service() != Service::Gateway);
        others.map(|one| (one.name.clone(), one.admin_url())).collect()
    }

    /// The admin page of a service.
    pub(crate) fn admin(&self, name: &str) -> Option<String> {
        self.inner.supervised.iter().find(|one| one.name == name).map(|one| one.admin_url())
    }

    /// Whether somebody is there for clients: a gateway at least, the task, and the logic with a store that takes commits.
    ///
    /// # Errors
    /// Who is missing, or what the store says.
    pub(crate) fn ready(&self) -> Result<(), String> {
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            let mut all: Vec<_> = self.of(service).map(|one| one.ready()).collect();
            // One that is ready is enough; what the last of the others lacks speaks for all.
            if !all.iter().any(Result::is_ok) {
                return all.pop().unwrap_or_else(|| Err(format!("there is no {}", service.as_str())));
            }
        }
        Ok(())
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

    /// The first line for whoever started it: its addresses, its pid, where its data is.
    #[must_use]
    pub fn introduction(&self) -> Value {
        json!({
            "gateways": self.gateways(),
            "logics": self.logics(),
            "page": self.page(),
            "pid": std::process::id(),
            "dir": self.dir(),
            "store": self.store(),
        })
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
        // Subscribed before the stop is asked for: a life that is over at once is not missed.
        let mut present = one.present.subscribe();
        let (life, lifecycle) = {
            let present = present.borrow();
            (present.life, present.lifecycle.clone())
        };
        if !lifecycle.is_some_and(|lifecycle| lifecycle.stop(sluice_lifecycle::StopReason::Admin)) {
            return Err(Refused::Busy(name.to_owned()));
        }
        let again = present.wait_for(|present| present.life > life && present.ready);
        match self.inner.lifecycle.until_stopping(timeout(one.restart_within(), again)).await {
            None => Err(Refused::Stopping),
            Some(Ok(Ok(_))) => Ok(Restarted { name: name.to_owned(), elapsed_ms: millis(begun.elapsed()) }),
            Some(Ok(Err(_)) | Err(_)) => Err(Refused::Late(name.to_owned(), one.restart_within())),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
