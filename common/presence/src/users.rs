//! What queries have in common: how much they look at, and connections gathered by user.

use std::collections::HashMap;

use sluice_proto::ids::UserId;

use crate::Present;

/// Connections looked at for each user that a query of a room may return.
pub(crate) const CONNECTIONS_PER_USER: usize = 4;
/// Connections of one user that are looked at for the oldest.
pub(crate) const CONNECTIONS_OF_USER_MAX: usize = 1_024;
/// Most instances returned by one call.
pub(crate) const INSTANCES_MAX: usize = 1_000;

/// Gathers connections, each with its begin, by user.
pub(crate) fn by_user(connections: impl Iterator<Item = (UserId, i64)>) -> HashMap<UserId, Present> {
    let mut users = HashMap::<UserId, Present>::new();
    for (user, since_ms) in connections {
        users
            .entry(user.clone())
            .and_modify(|present| {
                present.connections += 1;
                present.since_ms = present.since_ms.min(since_ms);
            })
            .or_insert(Present { user, connections: 1, since_ms });
    }
    users
}
