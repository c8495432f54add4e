//! What is known of the cluster: plain data, no I/O.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluice_proto::ids::InstanceId;

/// Which of the three services an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Holds client sockets.
    Gateway,
    /// Decides and commits.
    Logic,
    /// Moves messages and owed work.
    Task,
}

impl Service {
    /// The name in keys, ids and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Logic => "logic",
            Self::Task => "task",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service: gateway, logic, task")]
pub struct UnknownService(String);

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        let named = |service: &Self| service.as_str() == text;
        [Self::Gateway, Self::Logic, Self::Task]
            .into_iter()
            .find(named)
            .ok_or_else(|| UnknownService(text.into()))
    }
}

/// Whether an instance wants new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Takes new work.
    Serving,
    /// Finishes what it has; asked only while nobody serves.
    Draining,
}

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Which service it runs.
    pub service: Service,
    /// Where others reach its gRPC server, `host:port`.
    pub address: String,
    /// Where clients reach it, for gateways: a `ws://` or `wss://` URL.
    pub url: Option<String>,
    /// The build.
    pub version: String,
}

/// A running process, or a seed that stands for one not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// New at every registration; of a seed: `seed-<address>`.
    pub id: InstanceId,
    /// Which service it runs.
    pub service: Service,
    /// Where its gRPC server is, `host:port`.
    pub address: String,
    /// Where clients reach it.
    pub url: Option<String>,
    /// The build; empty for seeds.
    pub version: String,
    /// When it registered, milliseconds since 1970 by its own clock; 0 for seeds.
    pub started_ms: i64,
    /// Whether it wants new work.
    pub state: State,
    /// How many more clients it would take, if it said so.
    pub headroom: Option<u32>,
}

impl Instance {
    /// Whether this is a configured address rather than a registration.
    #[must_use]
    pub fn is_seed(&self) -> bool {
        self.started_ms == 0
    }
}

/// All instances as last known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// By id: this process too, once it is registered; seeds while no instance has their address.
    pub instances: HashMap<InstanceId, Instance>,
    /// Whether this process is in the registry's list: only then absence of others means anything.
    pub sees_me: bool,
}

impl View {
    /// Instances of one service, in no order.
    pub fn of(&self, service: Service) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |instance| instance.service == service)
    }

    /// Instances of one service besides `me` that may be there. Not seeds, which say nothing about who is there; and
    /// nobody at the address of `me`: that is who was there before and was killed, listed until its lease ends.
    pub fn others<'a>(&'a self, service: Service, me: &'a InstanceId) -> impl Iterator<Item = &'a Instance> {
        let mine = self.instances.get(me).map(|me| me.address.as_str());
        self.of(service)
            .filter(move |one| one.id != *me && !one.is_seed() && mine != Some(one.address.as_str()))
    }
}

/// A piece of work that one task does for all. Ordered and named as in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Outbox and retention.
    Sweep,
    /// Fields of gone instances.
    Reap,
    /// Delayed messages of two lanes: `due/0` … `due/7`.
    Due(u8),
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sweep => f.write_str("sweep"),
            Self::Reap => f.write_str("reap"),
            Self::Due(part) => write!(f, "due/{part}"),
        }
    }
}

/// The text names no duty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duty: sweep, reap, due/0 … due/7")]
pub struct UnknownDuty(String);

impl FromStr for Duty {
    type Err = UnknownDuty;

    fn from_str(text: &str) -> Result<Self, UnknownDuty> {
        match text {
            "sweep" => Ok(Self::Sweep),
            "reap" => Ok(Self::Reap),
            _ => match text.strip_prefix("due/").map(str::parse) {
                Some(Ok(part @ 0..=7)) => Ok(Self::Due(part)),
                Some(_) | None => Err(UnknownDuty(text.into())),
            },
        }
    }
}

/// Who owns a duty, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DutyInfo {
    /// Which.
    pub duty: Duty,
    /// Its owner in the registry.
    pub owner: Option<InstanceId>,
    /// Whether that owner is among the instances.
    pub owner_lives: bool,
    /// Whether this process is to do it, as owner or because there is none.
    pub mine: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_at_my_address_is_no_other() {
        let instance = |name: &str, address: &str, started_ms| Instance {
            id: InstanceId::parse(name).expect("a name"),
            service: Service::Gateway,
            address: address.into(),
            url: None,
            version: String::new(),
            started_ms,
            state: State::Serving,
            headroom: None,
        };
        let all = [
            instance("before", "gateway-1:7080", 1),
            instance("me", "gateway-1:7080", 2),
            instance("other", "gateway-2:7080", 1),
            instance("seed", "gateway-3:7080", 0),
        ];
        let me = all[1].id.clone();
        let view = |all: &[Instance]| View {
            instances: all.iter().map(|one| (one.id.clone(), one.clone())).collect(),
            sees_me: true,
        };
        let others = |view: &View, service| {
            let mut names: Vec<String> = view.others(service, &me).map(|one| one.id.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(others(&view(&all), Service::Gateway), ["other"]);
        assert_eq!(others(&view(&all), Service::Logic), [""; 0]);
        let unlisted: Vec<Instance> = all.iter().filter(|one| one.id != me).cloned().collect();
        assert_eq!(others(&view(&unlisted), Service::Gateway), ["before", "other"], "mine is not known");
    }
}
