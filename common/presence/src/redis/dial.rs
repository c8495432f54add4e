//! Which server a connection leads to: the one of the URL, or the primary that its sentinels name. Keeps nothing; how
//! it is let in is known to [`access`].

use std::time::Duration;

use ::redis::RedisResult;
use ::redis::aio::MultiplexedConnection;

use super::access;
use super::sentinels::{Address, Sentinels};
use crate::Redis;

/// Whether the section can be used; connects to nobody.
///
/// # Errors
/// A URL that is none, or a file of the section that cannot be used.
pub(super) fn check(redis: &Redis) -> RedisResult<()> {
    match Sentinels::of(redis.url.reveal())? {
        Some(sentinels) => sentinels.check(redis),
        None => access::client(redis).map(drop),
    }
}

/// Connects, behind Sentinel to the primary of now, and says where that is; to the `announced` one before others. It has
/// answered once: a frozen Redis accepts connections too.
pub(super) async fn connect(
    redis: &Redis,
    announced: Option<Address>,
    patience: Duration,
) -> RedisResult<(MultiplexedConnection, Option<Address>)> {
    if let Some(sentinels) = Sentinels::of(redis.url.reveal())? {
        let (connection, address) = sentinels.connect(redis, announced, patience).await?;
        return Ok((connection, Some(address)));
    }
    let mut connection = access::open(redis, patience).await?;
    ::redis::cmd("PING").exec_async(&mut connection).await?;
    Ok((connection, None))
}
