//! Whether Redis can be used, for whoever asks before a service is started. Writes nothing.

use std::time::Duration;

use ::redis::RedisError;
use tokio::time::timeout;

use super::nodes::Nodes;
use super::parts::Parts;
use super::{access, dial};
use crate::{PresenceError, Redis};

/// Longest look at a server, connecting included.
const PROBED_WITHIN: Duration = Duration::from_secs(2);
/// Why a server alone is no node.
pub(super) const ALONE: &str = "it is no node of a Redis Cluster: write redis:// for a server alone, or redis+sentinel:// \
                                and the name of the primary";

/// Connects once, in a Redis Cluster to each node that has keys with this prefix; what the server says of itself.
///
/// # Errors
/// Why it cannot be used.
pub async fn probe(redis: Redis, prefix: impl Into<String>) -> Result<String, String> {
    if let Some(nodes) = Nodes::of(&redis, PROBED_WITHIN) {
        return probe_nodes(&nodes.map_err(why)?, &Parts::sixteen(&prefix.into())).await.map_err(why);
    }
    let ask = async {
        let (mut connection, _) = dial::connect(&redis, None, PROBED_WITHIN).await?;
        ::redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await
    };
    let info = timeout(PROBED_WITHIN, ask).await.map_err(|_| access::silence(&redis))?;
    let info = info.map_err(|error: RedisError| access::describe(&error))?;
    if of_cluster(&info) { Err(access::NODE.to_owned()) } else { Ok(name(&info)) }
}

/// Each in turn: what is wrong with the first of them is said.
async fn probe_nodes(nodes: &Nodes, parts: &Parts) -> Result<String, PresenceError> {
    let mut said = String::new();
    for part in parts.all() {
        let mut ask = ::redis::pipe();
        // A key, so that a node that does not have it says who has.
        ask.cmd("EXISTS").arg(format!("{}:marker", parts.root(part))).ignore().cmd("INFO").arg("server");
        let ask = &ask;
        let answer = nodes.run(part, |mut redis| async move { ask.query_async(&mut redis).await });
        let (info,): (String,) = answer.await?;
        if !of_cluster(&info) {
            return Err(PresenceError::Refused(ALONE.to_owned()));
        }
        said = name(&info);
    }
    Ok(format!("{said}, a cluster: {} nodes have parts", nodes.count()))
}

fn name(info: &str) -> String {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    format!("Redis {}", version.unwrap_or("of unknown version").trim())
}

/// Valkey says `server_mode` instead of `redis_mode`.
fn of_cluster(info: &str) -> bool {
    info.lines().any(|line| line.trim_end().ends_with("_mode:cluster"))
}

fn why(error: PresenceError) -> String {
    match error {
        PresenceError::Unavailable(why) | PresenceError::Refused(why) => why,
        PresenceError::Closed => error.to_string(),
    }
}
