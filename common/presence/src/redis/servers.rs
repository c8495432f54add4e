//! Who has the keys: a server that has all of them, or the nodes of a Redis Cluster.

use std::time::Duration;

use ::redis::RedisResult;
use ::redis::aio::MultiplexedConnection;

use super::failovers;
use super::link::RedisLink;
use super::nodes::Nodes;
use super::parts::{Part, Parts};
use super::sentinels::Sentinels;
use crate::{PresenceError, Redis, Result};

pub(super) enum Servers {
    /// Alone, or the primary that sentinels name.
    One(Box<RedisLink>),
    Cluster(Box<Nodes>),
}

impl Servers {
    /// Connects to nobody yet; with the parts that the keys are in.
    ///
    /// # Errors
    /// [`PresenceError::Refused`]: a URL that is none, a file that cannot be used, a prefix that would choose the slot.
    pub(super) fn new(redis: Redis, patience: Duration, prefix: &str) -> Result<(Self, Parts)> {
        let Some(nodes) = Nodes::of(&redis, patience) else {
            let link = Box::new(RedisLink::new(redis, patience)?);
            return Ok((Self::One(link), Parts::one(prefix)));
        };
        if prefix.contains(['{', '}']) {
            let why =
                format!("prefix is {prefix:?}: in a Redis Cluster braces choose the node, leave them out");
            return Err(PresenceError::Refused(why));
        }
        Ok((Self::Cluster(Box::new(nodes?)), Parts::sixteen(prefix)))
    }

    /// Runs commands where this part is. A node of a cluster that does not have it asks for them to be sent once more.
    pub(super) async fn run<T, F>(
        &self,
        part: Part,
        commands: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match self {
            Self::One(link) => link.run(async |redis| commands(redis).await).await,
            Self::Cluster(nodes) => nodes.run(part, commands).await,
        }
    }

    /// Moves to the primary that sentinels announce; never ends. Nodes of a cluster say by themselves who has taken over.
    pub(super) async fn follow_failovers(&self) {
        if let Self::One(link) = self
            && let Ok(Some(sentinels)) = Sentinels::of(link.redis().url.reveal())
        {
            failovers::follow(link, &sentinels).await;
        }
        // A server that nobody moves.
        std::future::pending().await
    }

    pub(super) fn close(&self) {
        match self {
            Self::One(link) => link.close(),
            Self::Cluster(nodes) => nodes.close(),
        }
    }
}
