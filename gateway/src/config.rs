//! The settings of a gateway: what an operator may change, with its defaults. Reads nothing itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_proto::wire::close;

use crate::defaults;
use crate::error::ConfigProblem;

/// All settings. Keys of the file are the field names; environment `SLUICE_…`, `__` between levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect, `address:port`; port 0 takes a free one.
    pub listen: String,
    /// The `ws://` or `wss://` URL clients reach this gateway by; absent: made from the bound address.
    pub advertise: Option<String>,
    /// Browser origins that may connect besides the gateway's own host, exactly as browsers send them.
    pub origins: Vec<String>,
    /// Shards; 0 = one per core.
    pub shards: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Prefix of all names in etcd.
    pub prefix: String,
    /// Seconds between protocol pings.
    pub ping_every_s: u64,
    /// Seconds to wait for a pong.
    pub ping_timeout_s: u64,
    /// Seconds a client may take no byte while something is queued for it.
    pub slow_timeout_s: u64,
    /// Messages a subscriber that was up to date may fall behind before it is told `skipped`.
    pub max_behind: u64,
    /// gRPC server, for tasks.
    pub grpc: Grpc,
    /// Admin HTTP.
    pub admin: Admin,
    /// Discovery.
    pub etcd: Etcd,
    /// Logics known without discovery.
    pub logic: Logic,
    /// What must be equal to logic's setting.
    pub retention: Retention,
    /// Logging.
    pub log: Log,
    /// Stopping.
    pub shutdown: Shutdown,
    /// How clients leave.
    pub drain: Drain,
}

/// gRPC server, for tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where it listens, `address:port`.
    pub listen: String,
    /// Where tasks reach it, `host:port`; absent: the bound address.
    pub advertise: Option<String>,
}

/// Admin HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens, `address:port`.
    pub listen: String,
}

/// Discovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// URLs of etcd.
    pub endpoints: Vec<String>,
    /// Life of the registration without renewal, seconds; also how long a freeze goes unpunished.
    pub lease_ttl_s: u64,
}

/// Logics known without discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logic {
    /// `host:port` of each.
    pub seeds: Vec<String>,
}

/// What must be equal to logic's setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Seconds that keys are kept at least; publishes older than a quarter of it are given up.
    pub dedupe_min_s: u64,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto`, `json` or `text`.
    pub format: String,
    /// Filter as of `tracing`, for example `info` or `info,sluice_gateway=debug`.
    pub level: String,
}

/// Stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Milliseconds from the signal to the end of the process.
    pub total_ms: u64,
    /// When the platform kills (`TimeoutStopSec`, `stop_grace_period`, …), milliseconds; 0 = unknown.
    pub kill_after_ms: u64,
}

/// How clients leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Milliseconds to go on accepting while balancers learn; Kubernetes needs some seconds.
    pub accept_grace_ms: u64,
    /// Closes per second while other gateways serve; the budget wins over it.
    pub rate_per_s: u32,
    /// WebSocket close code; never 1000, which many clients take as "do not come back".
    pub close_code: u16,
    /// Longest delay before reconnecting that a client is given, milliseconds.
    pub reconnect_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            advertise: None,
            origins: Vec::new(),
            shards: 0,
            connections_max: defaults::CONNECTIONS_MAX,
            prefix: "sluice".into(),
            ping_every_s: 25,
            ping_timeout_s: 10,
            slow_timeout_s: 10,
            max_behind: 100_000,
            grpc: Grpc::default(),
            admin: Admin::default(),
            etcd: Etcd::default(),
            logic: Logic::default(),
            retention: Retention::default(),
            log: Log::default(),
            shutdown: Shutdown::default(),
            drain: Drain::default(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7080".into(), advertise: None }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8081".into() }
    }
}

impl Default for Etcd {
    fn default() -> Self {
        Self { endpoints: vec!["http://127.0.0.1:2379".into()], lease_ttl_s: 10 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { dedupe_min_s: 3_600 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "auto".into(), level: "info".into() }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        let total_ms = u64::try_from(defaults::budget::TOTAL.as_millis()).unwrap_or(u64::MAX);
        Self { total_ms, kill_after_ms: 0 }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            accept_grace_ms: 0,
            rate_per_s: defaults::DRAIN_RATE_PER_S,
            close_code: close::RESTART,
            reconnect_ms_max: defaults::RECONNECT_MS_MAX,
        }
    }
}

impl Config {
    /// Finds contradictions between settings.
    ///
    /// # Errors
    /// [`ConfigProblem`] names the settings and says what would be right.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        let drain = &self.drain;
        if drain.close_code == close::NORMAL {
            return Err(ConfigProblem::CloseCode(drain.close_code));
        }
        if !matches!(drain.close_code, 1001 | 1008..=1014 | 3000..=4999) {
            return Err(ConfigProblem::CloseCode(drain.close_code));
        }
        if drain.rate_per_s == 0 {
            return Err(ConfigProblem::Zero("drain.rate_per_s"));
        }
        if self.connections_max == 0 {
            return Err(ConfigProblem::Zero("connections_max"));
        }
        for (key, value) in [
            ("ping_every_s", self.ping_every_s),
            ("ping_timeout_s", self.ping_timeout_s),
            ("slow_timeout_s", self.slow_timeout_s),
            ("etcd.lease_ttl_s", self.etcd.lease_ttl_s),
            ("max_behind", self.max_behind),
        ] {
            if value == 0 {
                return Err(ConfigProblem::Zero(key));
            }
        }
        if drain.accept_grace_ms + 2_000 > self.shutdown.total_ms {
            return Err(ConfigProblem::Grace {
                grace_ms: drain.accept_grace_ms,
                total_ms: self.shutdown.total_ms,
            });
        }
        Ok(())
    }

    /// How many shards to run.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            shards => shards,
        }
    }

    /// How long after reading a publish it may still be stored: within it, clocks may differ by minutes
    /// and retention cannot have forgotten its key.
    #[must_use]
    pub const fn not_after(&self) -> Duration {
        Duration::from_secs(self.retention.dedupe_min_s / 4)
    }

    /// Life of the lease; a loop that stood still for longer has been declared dead by others.
    #[must_use]
    pub const fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.etcd.lease_ttl_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_drain_never_closes_with_1000() {
        let mut config = Config::default();
        config.drain.close_code = 1000;
        assert_eq!(config.check(), Err(ConfigProblem::CloseCode(1000)));
        config.drain.close_code = 1005;
        assert!(config.check().is_err());
    }

    #[test]
    fn grace_has_to_fit_into_the_budget() {
        let mut config = Config::default();
        config.drain.accept_grace_ms = 7_000;
        assert!(matches!(config.check(), Err(ConfigProblem::Grace { .. })));
    }
}
