//! What is drilled: a cluster of our own, or one that is given. One vocabulary for both: places that are signalled,
//! that end and are started again. Which of it is good for what, the faults know.

pub mod given;
pub mod own;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sluice_launcher::{Cluster, Signal};

use crate::api::ApiAccess;
use crate::place::{Place, Role};
use given::Given;
use own::Own;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, and whoever waited for it was not us.
    Unseen,
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: Ending,
    /// How long it took from the signal that asked for it.
    pub took: Duration,
}

/// What is drilled.
pub enum Target {
    /// Started for the drill, on servers of its own.
    Own(Box<Own>),
    /// Running already, or started by a command.
    Given(Box<Given>),
}

impl Target {
    /// All processes of a kind that can be reached.
    #[must_use]
    pub fn places(&self, role: Role) -> Vec<Place> {
        match self {
            Self::Own(own) => own.places(role),
            Self::Given(given) => given.places(role),
        }
    }

    /// Where clients connect, a URL for each gateway.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        match self {
            Self::Own(own) => own.endpoints(),
            Self::Given(given) => given.endpoints(),
        }
    }

    /// Where backends call; `None` = nobody said.
    #[must_use]
    pub fn api(&self) -> Option<ApiAccess> {
        match self {
            Self::Own(own) => Some(own.api()),
            Self::Given(given) => given.api(),
        }
    }

    /// What tokens are signed with.
    #[must_use]
    pub fn token_secret(&self) -> &str {
        match self {
            Self::Own(own) => own.cluster().token_secret(),
            Self::Given(given) => given.token_secret(),
        }
    }

    /// URL of the store, to read the truth; `None` = nobody said.
    #[must_use]
    pub fn store_url(&self) -> Option<String> {
        match self {
            Self::Own(own) => Some(own.store_url()),
            Self::Given(given) => given.store_url(),
        }
    }

    /// Whose etcd and Redis can be asked for what was left behind.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Own(own) => Some(own.cluster()),
            Self::Given(_) => None,
        }
    }

    /// Admin pages of the processes that have one.
    #[must_use]
    pub fn admins(&self) -> BTreeMap<Place, String> {
        match self {
            Self::Own(own) => own.admins(),
            Self::Given(given) => given.admins(),
        }
    }

    /// Process ids of the services that run on this machine.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<Place, u32> {
        match self {
            Self::Own(own) => own.pids(),
            Self::Given(given) => given.pids(),
        }
    }

    /// Where the logs of the processes are.
    #[must_use]
    pub fn log_dir(&self) -> Option<&Path> {
        match self {
            Self::Own(own) => Some(own.cluster().dir()),
            Self::Given(given) => given.log_dir(),
        }
    }

    /// Sends a signal; `false` when the process is not there.
    pub async fn signal(&self, place: Place, signal: Signal) -> bool {
        match self {
            Self::Own(own) => own.signal(place, signal),
            Self::Given(given) => given.signal(place, signal).await,
        }
    }

    /// Waits for the end of a process that was signalled; `None` = it still runs.
    pub async fn ended(&self, place: Place, within: Duration) -> Option<Ended> {
        match self {
            Self::Own(own) => own.ended(place, within).await,
            Self::Given(given) => given.ended(place, within).await,
        }
    }

    /// Links that were slow all the while are so no more: what follows is a look at what is left, and not patience.
    pub fn heal_slow_links(&self) {
        if let Self::Own(own) = self {
            own.heal_slow_links();
        }
    }

    /// How often a standby of PostgreSQL was promoted under Patroni, as soon as there is a primary; `None` without Patroni.
    pub async fn timeline(&self) -> Option<u64> {
        match self {
            Self::Own(own) => own.timeline().await,
            Self::Given(_) => None,
        }
    }

    /// Starts a process in a place whose former one has ended, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(&self, place: Place) -> anyhow::Result<()> {
        match self {
            Self::Own(own) => own.start_at(place).await,
            Self::Given(given) => given.start_at(place).await,
        }
    }

    /// Stops everything kindly, services before what they stand on; how each service ended. A given target goes on.
    pub async fn stop(&self) -> Vec<(Place, Ended)> {
        match self {
            Self::Own(own) => own.stop().await,
            Self::Given(given) => given.stop().await,
        }
    }
}
