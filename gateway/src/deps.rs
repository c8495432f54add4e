//! The real registry. It does not have to be up for this to return.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_cluster::Registration;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_service::clock::Clock;
use sluice_service::process::StartError;

use crate::app::Deps;
use crate::config::Config;

/// Begins to connect and registers this process.
///
/// # Errors
/// A URL that is none.
pub async fn connect(
    config: &Config,
    lifecycle: &Lifecycle,
    registration: Registration,
) -> Result<Deps, StartError> {
    let etcd = EtcdConfig { etcd: config.etcd.clone(), prefix: config.prefix.clone() };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, etcd, registration, &config.logic.seeds, BTreeSet::new())
        .await
        .map_err(StartError::url("etcd.endpoints"))?;
    Ok(Deps { cluster: Arc::new(cluster), clock: Clock::system() })
}
