//! The real parts: NATS, Redis, etcd. None of them has to be up for this to return.

use std::sync::Arc;

use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_cluster::{Duty, Registration};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_service::process::StartError;

use crate::app::Deps;
use crate::config::Config;

/// Begins to connect to everything and registers this process.
///
/// # Errors
/// A URL that is none.
pub async fn connect(
    config: &Config,
    lifecycle: &Lifecycle,
    registration: Registration,
) -> Result<Deps, StartError> {
    let nats =
        NatsConfig { nats: config.nats.clone(), prefix: config.prefix.clone(), ..NatsConfig::default() };
    let queue = JetStream::connect(nats).await.map_err(StartError::url("nats.url"))?;
    let redis =
        RedisConfig { redis: config.redis.clone(), prefix: config.prefix.clone(), ..RedisConfig::default() };
    let presence = Arc::new(RedisPresence::connect(redis).map_err(StartError::url("redis.url"))?);
    let etcd = EtcdConfig { etcd: config.etcd.clone(), prefix: config.prefix.clone() };
    let scope = lifecycle.scope(Stage::Release);
    let (redis, stop) = (Arc::clone(&presence), scope.token());
    scope.spawn("redis-failovers", async move {
        stop.run_until_cancelled(redis.follow_failovers()).await;
    });
    let cluster = EtcdCluster::start(&scope, etcd, registration, &config.logic.seeds, Duty::all())
        .await
        .map_err(StartError::url("etcd.endpoints"))?;
    Ok(Deps { queue: Arc::new(queue), presence, cluster: Arc::new(cluster) })
}
