//! What is known of the cluster: plain data, no I/O.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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
pub enum InstanceState {
    /// The instance takes new work.
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
    /// The version of the build.
    pub version: String,
}

/// What a process can still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Clients more than it has.
    pub connections: u32,
    /// New ones in a second, more than come already; `None`: it has no limit, or its version does not say.
    pub handshakes_per_s: Option<u32>,
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
    pub state: InstanceState,
    /// How much more it would take, if it said so.
    pub headroom: Option<Headroom>,
}

impl Instance {
    /// Whether this is a configured address rather than a registration.
    #[must_use]
    pub fn is_seed(&self) -> bool {
        self.started_ms == 0
    }

    /// Whether `younger` is in the place of this one, which therefore ended without a word.
    #[cfg(feature = "etcd")]
    pub(crate) fn is_replaced_by(&self, younger: &Self) -> bool {
        let same = self.service == younger.service && self.place() == younger.place();
        same && self.started_ms < younger.started_ms
    }

    /// Host and address: only one process at a time has both. Several have the same address where nobody dials it, as
    /// tasks in containers, which listen on `0.0.0.0`.
    fn place(&self) -> (&str, &str) {
        let host = self.id.as_str().rsplit_once('-').map_or("", |(host, _random)| host);
        (host, &self.address)
    }
}

/// All instances as last known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// By id: this process too, once it is registered; seeds while no instance has their address.
    pub instances: HashMap<InstanceId, Instance>,
    /// Whether this process is in the registry's list: only then absence of others means anything.
    pub sees_me: bool,
}

impl ClusterView {
    /// Instances of one service, in no order.
    pub fn of(&self, service: Service) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |instance| instance.service == service)
    }

    /// Instances of one service besides `me` that may be there. Not seeds, which say nothing about who is there; and
    /// nobody in the place of `me`: that is who was there before and was killed, listed until its lease ends.
    pub fn others<'a>(&'a self, service: Service, me: &'a InstanceId) -> impl Iterator<Item = &'a Instance> {
        // A predecessor that was killed stays listed until its lease ends; it will not come back.
        let mine = self.instances.get(me).map(Instance::place);
        self.of(service).filter(move |one| one.id != *me && !one.is_seed() && mine != Some(one.place()))
    }
}

/// A piece of work that one task does for all. Ordered and named as in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Announces old outbox rows again and applies retention.
    Sweep,
    /// Fields of gone instances.
    Reap,
    /// Delayed messages of two lanes: `due/0` … `due/7`.
    Due(u8),
}

impl Duty {
    /// How many duties delayed messages are divided into.
    pub const DUE_PARTS: u8 = 8;

    /// All that tasks do.
    #[must_use]
    pub fn all() -> BTreeSet<Self> {
        (0..Self::DUE_PARTS).map(Self::Due).chain([Self::Sweep, Self::Reap]).collect()
    }
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
                Some(Ok(part @ 0..Self::DUE_PARTS)) => Ok(Self::Due(part)),
                Some(_) | None => Err(UnknownDuty(text.into())),
            },
        }
    }
}

/// Who owns a duty, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DutyInfo {
    /// The duty.
    pub duty: Duty,
    /// Its owner in the registry.
    pub owner: Option<InstanceId>,
    /// Whether that owner is among the instances.
    pub owner_lives: bool,
    /// How long it has been its owner, as far as this process saw.
    pub held_for: Option<Duration>,
    /// Whether this process is to do it, as owner or because there is none.
    pub mine: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(listed: &[(&str, &str, i64)]) -> ClusterView {
        let instance = |(name, address, started_ms): &(&str, &str, i64)| Instance {
            id: InstanceId::parse(name).expect("a name"),
            service: Service::Task,
            address: (*address).into(),
            url: None,
            version: String::new(),
            started_ms: *started_ms,
            state: InstanceState::Serving,
            headroom: None,
        };
        let instances = listed.iter().map(instance).map(|one| (one.id.clone(), one)).collect();
        ClusterView { instances, sees_me: true }
    }

    fn others(view: &ClusterView, service: Service) -> Vec<String> {
        let me = InstanceId::parse("task-one-2").expect("a name");
        let mut names: Vec<String> = view.others(service, &me).map(|one| one.id.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn who_was_killed_in_my_place_is_no_other() {
        let mut listed = vec![
            ("task-one-1", "0.0.0.0:7072", 1),
            ("task-two-1", "0.0.0.0:7072", 1),
            ("task-one-3", "0.0.0.0:7073", 1),
            ("seed-three:7072", "three:7072", 0),
            ("task-one-2", "0.0.0.0:7072", 2),
        ];
        assert_eq!(others(&view(&listed), Service::Task), ["task-one-3", "task-two-1"]);
        assert_eq!(others(&view(&listed), Service::Logic), [""; 0]);
        listed.pop();
        let all = ["task-one-1", "task-one-3", "task-two-1"];
        assert_eq!(others(&view(&listed), Service::Task), all, "where I am is not known");
    }
}
