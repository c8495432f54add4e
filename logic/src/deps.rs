//! The real parts: PostgreSQL, NATS, Redis, etcd. None of them has to be up for this to return.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sluice_cluster::Registration;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_service::clock::Clock;
use sluice_store::Store;
use sluice_store::postgres::{PgConfig, PgStore};

use crate::app::{App, Deps, OpenStore};
use crate::config::Config;
use crate::error::StartError;

/// Starts logic on the real parts and says on stdout where it listens. Returns when it is ready, or when
/// a stop was asked for.
///
/// # Errors
/// [`StartError`] names what has to be changed.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> Result<(), StartError> {
    let app = App::build(config.clone(), lifecycle.clone()).await?;
    let deps = connect(&config, lifecycle, app.registration()).await?;
    let line = app.announcement(&deps.cluster.me().borrow());
    // Whoever started us may not listen.
    let _ = writeln!(std::io::stdout(), "{line}");
    app.serve(deps).await
}

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
        NatsConfig { url: config.nats.url.clone(), prefix: config.prefix.clone(), ..NatsConfig::default() };
    let queue = JetStream::connect(nats).await.map_err(|error| wrong_url("nats.url", &error))?;
    let redis = RedisConfig {
        url: config.redis.url.clone(),
        prefix: config.prefix.clone(),
        ..RedisConfig::default()
    };
    let presence = RedisPresence::connect(redis).map_err(|error| wrong_url("redis.url", &error))?;
    let etcd = EtcdConfig {
        endpoints: config.etcd.endpoints.clone(),
        prefix: config.prefix.clone(),
        lease_ttl: Duration::from_secs(config.etcd.lease_ttl_s),
    };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, etcd, registration, &config.logic.seeds, BTreeSet::new())
        .await
        .map_err(|error| wrong_url("etcd.endpoints", &error))?;
    Ok(Deps {
        store: open_store(config),
        queue: Arc::new(queue),
        presence: Arc::new(presence),
        cluster: Arc::new(cluster),
        clock: Clock::system(),
    })
}

fn open_store(config: &Config) -> OpenStore {
    let config = PgConfig {
        lane_connections: config.postgres.lane_connections,
        read_connections: config.postgres.read_connections,
        ..PgConfig::new(&config.postgres.url)
    };
    Box::new(move || {
        let config = config.clone();
        async move { Ok(Arc::new(PgStore::connect(config).await?) as Arc<dyn Store>) }.boxed()
    })
}

fn wrong_url(key: &str, error: &impl std::fmt::Display) -> StartError {
    StartError::Url(format!("{key}: {error}"))
}
