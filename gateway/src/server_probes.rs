//! One try of each server, for `--check --connect`. It takes addresses rather than the configuration,
//! which calls it, and keeps no connection.

use sluice_cluster::Etcd;
use sluice_service::process::Probe;

/// Connects once to each server.
#[must_use]
pub fn all(etcd: &Etcd) -> Vec<Probe> {
    vec![Probe::new("etcd.endpoints", sluice_cluster::etcd::probe(etcd.clone()))]
}
