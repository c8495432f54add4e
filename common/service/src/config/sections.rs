//! The sections that services have in common, and what in each contradicts itself. Keys as in the file.
//!
//! Where services differ in a default, the service's own `Default` names it ([`Admin::at`], [`Grpc::at`],
//! [`Endpoint::at`]): [`load`](super::load) lays what is configured over that, key by key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Address;
use crate::telemetry::Format;

/// The shortest lease that etcd grants, seconds.
const LEASE_TTL_MIN_S: u64 = 2;

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where health, status and metrics are, HTTP.
    pub listen: Address,
}

impl Admin {
    /// On a port of this machine.
    #[must_use]
    pub fn at(port: u16) -> Self {
        Self { listen: Address::local(port) }
    }
}

/// `[grpc]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where other services' calls are taken.
    pub listen: Address,
    /// `host:port` under which others reach it; empty: the address it is bound to.
    pub advertise: String,
}

impl Grpc {
    /// On a port of this machine.
    #[must_use]
    pub fn at(port: u16) -> Self {
        Self { listen: Address::local(port), advertise: String::new() }
    }

    /// What others would read is an address that leads nowhere.
    #[must_use]
    pub fn check(&self) -> Option<String> {
        let Self { listen, advertise } = self;
        (advertise.is_empty() && listen.is_unspecified()).then(|| {
            format!("grpc.listen is {listen}, which others cannot dial: set grpc.advertise to this machine's host:port")
        })
    }
}

/// `[etcd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// URLs of the servers.
    pub endpoints: Vec<String>,
    /// How long a silent instance counts as there, seconds.
    pub lease_ttl_s: u64,
}

impl Default for Etcd {
    fn default() -> Self {
        Self { endpoints: vec!["http://127.0.0.1:2379".into()], lease_ttl_s: 10 }
    }
}

impl Etcd {
    /// No server, or a lease that etcd does not grant.
    pub fn check(&self) -> impl Iterator<Item = String> {
        let ttl = self.lease_ttl_s;
        let nowhere =
            self.endpoints.is_empty().then(|| "etcd.endpoints is empty: name at least one URL".to_owned());
        let short = (ttl < LEASE_TTL_MIN_S)
            .then(|| format!("etcd.lease_ttl_s is {ttl}, etcd grants {LEASE_TTL_MIN_S} at least"));
        nowhere.into_iter().chain(short)
    }

    /// How long a silent instance counts as there.
    #[must_use]
    pub const fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.lease_ttl_s)
    }
}

/// `[logic]` and `[gateway]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seeds {
    /// gRPC addresses (`host:port`) to use while etcd is away.
    pub seeds: Vec<String>,
}

/// `[nats]` and `[redis]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// The URL of the server.
    pub url: String,
}

impl Endpoint {
    /// An endpoint with this URL.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: url.into() }
    }
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Milliseconds from the signal to the end of the process.
    pub total_ms: u64,
    /// When the platform kills (`TimeoutStopSec`, `stop_grace_period`, …), milliseconds; 0 = unknown.
    pub kill_after_ms: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        let total = sluice_lifecycle::TOTAL_DEFAULT;
        Self { total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX), kill_after_ms: 0 }
    }
}

impl Shutdown {
    /// The stop is shorter than `min`.
    #[must_use]
    pub fn check(&self, min: Duration) -> Option<String> {
        let (min, total) = (min.as_millis(), self.total_ms);
        (u128::from(total) < min).then(|| format!("shutdown.total_ms is {total}, at least {min} are needed"))
    }

    /// The time for the whole stop.
    #[must_use]
    pub const fn total(&self) -> Duration {
        Duration::from_millis(self.total_ms)
    }

    /// When the platform kills, if that is known.
    #[must_use]
    pub fn kill_after(&self) -> Option<Duration> {
        (self.kill_after_ms > 0).then(|| Duration::from_millis(self.kill_after_ms))
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (text on a terminal, else JSON), `json`, `text`.
    pub format: Format,
    /// A filter in the syntax of `RUST_LOG`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(Grpc::at(7070).check(), None);
        assert_eq!(Etcd::default().check().count(), 0);
        assert_eq!(Shutdown::default().check(Duration::from_secs(2)), None);
        assert_eq!(Shutdown::default().kill_after(), None);
    }

    #[test]
    fn contradictions_are_named() {
        let listen: Address = "0.0.0.0:7070".parse().expect("an address");
        let grpc = Grpc { listen, advertise: String::new() };
        assert!(grpc.check().is_some_and(|text| text.contains("grpc.advertise")));
        assert_eq!(Grpc { advertise: "logic-0:7070".into(), ..grpc }.check(), None);
        assert_eq!(Etcd { endpoints: Vec::new(), lease_ttl_s: 1 }.check().count(), 2);
        let short = Shutdown { total_ms: 1_999, kill_after_ms: 0 };
        let text = short.check(Duration::from_secs(2)).expect("too short");
        assert_eq!(text, "shutdown.total_ms is 1999, at least 2000 are needed");
    }
}
