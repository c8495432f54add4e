//! Who is in a room, and what is said of users: bounded looks at what is kept. Writes nothing.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisResult};
use futures::future::join_all;
use sluice_proto::ids::{RoomId, UserId};

use super::RedisPresence;
use super::parts::{Part, in_order};
use crate::users::{CONNECTIONS_OF_USER_MAX, Gathering, by_user};
use crate::{Present, Result, RoomEvent, RoomEventKind, Roster};

/// Fields asked for in one step of a scan.
const SCAN_STEP: usize = 512;

impl RedisPresence {
    pub(super) async fn roster(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Result<Roster> {
        let part = self.parts.of_room(room);
        let key = &self.key(part, format_args!("presence:r:{room}"));
        let gather = |mut redis| async move {
            let mut gathering = Gathering::new(after, limit);
            let take = |connection: String, user, since_ms| {
                gathering.add(&connection, user, since_ms);
                !gathering.is_full()
            };
            connections(&mut redis, key, take).await?;
            let mut connections = 0;
            if gathering.is_full() {
                connections = ::redis::cmd("HLEN").arg(key).query_async(&mut redis).await?;
            }
            Ok(gathering.roster(connections))
        };
        let mut roster = self.servers.run(part, gather).await?;
        self.add_info(&mut roster.users).await?;
        Ok(roster)
    }

    pub(super) async fn present(&self, user: &UserId) -> Result<Option<Present>> {
        let part = self.parts.of_user(user);
        let key = &self.key(part, format_args!("presence:u:{user}"));
        let gather = |mut redis| async move {
            let mut found = HashMap::new();
            let take = |connection, user, since_ms| {
                found.insert(connection, (user, since_ms));
                found.len() < CONNECTIONS_OF_USER_MAX
            };
            connections(&mut redis, key, take).await?;
            Ok(by_user(found.into_values()))
        };
        let mut present = self.servers.run(part, gather).await?.remove(user);
        self.add_info(present.as_mut_slice()).await?;
        Ok(present)
    }

    /// Adds what tokens say of these users.
    async fn add_info(&self, users: &mut [Present]) -> Result<()> {
        let names: Vec<UserId> = users.iter().map(|present| present.user.clone()).collect();
        for (present, info) in users.iter_mut().zip(self.infos(&names).await?) {
            present.info = info;
        }
        Ok(())
    }

    /// The same where it is in another part than the room. Where that is away, a join is told without it: it is told once.
    pub(super) async fn add_info_to(&self, joins: &mut [RoomEvent]) {
        let names: Vec<UserId> = joins.iter().map(|event| event.user.clone()).collect();
        for (place, info) in self.infos_by_part(&names).await.into_iter().flatten().flatten() {
            if let Some(event) = joins.get_mut(place) {
                event.kind = RoomEventKind::Joined { info };
            }
        }
    }

    /// What tokens say of these users, in their order; empty = nothing.
    async fn infos(&self, users: &[UserId]) -> Result<Vec<String>> {
        in_order(self.infos_by_part(users).await)
    }

    /// The same as each part answers, with their places.
    async fn infos_by_part(&self, users: &[UserId]) -> Vec<Result<Vec<(usize, String)>>> {
        let groups = self.parts.group(users, UserId::as_str);
        join_all(groups.into_iter().map(|(part, users)| self.infos_in(part, users))).await
    }

    async fn infos_in(&self, part: Part, users: Vec<(usize, &UserId)>) -> Result<Vec<(usize, String)>> {
        let mut get = ::redis::cmd("MGET");
        for (_, user) in &users {
            get.arg(self.key(part, format_args!("info:{user}")));
        }
        let get = &get;
        let infos: Vec<Option<String>> =
            self.servers.run(part, |mut redis| async move { get.query_async(&mut redis).await }).await?;
        let places = users.into_iter().map(|(place, _)| place);
        Ok(places.zip(infos.into_iter().map(Option::unwrap_or_default)).collect())
    }
}

/// Looks at the connections in a hash until `take` has enough: each with its user and since when.
async fn connections(
    redis: &mut MultiplexedConnection,
    key: &str,
    mut take: impl FnMut(String, UserId, i64) -> bool,
) -> RedisResult<()> {
    let mut cursor = 0;
    loop {
        let (next, fields): (u64, Vec<(String, String)>) =
            scan("HSCAN", key, cursor).query_async(redis).await?;
        for (connection, value) in fields {
            let Some((user, since_ms)) = read_value(&value) else { continue };
            if !take(connection, user, since_ms) {
                return Ok(());
            }
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

pub(super) fn scan(command: &str, key: &str, cursor: u64) -> Cmd {
    let mut command = ::redis::cmd(command);
    command.arg(key).arg(cursor).arg("COUNT").arg(SCAN_STEP);
    command
}

/// `None` for names that cannot be: somebody else's data.
pub(super) fn event(room: &str, user: &str, at_ms: i64, kind: RoomEventKind) -> Option<RoomEvent> {
    Some(RoomEvent { room: RoomId::parse(room).ok()?, user: UserId::parse(user).ok()?, at_ms, kind })
}

/// Reads `instance|since_ms|user`.
fn read_value(value: &str) -> Option<(UserId, i64)> {
    // Three parts at most: a user's name may hold the separator.
    let mut parts = value.splitn(3, '|').skip(1);
    let since = parts.next()?.parse().ok()?;
    Some((UserId::parse(parts.next()?).ok()?, since))
}
