//! One try of each server, for `--check --connect`. It takes addresses rather than the configuration,
//! which calls it, and keeps no connection.

use sluice_queue::Nats;
use sluice_service::process::Probe;

/// Connects once to each server.
#[must_use]
pub fn all(postgres_url: &str, endpoints: &[String], nats: &Nats, redis_url: &str) -> Vec<Probe> {
    vec![
        Probe::new("postgres.url", sluice_store::postgres::probe(postgres_url.to_owned())),
        Probe::new("etcd.endpoints", sluice_cluster::etcd::probe(endpoints.to_vec())),
        Probe::new("nats.url", sluice_queue::jetstream::probe(nats.clone())),
        Probe::new("redis.url", sluice_presence::redis::probe(redis_url.to_owned())),
    ]
}
