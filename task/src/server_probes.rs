//! One try of each server, for `--check --connect`. It takes addresses rather than the configuration,
//! which calls it, and keeps no connection.

use sluice_cluster::Etcd;
use sluice_presence::Redis;
use sluice_queue::Nats;
use sluice_service::process::Probe;

/// Connects once to each server.
#[must_use]
pub fn all(etcd: &Etcd, nats: &Nats, redis: &Redis, prefix: &str) -> Vec<Probe> {
    vec![
        Probe::new("etcd.endpoints", sluice_cluster::etcd::probe(etcd.clone())),
        Probe::new("nats.url", sluice_queue::jetstream::probe(nats.clone())),
        Probe::new("redis.url", sluice_presence::redis::probe(redis.clone(), prefix.to_owned())),
    ]
}
