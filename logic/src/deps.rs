//! The real parts: PostgreSQL, NATS, Redis, etcd. None of them has to be up for this to return.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sluice_cluster::Registration;
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig};
use sluice_lifecycle::{Lifecycle, Stage};
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_queue::jetstream::{JetStream, NatsConfig};
use sluice_service::clock::Clock;
use sluice_service::process::StartError;
use sluice_store::Store;
#[cfg(feature = "seeded-bugs")]
use sluice_store::postgres::PgAccess;
use sluice_store::postgres::{PgConfig, PgStore};

use crate::app::{Deps, OpenStore};
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
    let redis = RedisConfig {
        redis: config.redis.clone(),
        prefix: config.prefix.clone(),
        leave_grace: Duration::from_secs(config.leave_grace_s),
        ..RedisConfig::default()
    };
    let presence = Arc::new(RedisPresence::connect(redis).map_err(StartError::url("redis.url"))?);
    let etcd = EtcdConfig { etcd: config.etcd.clone(), prefix: config.prefix.clone() };
    let scope = lifecycle.scope(Stage::Release);
    let (redis, stop) = (Arc::clone(&presence), scope.token());
    scope.spawn("redis-failovers", async move {
        stop.run_until_cancelled(redis.follow_failovers()).await;
    });
    let cluster = EtcdCluster::start(&scope, etcd, registration, &config.logic.seeds, BTreeSet::new())
        .await
        .map_err(StartError::url("etcd.endpoints"))?;
    Ok(Deps {
        store: open_store(config),
        queue: Arc::new(queue),
        presence,
        cluster: Arc::new(cluster),
        clock: Clock::system(),
    })
}

fn open_store(config: &Config) -> OpenStore {
    let config = PgConfig {
        lane_connections: config.postgres.lane_connections,
        read_connections: config.postgres.read_connections,
        password_file: config.postgres.password_file.clone(),
        ..PgConfig::new(config.postgres.url.clone())
    };
    Box::new(move || {
        let config = config.clone();
        async move {
            #[cfg(feature = "seeded-bugs")]
            let access = PgAccess { url: config.url.clone(), password_file: config.password_file.clone() };
            let store = PgStore::connect(config).await?;
            #[cfg(feature = "seeded-bugs")]
            plant_statements(&access).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        }
        .boxed()
    })
}

/// Puts the statement of a seeded bug into the place of the right one.
#[cfg(feature = "seeded-bugs")]
async fn plant_statements(access: &PgAccess) -> Result<(), sluice_store::StoreError> {
    use sluice_service::seeded::{Bug, is};
    use sluice_store::postgres::seeded::{FIRES_TWICE, LOOKUP_BEFORE_LOCK, NO_UNIQUE_KEY, replace};

    let statements = [
        (Bug::LookupBeforeLock, LOOKUP_BEFORE_LOCK),
        (Bug::NoUniqueKey, NO_UNIQUE_KEY),
        (Bug::FiresTwice, FIRES_TWICE),
    ];
    for (bug, sql) in statements {
        if is(bug) {
            replace(access, sql).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_store::postgres::PgConfig;

    use crate::config::Config;

    #[test]
    fn the_default_connections_are_those_of_the_store() {
        let (ours, its) = (Config::default().postgres, PgConfig::new(""));
        assert_eq!(
            (ours.lane_connections, ours.read_connections),
            (its.lane_connections, its.read_connections)
        );
    }
}
