//! Who watches a room, and which leaves are due in those that are watched. Pure; the same rules as the Lua calls.

use std::collections::{HashMap, HashSet};

use sluice_proto::ids::{RoomId, UserId};

use super::{ConnectionFields, Field, Tables};
use crate::{DUE_LEAVES_MAX, DueLeaves, GOODBYE_GRACE, RoomEvent, RoomEventKind, WATCHED_CONNECTIONS_MAX};

#[derive(Default)]
pub(super) struct Watched {
    grace_ms: i64,
    /// Connections that watch, by room.
    by: HashMap<RoomId, HashSet<String>>,
    /// Rooms whose last watcher left, and until when they still count as watched: watchers move too.
    until: HashMap<RoomId, i64>,
    /// When leaves are due.
    leaves: HashMap<(RoomId, UserId), i64>,
    /// The data was lost: until then nobody is told of joins.
    quiet_until: i64,
    /// What is removed now was told before.
    pub(super) silent: bool,
}

impl Watched {
    pub(super) fn with_grace(grace_ms: i64) -> Self {
        Self { grace_ms, ..Self::default() }
    }

    pub(super) fn wiped(&self, quiet_until: i64) -> Self {
        Self { quiet_until, ..Self::with_grace(self.grace_ms) }
    }

    pub(super) fn is_quiet(&self, now_ms: i64) -> bool {
        now_ms < self.quiet_until
    }

    fn is_watched(&self, room: &RoomId, now_ms: i64) -> bool {
        self.by.contains_key(room) || self.until.get(room).is_some_and(|until| now_ms < *until)
    }

    fn unwatch(&mut self, room: &RoomId, connection: &str, now_ms: i64) {
        let Some(watchers) = self.by.get_mut(room) else { return };
        if watchers.remove(connection) && watchers.is_empty() {
            self.by.remove(room);
            self.until.insert(room.clone(), now_ms + self.grace_ms);
        }
    }
}

/// The field that stands for a user who is away and may come back.
fn stand_in(user: &UserId) -> String {
    format!("~{user}")
}

impl Tables {
    /// A connection joins a room: what its watchers are told.
    pub(super) fn join(
        &mut self,
        room: &RoomId,
        connection: &str,
        field: Field,
        watches: bool,
    ) -> Option<RoomEvent> {
        let user = field.user.clone();
        let is_watched = self.watched.is_watched(room, self.now_ms);
        let is_news = is_watched && !self.is_there(room, &user);
        let fields = self.in_room.entry(room.clone()).or_default();
        fields.insert(connection.to_owned(), field);
        if watches {
            self.watched.by.entry(room.clone()).or_default().insert(connection.to_owned());
        }
        // Back within the grace: nobody has heard that they were away.
        if self.watched.leaves.remove(&(room.clone(), user.clone())).is_some() {
            fields.remove(&stand_in(&user));
            return None;
        }
        let info = self.info.get(&user).cloned().unwrap_or_default();
        let kind = RoomEventKind::Joined { info };
        let event = RoomEvent { room: room.clone(), user, at_ms: self.now_ms, kind };
        (is_news && !self.watched.is_quiet(self.now_ms)).then_some(event)
    }

    /// A connection was removed from a room: whoever removes a user's last one notes the leave.
    pub(super) fn leave(&mut self, room: &RoomId, connection: &str, field: Field, goodbye: bool) {
        if !self.watched.is_watched(room, self.now_ms) {
            return;
        }
        self.watched.unwatch(room, connection, self.now_ms);
        if self.watched.silent || self.is_there(room, &field.user) {
            return;
        }
        let mut wait = self.watched.grace_ms;
        if goodbye && !self.watched.is_quiet(self.now_ms) {
            wait = wait.min(i64::try_from(GOODBYE_GRACE.as_millis()).unwrap_or(i64::MAX));
        }
        self.watched.leaves.insert((room.clone(), field.user.clone()), self.now_ms + wait);
        self.in_room.entry(room.clone()).or_default().insert(stand_in(&field.user), field);
    }

    /// Takes leaves whose grace is over.
    pub(in crate::memory) fn due_leaves(&mut self) -> DueLeaves {
        let now_ms = self.now_ms;
        self.watched.until.retain(|_, until| now_ms < *until);
        let is_due = |at: &&i64| **at <= now_ms;
        let count = self.watched.leaves.values().filter(is_due).count();
        let due = self.watched.leaves.iter().filter(|(_, at)| **at <= now_ms).map(|(of, _)| of.clone());
        let due: Vec<(RoomId, UserId)> = due.take(DUE_LEAVES_MAX).collect();
        let mut told = DueLeaves { events: Vec::new(), more: count > due.len() };
        for (room, user) in due {
            self.watched.leaves.remove(&(room.clone(), user.clone()));
            self.remove_stand_in(&room, &user);
            let is_watched = self.watched.is_watched(&room, now_ms) && !self.watched.is_quiet(now_ms);
            if is_watched && !self.is_there(&room, &user) {
                told.events.push(RoomEvent { room, user, at_ms: now_ms, kind: RoomEventKind::Left });
            }
        }
        told
    }

    fn remove_stand_in(&mut self, room: &RoomId, user: &UserId) {
        let Some(fields) = self.in_room.get_mut(room) else { return };
        fields.remove(&stand_in(user));
        if fields.is_empty() {
            self.in_room.remove(room);
        }
    }

    /// Whether a user has a connection in a room: those of the user are few.
    fn is_there(&self, room: &RoomId, user: &UserId) -> bool {
        let (Some(of_user), Some(in_room)) = (self.of_user.get(user), self.in_room.get(room)) else {
            return false;
        };
        let is_in_room =
            |connections: &ConnectionFields| connections.keys().any(|name| in_room.contains_key(name));
        of_user.len() > WATCHED_CONNECTIONS_MAX || is_in_room(of_user)
    }
}
