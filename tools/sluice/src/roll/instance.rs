//! What is rolled: instances in the order in which they go, each with a hold on its container or process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_launcher::probe;

use super::condition::{Condition, Stopped};
use super::docker::{Compose, Container, Seen};
use super::kind::Kind;
use super::process::Process;
use crate::page::{self, Page};

/// Longest wait for an answer of an admin page.
const LOOK: Duration = Duration::from_secs(3);

/// One instance.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) hold: Hold,
    /// Whether it is to be replaced; the others are only looked at, as nobody is taken away while one is missing.
    pub(super) wanted: bool,
}

/// What is signalled and started.
pub(super) enum Hold {
    Container(Container),
    Process(Box<Process>),
}

impl Instance {
    /// Its admin page, where it can be reached from here.
    pub(super) fn admin(&self) -> Option<String> {
        match &self.hold {
            Hold::Container(container) => container.admin(),
            Hold::Process(process) => process.admin(),
        }
    }

    /// Why it is not ready; `None`: its health check and its admin page say that it is.
    pub(super) async fn lacks(&self) -> anyhow::Result<Option<Lack>> {
        let unhealthy = || Some(Lack::Passing("its health check has not passed".into()));
        Ok(match self.hold.condition().await? {
            Condition::Ended(why) => Some(Lack::Ended(why)),
            Condition::Running { healthy } => {
                // The admin page first: it gives a reason, a health check only says no.
                self.unready().await.or_else(|| if healthy { None } else { unhealthy() })
            }
        })
    }

    /// Like [`Instance::lacks`]; a health check that fails beside an admin page that is ready only says that the
    /// machine is busy.
    pub(super) async fn is_missing(&self) -> anyhow::Result<Option<Lack>> {
        match self.hold.condition().await? {
            Condition::Running { .. } if self.admin().is_some() => Ok(self.unready().await),
            Condition::Running { .. } | Condition::Ended(_) => self.lacks().await,
        }
    }

    /// Which life of it its admin page shows, where it has one; that it is the right page is certain then.
    pub(super) async fn life(&self) -> anyhow::Result<Option<String>> {
        let Some(admin) = self.admin() else { return Ok(None) };
        let page =
            page::ask(&admin, LOOK).await.map_err(anyhow::Error::msg).with_context(|| admin.clone())?;
        let page = Page::of(&page);
        if page.service != self.kind.name() {
            bail!("{admin} is the admin page of a {}, not of {}: correct --admin", page.service, self.name);
        }
        // The right service at the wrong place would be seen ready while another is replaced.
        if let Hold::Process(process) = &self.hold
            && let (Some(said), Some(pid)) = (page.pid, process.pid_within())
            && said != u64::from(pid)
        {
            bail!(
                "{admin} is the admin page of pid {said}, and {} has pid {pid}: correct --pid or --admin",
                self.name
            );
        }
        Ok(Some(page.instance))
    }

    /// What its admin page has against it.
    async fn unready(&self) -> Option<Lack> {
        let url = format!("{}/readyz", self.admin()?.trim_end_matches('/'));
        match probe::get(&url, LOOK).await {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(Lack::Passing(format!("{url}: {} {}", answer.status, answer.body.trim()))),
            Err(error) => Some(Lack::Passing(format!("{url}: {error}"))),
        }
    }
}

/// Why an instance is not ready.
#[derive(Debug)]
pub(super) enum Lack {
    Passing(String),
    Ended(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(why) | Self::Ended(why) => f.write_str(why),
        }
    }
}

impl Hold {
    /// What tells this very process from the one before and after it; `None`: nothing runs.
    pub(super) async fn identity(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Container(container) => container.identity().await,
            Self::Process(process) => Ok(process.identity()),
        }
    }

    pub(super) async fn condition(&self) -> anyhow::Result<Condition> {
        match self {
            Self::Container(container) => container.condition().await,
            Self::Process(process) => Ok(process.condition()),
        }
    }

    /// SIGTERM, and the wait for the end.
    pub(super) async fn stop(&self) -> anyhow::Result<Stopped> {
        match self {
            Self::Container(container) => container.stop().await,
            Self::Process(process) => process.stop().await,
        }
    }

    /// Starts what does not run, and makes anew what has changed.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        match self {
            Self::Container(container) => container.start().await,
            Self::Process(process) => process.start(),
        }
    }
}

/// The instances among the containers of a project: what runs a program of ours.
pub(super) fn among(compose: &Arc<Compose>, seen: &[Seen]) -> anyhow::Result<Vec<Instance>> {
    let mut found: Vec<Instance> = Vec::new();
    for container in seen {
        // Stores and whatever else is in the file: not ours to roll.
        let (Some(kind), Some(service)) = (Kind::of_program(&container.path), container.service()) else {
            continue;
        };
        if found.iter().any(|instance| instance.name == service) {
            bail!(
                "service {service} has several containers, and compose can only replace them together: give each \
                 a service of its own, as deploy/compose.cluster.yaml does"
            );
        }
        let hold = Hold::Container(Container::of(compose, container, service));
        found.push(Instance { name: service.to_owned(), kind, hold, wanted: true });
    }
    Ok(found)
}
