//! What queries have in common: how much they look at, and connections gathered by user. Pure.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;

use sluice_proto::ids::UserId;

use crate::{Present, Roster};

/// Connections that a query of a room looks at: 8 bytes of memory each and, from Redis, about 100 ms in all.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Connections of one user that are looked at for the oldest.
pub(crate) const CONNECTIONS_OF_USER_MAX: usize = 1_024;
/// Most instances returned by one call.
pub(crate) const INSTANCES_MAX: usize = 1_000;

/// Gathers connections, each with its begin, by user.
pub(crate) fn by_user(connections: impl Iterator<Item = (UserId, i64)>) -> HashMap<UserId, Present> {
    let mut users = HashMap::<UserId, Present>::new();
    for (user, since_ms) in connections {
        users.entry(user.clone()).and_modify(|present| present.add(since_ms)).or_insert(Present {
            user,
            connections: 1,
            since_ms,
            info: String::new(),
        });
    }
    users
}

impl Present {
    fn add(&mut self, since_ms: i64) {
        self.connections += 1;
        self.since_ms = self.since_ms.min(since_ms);
    }
}

/// A page of users, gathered from the connections of a room in whatever order, and each again and again.
pub(crate) struct Gathering<'a> {
    after: Option<&'a UserId>,
    limit: usize,
    /// The first users after `after`, one more than the page holds.
    page: BTreeMap<UserId, Present>,
    /// Hashes of what was seen: names would be the most of it.
    connections: HashSet<u64>,
    users: HashSet<u64>,
    hasher: RandomState,
}

impl<'a> Gathering<'a> {
    pub(crate) fn new(after: Option<&'a UserId>, limit: usize) -> Self {
        let (connections, users) = Default::default();
        Self { after, limit, page: BTreeMap::new(), connections, users, hasher: RandomState::new() }
    }

    pub(crate) fn add(&mut self, connection: &str, user: UserId, since_ms: i64) {
        // A scan of a table that grows or shrinks may show a connection twice.
        if !self.connections.insert(self.hasher.hash_one(connection)) {
            return;
        }
        self.users.insert(self.hasher.hash_one(&user));
        if self.after.is_some_and(|after| user <= *after) {
            return;
        }
        if let Some(present) = self.page.get_mut(&user) {
            present.add(since_ms);
            return;
        }
        let full = self.page.len() > self.limit;
        // Who does not fit now never will: the last name of a full page only ever gets smaller.
        if full && self.page.last_key_value().is_some_and(|(last, _)| user > *last) {
            return;
        }
        let present = Present { user: user.clone(), connections: 1, since_ms, info: String::new() };
        self.page.insert(user, present);
        if full {
            self.page.pop_last();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.connections.len() >= CONNECTIONS_MAX
    }

    /// `connections`: how many the room has, where that is known to be more.
    pub(crate) fn roster(self, connections: usize) -> Roster {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let more = self.page.len() > self.limit;
        Roster {
            users: self.page.into_values().take(self.limit).collect(),
            count: count(self.users.len()),
            connections: count(self.connections.len().max(connections)),
            more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u32) -> UserId {
        UserId::parse(&format!("u{n:03}")).expect("valid")
    }

    #[test]
    fn pages_hold_everybody_once_in_whatever_order_connections_come() {
        // Each user has two connections; each of them is seen twice.
        let seen = |n: u32| (n * 37) % 200;
        let mut after = None;
        let mut all = Vec::new();
        loop {
            let mut gathering = Gathering::new(after.as_ref(), 7);
            for n in (0..200).chain(0..200) {
                let n = seen(n);
                gathering.add(&format!("c{n}"), user(n / 2), i64::from(n));
            }
            let roster = gathering.roster(0);
            assert_eq!((roster.count, roster.connections), (100, 200));
            assert!(roster.users.iter().all(|one| one.connections == 2), "{roster:?}");
            assert!(roster.users.iter().all(|one| one.since_ms % 2 == 0), "the oldest's");
            all.extend(roster.users.into_iter().map(|one| one.user));
            if !roster.more {
                break;
            }
            assert_eq!(all.len() % 7, 0);
            after = all.last().cloned();
        }
        assert_eq!(all, (0..100).map(user).collect::<Vec<_>>());
    }
}
