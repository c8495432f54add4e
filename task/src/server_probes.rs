//! One try of each server, for `--check --connect`. It takes addresses rather than the configuration,
//! which calls it, and keeps no connection.

use sluice_queue::Nats;
use sluice_service::process::Probe;

/// Connects once to each server.
#[must_use]
pub fn all(endpoints: &[String], nats_servers: &Nats, redis_url: &str) -> Vec<Probe> {
    vec![etcd(endpoints), nats(nats_servers), redis(redis_url)]
}

/// Asks etcd.
fn etcd(endpoints: &[String]) -> Probe {
    let endpoints = endpoints.to_vec();
    Probe::new("etcd.endpoints", async move { sluice_cluster::etcd::probe(&endpoints).await })
}

/// Asks NATS.
fn nats(servers: &Nats) -> Probe {
    let servers = servers.clone();
    Probe::new("nats.url", async move {
        sluice_queue::jetstream::probe(&servers).await.map_err(|error| error.to_string())
    })
}

/// Asks Redis.
fn redis(url: &str) -> Probe {
    let url = url.to_owned();
    Probe::new("redis.url", async move {
        sluice_presence::redis::probe(&url).await.map_err(|error| error.to_string())
    })
}
