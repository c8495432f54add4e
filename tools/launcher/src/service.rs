//! What a cluster is made of, by name. It starts nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// Looks after a Redis with replicas.
    Sentinel,
    /// PostgreSQL.
    Postgres,
    /// Leads to the primary of a PostgreSQL with standbys.
    Haproxy,
}

impl Service {
    /// The services of Sluice itself.
    pub const SERVICES: [Self; 3] = [Self::Gateway, Self::Logic, Self::Task];
    /// The servers it stands on. Sentinels and HAProxy are beside them, where there are any.
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
            Self::Sentinel => "sentinel",
            Self::Postgres => "postgres",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether this is one of the servers that Sluice stands on, or looks after one.
    #[must_use]
    pub fn is_store(self) -> bool {
        !Self::SERVICES.contains(&self)
    }

    /// Name of one process, as people and log files have it: `logic-1` is the one with index 0; `nats`, and `nats-2`.
    #[must_use]
    pub fn name(self, index: usize) -> String {
        // Most clusters have one of each server: its name has no number.
        if self.is_store() && index == 0 { self.as_str().to_owned() } else { format!("{self}-{}", index + 1) }
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
        let all = Self::SERVICES.into_iter().chain(Self::STORES).chain([Self::Sentinel, Self::Haproxy]);
        all.into_iter().find(|service| service.as_str() == text).ok_or_else(|| {
            let names = "gateway, logic, task, nats, etcd, redis, sentinel, postgres or haproxy";
            format!("{text:?} is no service: {names}")
        })
    }
}
