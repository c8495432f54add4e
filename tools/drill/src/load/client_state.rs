//! What one client holds now: its connection, its rooms and how far each has come. Its driver writes it, others look.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A room of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RoomState {
    /// The last seq that came or was said to be gone; `None` = not subscribed yet.
    pub last: Option<u64>,
    /// The epoch it belongs to.
    pub epoch: String,
    /// Whether the subscription is confirmed on the connection of now.
    pub live: bool,
    /// Whether the client left it for a while.
    pub away: bool,
}

impl RoomState {
    /// Messages up to this head that have not come; where it is not subscribed, all and one more.
    fn missing(&self, head: u64) -> u64 {
        match self.last {
            _ if self.away => 0,
            Some(last) if self.live => head.saturating_sub(last),
            _ => head.saturating_add(1),
        }
    }
}

#[derive(Debug, Default)]
struct ConnectionState {
    instance: Option<String>,
    rooms: BTreeMap<String, RoomState>,
    /// It has ended for good.
    gone: bool,
}

/// What a client holds.
#[derive(Debug)]
pub(super) struct ClientState {
    /// Whose.
    pub user: String,
    inner: Mutex<ConnectionState>,
}

impl ClientState {
    pub(super) fn new(user: &str, rooms: &[String]) -> Self {
        let rooms = rooms.iter().map(|room| (room.clone(), RoomState::default())).collect();
        let inner = ConnectionState { rooms, ..ConnectionState::default() };
        Self { user: user.to_owned(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, ConnectionState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection is the one that is used.
    pub(super) fn opened(&self, instance: &str) {
        let mut inner = self.inner();
        inner.instance = Some(instance.to_owned());
        inner.rooms.values_mut().for_each(|held| held.live = false);
    }

    /// There is no connection.
    pub(super) fn closed(&self) {
        let mut inner = self.inner();
        inner.instance = None;
        // How far each room has come stays: the next connection resumes from there.
        inner.rooms.values_mut().for_each(|held| held.live = false);
    }

    /// It has ended for good: nobody waits for it.
    pub(super) fn gone(&self) {
        let mut inner = self.inner();
        (inner.instance, inner.gone) = (None, true);
        inner.rooms.clear();
    }

    pub(super) fn subscribed(&self, room: &str, after: u64, epoch: &str) {
        let mut inner = self.inner();
        let held = inner.rooms.entry(room.to_owned()).or_default();
        *held = RoomState { last: Some(after), epoch: epoch.to_owned(), live: true, away: false };
    }

    /// Left for a while.
    pub(super) fn left(&self, room: &str) {
        if let Some(held) = self.inner().rooms.get_mut(room) {
            (held.live, held.away) = (false, true);
        }
    }

    /// Nothing is left any more.
    pub(super) fn come_back(&self) {
        self.inner().rooms.values_mut().for_each(|held| held.away = false);
    }

    /// Everything up to `seq` has come, or is gone.
    pub(super) fn reached(&self, room: &str, seq: u64) {
        if let Some(held) = self.inner().rooms.get_mut(room) {
            // Never back: what comes again, or late, is for the judge to see.
            held.last = held.last.max(Some(seq));
        }
    }

    /// Rooms that it is to be subscribed to.
    pub(super) fn wanted(&self) -> Vec<(String, RoomState)> {
        let inner = self.inner();
        inner
            .rooms
            .iter()
            .filter(|(_, held)| !held.away)
            .map(|(room, held)| (room.clone(), held.clone()))
            .collect()
    }

    pub(super) fn held(&self, room: &str) -> Option<RoomState> {
        self.inner().rooms.get(room).cloned()
    }

    pub(super) fn is_live(&self) -> bool {
        let inner = self.inner();
        let in_all = inner.rooms.values().all(|held| held.live || held.away);
        inner.gone || (inner.instance.is_some() && in_all)
    }

    pub(super) fn instance(&self) -> Option<String> {
        self.inner().instance.clone()
    }

    /// Rooms open and subscribed.
    pub(super) fn live(&self) -> Vec<String> {
        let inner = self.inner();
        inner.rooms.iter().filter(|(_, held)| held.live).map(|(room, _)| room.clone()).collect()
    }

    /// Messages up to these heads that it has not got; of a room that it is not subscribed to, all and one more.
    pub(super) fn missing(&self, heads: &BTreeMap<String, u64>) -> u64 {
        let inner = self.inner();
        let missing = inner.rooms.iter().map(|(room, held)| held.missing(*heads.get(room).unwrap_or(&0)));
        missing.fold(0, u64::saturating_add)
    }

    /// What it lacks of these heads, for people.
    pub(super) fn lacks(&self, heads: &BTreeMap<String, u64>) -> Vec<String> {
        let inner = self.inner();
        let lacks = |(room, held): (&String, &RoomState)| {
            let head = *heads.get(room).unwrap_or(&0);
            (held.missing(head) > 0).then(|| match (held.live, held.last) {
                (true, Some(last)) => format!("{} has {room} up to {last} of {head}", self.user),
                (true, None) | (false, _) => format!("{} is not subscribed to {room}", self.user),
            })
        };
        inner.rooms.iter().filter_map(lacks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        let state = ClientState::new("u1", &["a".into(), "b".into()]);
        let heads = BTreeMap::from([("a".to_owned(), 5)]);
        assert_eq!(state.lacks(&heads).len(), 2, "not subscribed");
        assert_eq!(state.missing(&heads), 7, "all of both rooms, and one more each");
        state.opened("gateway-1");
        state.subscribed("a", 3, "e");
        state.subscribed("b", 0, "e");
        state.reached("a", 4);
        assert_eq!(state.lacks(&heads), ["u1 has a up to 4 of 5"]);
        state.reached("a", 5);
        assert!(state.lacks(&heads).is_empty() && state.is_live());
        assert_eq!(state.live(), ["a", "b"]);
        state.closed();
        assert_eq!((state.lacks(&heads).len(), state.live().len()), (2, 0));
        state.left("b");
        assert_eq!(state.lacks(&heads), ["u1 is not subscribed to a"], "who left on purpose lacks nothing");
        state.gone();
        assert!(state.lacks(&heads).is_empty() && state.is_live(), "nobody waits for who has ended");
    }
}
