//! A connection to Redis for the drill's own questions: patient, where the library gives up after half a second.

use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, IntoConnectionInfo as _, TlsCertificates};
use sluice_launcher::{Cluster, Credentials, Node, Service};

/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the Redis of a cluster, of a group to the first.
pub(crate) async fn dial(cluster: &Cluster) -> anyhow::Result<MultiplexedConnection> {
    let node = cluster.node(Service::Redis, 0).context("there is no Redis")?;
    dial_one(cluster, &node).await
}

/// Connects to all that have keys: of a Redis Cluster each primary, else one.
pub(crate) async fn dial_all(cluster: &Cluster) -> anyhow::Result<Vec<MultiplexedConnection>> {
    if !cluster.url(Service::Redis).contains("+cluster://") {
        return Ok(vec![dial(cluster).await?]);
    }
    let mut primaries = Vec::new();
    for node in cluster.nodes(Service::Redis) {
        let mut connection = dial_one(cluster, &node).await?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        // A replica does not say what is in its keys.
        if info.contains("role:master") {
            primaries.push(connection);
        }
    }
    Ok(primaries)
}

async fn dial_one(cluster: &Cluster, node: &Node) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = match cluster.credentials(Service::Redis) {
        Some(credentials) => with(node.url(), &credentials)?,
        None => Client::open(node.url())?,
    };
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn with(url: &str, Credentials { password, tls, .. }: &Credentials) -> anyhow::Result<Client> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_password(password);
    let read = |file| std::fs::read(file).context("a certificate of the cluster");
    let client_tls = ClientTlsConfig { client_cert: read(&tls.cert)?, client_key: read(&tls.key)? };
    let certificates = TlsCertificates { client_tls: Some(client_tls), root_cert: Some(read(&tls.ca)?) };
    Ok(Client::build_with_tls(info.set_redis_settings(settings), certificates)?)
}
