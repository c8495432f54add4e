//! Names of what is drilled: a process of the target as people and settings call it. Nothing here touches a process.

use std::fmt;
use std::str::FromStr;

use sluice_launcher::Service;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds client sockets.
    Gateway,
    /// Decides and commits.
    Logic,
    /// Moves committed messages.
    Task,
    /// All services in one process.
    Dev,
    /// NATS with JetStream.
    Nats,
    /// etcd.
    Etcd,
    /// Redis.
    Redis,
    /// PostgreSQL.
    Postgres,
}

impl Role {
    /// The services of Sluice, each a process of its own.
    pub const SERVICES: [Self; 3] = [Self::Gateway, Self::Logic, Self::Task];
    /// The servers that may forget everything.
    pub const FORGETFUL: [Self; 3] = [Self::Nats, Self::Etcd, Self::Redis];
    const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Logic,
        Self::Task,
        Self::Dev,
        Self::Nats,
        Self::Etcd,
        Self::Redis,
        Self::Postgres,
    ];

    /// The name in tables and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
            Self::Task => "task",
            Self::Dev => "dev",
            Self::Nats => "nats",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// Whether it is a server that Sluice stands on: not judged, only used.
    #[must_use]
    pub const fn is_store(self) -> bool {
        matches!(self, Self::Nats | Self::Etcd | Self::Redis | Self::Postgres)
    }

    /// What the launcher calls it; `dev` is none of its processes.
    #[must_use]
    pub const fn service(self) -> Option<Service> {
        match self {
            Self::Gateway => Some(Service::Gateway),
            Self::Logic => Some(Service::Logic),
            Self::Task => Some(Service::Task),
            Self::Nats => Some(Service::Nats),
            Self::Etcd => Some(Service::Etcd),
            Self::Redis => Some(Service::Redis),
            Self::Postgres => Some(Service::Postgres),
            Self::Dev => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One process: it keeps its place when it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// What it is.
    pub role: Role,
    /// Which one of its kind, from 0; names count from 1.
    pub index: usize,
}

impl Place {
    /// The place of a server, of which there is one.
    #[must_use]
    pub const fn only(role: Role) -> Self {
        Self { role, index: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a group the first has no number either: most clusters have one of each server.
        if (self.role.is_store() && self.index == 0) || self.role == Role::Dev {
            write!(f, "{}", self.role)
        } else {
            write!(f, "{}-{}", self.role, self.index + 1)
        }
    }
}

/// `gateway-1`, or `redis`; without a number it is the first.
impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once('-') {
            Some((name, number)) => (name, number.parse::<usize>().ok().and_then(|n| n.checked_sub(1))),
            None => (text, Some(0)),
        };
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        role.zip(index).map(|(role, index)| Self { role, index }).ok_or_else(|| {
            let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
            format!(
                "{text:?} is no process: write one of {}, with its number from 1 where there are several, as gateway-1",
                roles.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["gateway-1", "logic-2", "task-12", "redis", "etcd-3", "postgres", "dev"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("gateway".parse::<Place>().unwrap().to_string(), "gateway-1");
        for text in ["", "cat", "gateway-x", "gateway-0", "cat-1"] {
            assert!(text.parse::<Place>().unwrap_err().contains("gateway-1"), "{text:?}");
        }
    }
}
