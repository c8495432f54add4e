//! What logic can be told, and the contradictions that are found before anything starts.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_service::cli::Args;
use sluice_service::config::masked_toml;
use sluice_service::telemetry::{self, Format};
use sluice_store::{DEDUPE_MIN, Retention};

use crate::auth::Grants;
use crate::defaults::RETRY_HORIZON;
use crate::error::StartError;

/// The whole configuration; keys as in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Begins all names in etcd, Redis and NATS, so that two deployments can share servers.
    pub prefix: String,
    /// HMAC secret of tokens (HS256), its UTF-8 bytes. Needed unless only anonymous users exist.
    pub token_secret: String,
    /// Whether clients without a token are let in.
    pub anonymous: bool,
    /// What they may do.
    pub anonymous_grants: Grants,
    /// Outbox rows older than this are deleted: gateways have found their messages by themselves, seconds.
    pub repair_bound_s: u64,
    /// Health and metrics, HTTP.
    pub admin: Admin,
    /// For gateways and tasks.
    pub grpc: Grpc,
    /// Where instances find each other.
    pub etcd: Etcd,
    /// Other logics.
    pub logic: Logic,
    /// The fan-out queue.
    pub nats: Server,
    /// Interest and presence.
    pub redis: Server,
    /// The store.
    pub postgres: Postgres,
    /// How long messages are kept.
    pub retention: Keep,
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

/// `[grpc]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// `host:port` under which others reach it; empty: the address it is bound to.
    pub advertise: String,
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

/// `[logic]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logic {
    /// `host:port` of logics to use while etcd is away.
    pub seeds: Vec<String>,
}

/// `[nats]` and `[redis]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where it is.
    pub url: String,
}

/// `[postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// Connections that commit, 1…16.
    pub lane_connections: usize,
    /// Connections that read.
    pub read_connections: usize,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Messages older than this go, seconds; 0 = never.
    pub age_s: u64,
    /// Only so many of a room stay; 0 = all.
    pub count: u64,
    /// Messages younger than this always stay, seconds: a resent publish must find its key.
    pub dedupe_min_s: u64,
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
            token_secret: String::new(),
            anonymous: false,
            anonymous_grants: Grants::all(),
            repair_bound_s: 60,
            admin: Admin::default(),
            grpc: Grpc::default(),
            etcd: Etcd::default(),
            logic: Logic::default(),
            nats: Server { url: "nats://127.0.0.1:4222".into() },
            redis: Server { url: "redis://127.0.0.1:6379".into() },
            postgres: Postgres::default(),
            retention: Keep::default(),
            shutdown: Shutdown::default(),
            log: Log::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7071)) }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7070)), advertise: String::new() }
    }
}

impl Default for Etcd {
    fn default() -> Self {
        Self { endpoints: vec!["http://127.0.0.1:2379".into()], lease_ttl_s: 10 }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        let store = sluice_store::postgres::PgConfig::new("postgres://sluice@127.0.0.1:5432/sluice");
        Self {
            url: store.url,
            lane_connections: store.lane_connections,
            read_connections: store.read_connections,
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { age_s: 0, count: 0, dedupe_min_s: DEDUPE_MIN.as_secs() }
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
        let config: Self = args.load("logic")?;
        if args.print_config {
            print!("{}", masked_toml(&config));
            return Ok(None);
        }
        config.check().map_err(StartError::Contradictions)?;
        telemetry::init("logic", config.log.format, &config.log.level)?;
        Ok((!args.check).then_some(config))
    }

    /// Finds what contradicts itself or a promise.
    ///
    /// # Errors
    /// One sentence per mistake, each with its fix.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        if self.token_secret.is_empty() && !self.anonymous {
            wrong.push("token_secret is empty, so nobody could connect: set SLUICE_TOKEN_SECRET, or SLUICE_ANONYMOUS=true".to_owned());
        }
        if !self.token_secret.is_empty() && self.token_secret.len() < 16 {
            wrong.push("token_secret has fewer than 16 bytes and can be guessed: use for example `openssl rand -hex 32`".into());
        }
        if let Err(error) = self.retention.policy().check(RETRY_HORIZON) {
            wrong.push(error.to_string());
        }
        if self.repair_bound_s < 10 {
            let text = "it must be at least 10: gateways look for lost messages of quiet rooms that seldom";
            wrong.push(format!("repair_bound_s is {}, {text}", self.repair_bound_s));
        }
        if self.grpc.advertise.is_empty() && self.grpc.listen.ip().is_unspecified() {
            wrong.push(format!(
                "grpc.listen is {}, which others cannot dial: set grpc.advertise to this machine's host:port",
                self.grpc.listen
            ));
        }
        if self.etcd.endpoints.is_empty() {
            wrong.push("etcd.endpoints is empty: name at least one URL".into());
        }
        let (min, total) = (crate::stages::TOTAL_MIN, self.total());
        if total < min {
            wrong.push(format!(
                "shutdown.total_ms is {}, at least {} are needed",
                total.as_millis(),
                min.as_millis()
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Outbox rows older than this are deleted.
    #[must_use]
    pub fn repair_bound(&self) -> Duration {
        Duration::from_secs(self.repair_bound_s)
    }

    /// The whole stop.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_millis(self.shutdown.total_ms)
    }
}

impl Keep {
    /// As the store takes it.
    #[must_use]
    pub fn policy(&self) -> Retention {
        Retention {
            age: (self.age_s > 0).then(|| Duration::from_secs(self.age_s)),
            count: (self.count > 0).then_some(self.count),
            dedupe_min: Duration::from_secs(self.dedupe_min_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_lack_only_a_secret() {
        let wrong = Config::default().check().expect_err("no secret");
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].contains("SLUICE_TOKEN_SECRET"));
        assert_eq!(Config { anonymous: true, ..Config::default() }.check(), Ok(()));
    }

    #[test]
    fn contradictions_are_all_named() {
        let config = Config {
            token_secret: "short".into(),
            repair_bound_s: 1,
            grpc: Grpc { listen: SocketAddr::from(([0, 0, 0, 0], 7070)), advertise: String::new() },
            retention: Keep { age_s: 10, count: 0, dedupe_min_s: 60 },
            shutdown: Shutdown { total_ms: 100 },
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("five mistakes").len(), 5);
    }
}
