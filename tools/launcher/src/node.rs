//! One running process as others see it: what it is, where it listens, how to signal it.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Everything a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Holds client sockets.
    Gateway,
    /// Decides and commits.
    Logic,
    /// Moves committed messages.
    Task,
    /// NATS with JetStream.
    Nats,
    /// etcd.
    Etcd,
    /// Redis.
    Redis,
    /// PostgreSQL.
    Postgres,
}

impl Service {
    /// The services of Sluice itself.
    pub const SERVICES: [Self; 3] = [Self::Gateway, Self::Logic, Self::Task];
    /// The servers it stands on.
    pub const STORES: [Self; 4] = [Self::Nats, Self::Etcd, Self::Redis, Self::Postgres];

    /// The name used in events, file names and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
            Self::Task => "task",
            Self::Nats => "nats",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// Whether this is one of the servers that Sluice stands on.
    #[must_use]
    pub fn is_store(self) -> bool {
        Self::STORES.contains(&self)
    }

    /// Name of one process, as people and log files have it: `logic-1` is the one with index 0; `nats`.
    #[must_use]
    pub fn name(self, index: usize) -> String {
        if self.is_store() { self.as_str().to_owned() } else { format!("{self}-{}", index + 1) }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::SERVICES.into_iter().chain(Self::STORES);
        all.into_iter().find(|service| service.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no service: gateway, logic, task, nats, etcd, redis or postgres")
        })
    }
}

/// Where a process listens. Only what it has is present, also in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Gateway: where clients connect, `ws://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<String>,
    /// Services: admin HTTP, `http://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Logic: its gRPC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Stores: the URL services are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Services: the first instance id (a lost lease gives a new one). Not part of the JSON.
    #[serde(skip)]
    pub instance: Option<String>,
}

/// One process of the cluster: a snapshot that stays valid when the process is replaced.
///
/// Signals and waits are those of [`Process`], to which it dereferences.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub service: Service,
    /// Which one of its service; stays the same for a replacement.
    pub index: usize,
    /// Where it listens.
    pub addresses: Addresses,
    pub(crate) process: Arc<Process>,
}

impl Node {
    /// Where clients connect, `ws://…`; empty for all but gateways.
    #[must_use]
    pub fn ws(&self) -> &str {
        self.addresses.ws.as_deref().unwrap_or_default()
    }

    /// Admin HTTP, `http://…`; empty for stores.
    #[must_use]
    pub fn admin(&self) -> &str {
        self.addresses.admin.as_deref().unwrap_or_default()
    }

    /// URL of a store; empty for services.
    #[must_use]
    pub fn url(&self) -> &str {
        self.addresses.url.as_deref().unwrap_or_default()
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// As in line 1 of `sluice cluster --json`: the addresses and the pid.
impl Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(flatten)]
            addresses: &'a Addresses,
            pid: u32,
        }
        Shape { addresses: &self.addresses, pid: self.pid() }.serialize(serializer)
    }
}
