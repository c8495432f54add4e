//! A connection to Redis for the drill's own questions: patient, where the library gives up after half a second.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects.
pub(crate) async fn dial(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}
