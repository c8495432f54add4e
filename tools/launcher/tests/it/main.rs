//! The launcher against the real servers. Nothing is skipped: a missing server is a failure that says how to get it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod clients;
mod groups;
mod patroni;
mod secure;
mod stores;

use sluice_launcher::{Cluster, Options};

/// Servers alone.
fn stores_only() -> Options {
    Options { gateways: 0, logics: 0, tasks: 0, ..Options::default() }
}

async fn start() -> Cluster {
    Cluster::start(stores_only()).await.unwrap()
}

/// Whether a process with this pid exists (a zombie does).
fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
