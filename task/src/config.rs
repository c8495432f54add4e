//! What task can be told, and the contradictions that are found before anything starts.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_service::cli::Args;
use sluice_service::config::masked_toml;
use sluice_service::telemetry::{self, Format};

use crate::error::StartError;

/// The whole configuration; keys as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Begins all names in etcd, Redis and NATS, so that two deployments can share servers.
    pub prefix: String,
    /// Health and metrics, HTTP.
    pub admin: Admin,
    /// Where instances find each other.
    pub etcd: Etcd,
    /// Logics known without etcd.
    pub logic: Seeds,
    /// Gateways known without etcd.
    pub gateway: Seeds,
    /// The fan-out queue.
    pub nats: Server,
    /// Interest.
    pub redis: Server,
    /// The stop.
    pub shutdown: Shutdown,
    /// The log on stderr.
    pub log: Log,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on.
    pub listen: SocketAddr,
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
pub struct Server {
    /// Where it is.
    pub url: String,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// The whole stop, milliseconds; whoever stops the process must wait longer before it kills.
    pub total_ms: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (text on a terminal, else JSON), `json`, `text`.
    pub format: Format,
    /// As in `RUST_LOG`.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "sluice".into(),
            admin: Admin::default(),
            etcd: Etcd::default(),
            logic: Seeds::default(),
            gateway: Seeds::default(),
            nats: Server { url: "nats://127.0.0.1:4222".into() },
            redis: Server { url: "redis://127.0.0.1:6379".into() },
            shutdown: Shutdown::default(),
            log: Log::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7072)) }
    }
}

impl Default for Etcd {
    fn default() -> Self {
        Self { endpoints: vec!["http://127.0.0.1:2379".into()], lease_ttl_s: 10 }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        let total = sluice_lifecycle::TOTAL_DEFAULT;
        Self { total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".into() }
    }
}

impl Config {
    /// Loads and checks the configuration and starts the log; `None` when only a question was asked
    /// (`--print-config`, `--check`) and answered.
    ///
    /// # Errors
    /// Names the source of what is wrong, or every contradiction.
    pub fn prepare(args: &Args) -> Result<Option<Self>, StartError> {
        let config: Self = args.load("task")?;
        if args.print_config {
            print!("{}", masked_toml(&config));
            return Ok(None);
        }
        config.check().map_err(StartError::Contradictions)?;
        telemetry::init("task", config.log.format, &config.log.level)?;
        Ok((!args.check).then_some(config))
    }

    /// Finds what contradicts itself or a promise.
    ///
    /// # Errors
    /// One sentence per mistake, each with its fix.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        if self.etcd.endpoints.is_empty() {
            wrong.push("etcd.endpoints is empty: name at least one URL".to_owned());
        }
        if self.etcd.lease_ttl_s < 2 {
            wrong.push(format!("etcd.lease_ttl_s is {}, etcd grants 2 at least", self.etcd.lease_ttl_s));
        }
        let (min, total) = (crate::stages::TOTAL_MIN, self.total());
        if total < min {
            let (total, min) = (total.as_millis(), min.as_millis());
            wrong.push(format!("shutdown.total_ms is {total}, at least {min} are needed"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The whole stop.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_millis(self.shutdown.total_ms)
    }

    /// How long a silent instance counts as there.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.etcd.lease_ttl_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn contradictions_are_all_named() {
        let config = Config {
            etcd: Etcd { endpoints: Vec::new(), lease_ttl_s: 0 },
            shutdown: Shutdown { total_ms: 100 },
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("three mistakes").len(), 3);
    }
}
