//! Who watches rooms, what they were told, and when they may have missed something.

use std::collections::{BTreeMap, HashMap};

use super::{HEARS_AFTER_US, ends};
use crate::history::{ClientHistory, History, StepKind};
use crate::record::ClientEvent;

/// The role of those who watch what they read.
const WATCHER: &str = "watcher";

/// A client that watches a room.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Its index.
    pub client: u32,
    pub room: u32,
    /// In order.
    pub leaves: Vec<ToldLeave>,
    /// When its hearing began anew, or (`false`) ended.
    breaks: Vec<(u64, bool)>,
}

/// A leave that it was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToldLeave {
    pub user: u32,
    pub at_us: u64,
    /// As told.
    pub at_ms: i64,
    /// Which step of the watcher.
    pub step: u32,
}

impl Watcher {
    /// Whether it listened all the time from some while before.
    pub(super) fn hears(&self, from_us: u64, to_us: u64) -> bool {
        let from_us = from_us.saturating_sub(HEARS_AFTER_US);
        let before = self.breaks.iter().rfind(|(at_us, _)| *at_us < from_us);
        let meanwhile = self.breaks.iter().any(|(at_us, _)| (from_us..=to_us).contains(at_us));
        before.is_some_and(|(_, hears)| *hears) && !meanwhile
    }
}

pub(super) fn of(history: &History) -> Vec<Watcher> {
    // A user who is in no record has no number, and nobody knows when it was away.
    let users: HashMap<&str, u32> =
        history.clients.iter().map(|client| (history.users.name(client.user), client.user)).collect();
    let watchers = (0..).zip(&history.clients).filter(|(_, client)| client.role == WATCHER);
    watchers.flat_map(|(index, client)| rooms_of(history, &users, index, client)).collect()
}

fn rooms_of(
    history: &History,
    users: &HashMap<&str, u32>,
    index: u32,
    client: &ClientHistory,
) -> Vec<Watcher> {
    let mut watchers: BTreeMap<u32, (u32, Watcher)> = BTreeMap::new();
    for (step, at) in (0..).zip(&client.steps) {
        if let StepKind::Subscribed(told) = &at.act {
            let new = Watcher { client: index, room: told.room, leaves: Vec::new(), breaks: Vec::new() };
            // The newest connection that reads the room: what ends another one is no gap.
            let (conn, watcher) = watchers.entry(told.room).or_insert((told.conn, new));
            *conn = told.conn;
            watcher.breaks.push((at.at_us, true));
            continue;
        }
        for (conn, watcher) in watchers.values_mut() {
            if ends(&at.act, (*conn, watcher.room)) {
                watcher.breaks.push((at.at_us, false));
            }
            let StepKind::Other(what) = &at.act else { continue };
            let name = history.rooms.name(watcher.room);
            if matches!(&**what, ClientEvent::Stale { room, .. } if room == name) {
                watcher.breaks.push((at.at_us, true));
            }
            if let ClientEvent::UserLeft { room, user, at_ms, .. } = &**what
                && room == name
                && let Some(user) = users.get(user.as_str()).copied()
            {
                watcher.leaves.push(ToldLeave { user, at_us: at.at_us, at_ms: *at_ms, step });
            }
        }
    }
    watchers.into_values().map(|(_, watcher)| watcher).collect()
}
