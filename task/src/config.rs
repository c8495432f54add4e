//! What task can be told, and the contradictions that are found before anything starts.

use serde::{Deserialize, Serialize};
use sluice_cluster::Etcd;
use sluice_lifecycle::Plan;
use sluice_presence::Redis;
use sluice_queue::Nats;
use sluice_service::config::sections::{Admin, Log, Seeds, Shutdown};
use sluice_service::config::url::{self, UrlKind};
#[cfg(feature = "servers")]
use sluice_service::process::Probe;
use sluice_service::process::Settings;
use sluice_service::tls::{Role, Tls};
use sluice_trace::Trace;

use crate::stages;

/// The whole configuration; keys as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Begins all names in etcd, Redis and NATS, so that two deployments can share servers.
    pub prefix: String,
    /// Health and metrics, HTTP.
    pub admin: Admin,
    /// Who services are to each other.
    pub tls: Tls,
    /// Where instances find each other.
    pub etcd: Etcd,
    /// Logics known without etcd.
    pub logic: Seeds,
    /// Gateways known without etcd.
    pub gateway: Seeds,
    /// The fan-out queue.
    pub nats: Nats,
    /// The Redis with interest.
    pub redis: Redis,
    /// The time for the stop.
    pub shutdown: Shutdown,
    /// The log on stderr.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "sluice".into(),
            admin: Admin::at(7072),
            tls: Tls::default(),
            etcd: Etcd::default(),
            logic: Seeds::default(),
            gateway: Seeds::default(),
            nats: Nats::default(),
            redis: Redis::default(),
            shutdown: Shutdown::with(stages::TIMES),
            log: Log::default(),
            trace: Trace::default(),
        }
    }
}

impl Settings for Config {
    const SERVICE: &'static str = "task";

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    fn plan(&self) -> Plan {
        stages::plan(&self.shutdown)
    }

    #[cfg(feature = "servers")]
    fn probes(&self) -> Vec<Probe> {
        crate::server_probes::all(&self.etcd, &self.nats, &self.redis, &self.prefix)
    }

    fn warnings(&self) -> Vec<String> {
        self.tls.warning(Role::Task).into_iter().collect()
    }

    fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = self.etcd.check();
        wrong.extend(self.admin.token().err());
        wrong.extend(self.shutdown.check(&stages::TIMES_MIN, 0));
        wrong.extend(url::check_all("etcd.endpoints", &self.etcd.endpoints, UrlKind::Etcd));
        wrong.extend(url::check("nats.url", self.nats.url.reveal(), UrlKind::Nats));
        wrong.extend(self.nats.check());
        wrong.extend(url::check("redis.url", self.redis.url.reveal(), UrlKind::Redis));
        wrong.extend(self.redis.check());
        wrong.extend(self.tls.check(Role::Task));
        wrong.extend(self.trace.check());
        wrong.extend(self.logic.check("logic.seeds").chain(self.gateway.check("gateway.seeds")));
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
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
    fn no_secret_is_in_what_is_shown_of_it() {
        let config = Config {
            nats: Nats::at("tls://ann:hush@a:4222,tls://hush@b:4222"),
            redis: Redis::at("rediss://ann:hush@a:6379"),
            etcd: Etcd { password: "hush".into(), ..Etcd::at(["https://ann:hush@a:2379"]) },
            ..Config::default()
        };
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hush") && shown.contains("rediss://ann:********@a:6379"), "{shown}");
    }

    #[test]
    fn contradictions_are_all_named() {
        let config = Config {
            etcd: Etcd { endpoints: Vec::new(), lease_ttl_s: 0, ..Etcd::default() },
            shutdown: Shutdown { total_ms: 100, ..Shutdown::with(stages::TIMES) },
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("three mistakes").len(), 3);
    }
}
