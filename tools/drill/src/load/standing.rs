//! What one client holds now: its connection, its rooms and how far each has come. Its driver writes it, others look.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A room of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The last seq that came or was said to be gone; `None` = not subscribed yet.
    pub last: Option<u64>,
    /// The epoch it belongs to.
    pub epoch: String,
    /// Whether the subscription is confirmed on the connection of now.
    pub live: bool,
    /// Whether the client left it for a while.
    pub away: bool,
}

#[derive(Debug, Default)]
struct Holds {
    instance: Option<String>,
    rooms: BTreeMap<String, Held>,
}

/// What a client holds.
#[derive(Debug)]
pub(super) struct Standing {
    /// Whose.
    pub user: String,
    holds: Mutex<Holds>,
}

impl Standing {
    pub(super) fn new(user: &str, rooms: &[String]) -> Self {
        let rooms = rooms.iter().map(|room| (room.clone(), Held::default())).collect();
        Self { user: user.to_owned(), holds: Mutex::new(Holds { instance: None, rooms }) }
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection is the one that is used.
    pub(super) fn opened(&self, instance: &str) {
        let mut holds = self.holds();
        holds.instance = Some(instance.to_owned());
        holds.rooms.values_mut().for_each(|held| held.live = false);
    }

    /// There is no connection.
    pub(super) fn closed(&self) {
        let mut holds = self.holds();
        holds.instance = None;
        holds.rooms.values_mut().for_each(|held| held.live = false);
    }

    pub(super) fn subscribed(&self, room: &str, after: u64, epoch: &str) {
        let mut holds = self.holds();
        let held = holds.rooms.entry(room.to_owned()).or_default();
        *held = Held { last: Some(after), epoch: epoch.to_owned(), live: true, away: false };
    }

    /// Left for a while.
    pub(super) fn left(&self, room: &str) {
        if let Some(held) = self.holds().rooms.get_mut(room) {
            (held.live, held.away) = (false, true);
        }
    }

    /// Nothing is left any more.
    pub(super) fn come_back(&self) {
        self.holds().rooms.values_mut().for_each(|held| held.away = false);
    }

    /// Everything up to `seq` has come, or is gone.
    pub(super) fn reached(&self, room: &str, seq: u64) {
        if let Some(held) = self.holds().rooms.get_mut(room) {
            held.last = held.last.max(Some(seq));
        }
    }

    /// Rooms that it is to be subscribed to.
    pub(super) fn wanted(&self) -> Vec<(String, Held)> {
        let holds = self.holds();
        holds
            .rooms
            .iter()
            .filter(|(_, held)| !held.away)
            .map(|(room, held)| (room.clone(), held.clone()))
            .collect()
    }

    pub(super) fn held(&self, room: &str) -> Option<Held> {
        self.holds().rooms.get(room).cloned()
    }

    pub(super) fn is_live(&self) -> bool {
        let holds = self.holds();
        holds.instance.is_some() && holds.rooms.values().all(|held| held.live || held.away)
    }

    pub(super) fn instance(&self) -> Option<String> {
        self.holds().instance.clone()
    }

    /// Rooms open and subscribed.
    pub(super) fn live(&self) -> Vec<String> {
        let holds = self.holds();
        holds.rooms.iter().filter(|(_, held)| held.live).map(|(room, _)| room.clone()).collect()
    }

    /// What it lacks of these heads, for people.
    pub(super) fn lacks(&self, heads: &BTreeMap<String, u64>) -> Vec<String> {
        let holds = self.holds();
        let lacks = |(room, held): (&String, &Held)| {
            let head = *heads.get(room).unwrap_or(&0);
            let has = held.away || (held.live && held.last.is_some_and(|last| last >= head));
            (!has).then(|| match (held.live, held.last) {
                (true, Some(last)) => format!("{} has {room} up to {last} of {head}", self.user),
                (true, None) | (false, _) => format!("{} is not subscribed to {room}", self.user),
            })
        };
        holds.rooms.iter().filter_map(lacks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        let standing = Standing::new("u1", &["a".into(), "b".into()]);
        let heads = BTreeMap::from([("a".to_owned(), 5)]);
        assert_eq!(standing.lacks(&heads).len(), 2, "not subscribed");
        standing.opened("gateway-1");
        standing.subscribed("a", 3, "e");
        standing.subscribed("b", 0, "e");
        standing.reached("a", 4);
        assert_eq!(standing.lacks(&heads), ["u1 has a up to 4 of 5"]);
        standing.reached("a", 5);
        assert!(standing.lacks(&heads).is_empty() && standing.is_live());
        assert_eq!(standing.live(), ["a", "b"]);
        standing.closed();
        assert_eq!((standing.lacks(&heads).len(), standing.live().len()), (2, 0));
        standing.left("b");
        assert_eq!(
            standing.lacks(&heads),
            ["u1 is not subscribed to a"],
            "who left on purpose lacks nothing"
        );
    }
}
