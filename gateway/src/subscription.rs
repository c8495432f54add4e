//! A subscription: its state, and a connection's table of them. The rules that move it are in
//! [`crate::view`], because the view of a room holds its subscriptions densely. Never does I/O.

pub mod pages;

use sluice_proto::ids::{Epoch, RoomId, Seq};

use crate::room::limits::Backoff;
use crate::room::link::Ms;

/// A connection of this shard: the driver's index.
pub type ConnKey = u32;
/// A subscription of one view, stable while it exists, then used again.
pub type SubKey = u32;

/// Where a subscription stands; the view's `head` stands for the cursor of a Live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Its `sub` is not answered yet.
    Pending,
    /// Reads the past from its cursor at the client's own pace.
    CatchingUp {
        /// Last position put in the outbound queue.
        cursor: Seq,
    },
    /// Gets each run at once: its cursor is the head.
    Live,
}

/// What the view tells a client through its connection's queue, at once and whatever the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubFrame {
    /// The `ok` of `sub`. Precedes every message of the subscription.
    Ok {
        /// Effective position: the next message has `after + 1`.
        after: Seq,
        /// Last position known to exist.
        head: Seq,
        /// The history the positions belong to.
        epoch: Epoch,
        /// Whether `after` is the position that was asked for.
        recovered: bool,
        /// Whether one was asked for, to go on from there.
        resumed: bool,
        /// Answers the client's `sub`; otherwise unsolicited (the epoch changed) and without `id`.
        solicited: bool,
    },
    /// No message with a position in `from…to` will come.
    Skipped {
        /// The history the positions belong to.
        epoch: Epoch,
        /// The first position that is skipped.
        from: Seq,
        /// Last position, at least `from`.
        to: Seq,
    },
}

/// A page a subscription asks for. Answered by [`crate::view::View::page`] or
/// [`crate::view::View::page_failed`] with the same `sub` and `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The subscription that asks.
    pub sub: SubKey,
    /// Whose turn it takes.
    pub conn: ConnKey,
    /// Number of the ask, unique in the shard.
    pub number: u64,
    /// The epoch that is read.
    pub epoch: Epoch,
    /// Read messages after this position: the start of the aligned page if `shared`, else the cursor.
    pub after: Seq,
    /// May be answered by a page that others ask for too, also one already in flight (`pages::PageReads`).
    pub shared: bool,
}

/// A subscription that is not Live.
#[derive(Debug)]
pub(crate) struct WaitingSub {
    pub(crate) sub: SubKey,
    pub(crate) conn: ConnKey,
    pub(crate) waits_for: WaitingFor,
}

/// What it waits for.
#[derive(Debug)]
pub(crate) enum WaitingFor {
    /// The hand-over that answers `sub` number `number`.
    Pending { number: u64, after: Option<Seq>, epoch: Option<Epoch> },
    /// Messages of the past, or space for them.
    CatchingUp(CatchingUp),
}

/// How far it is, and what it asked for.
#[derive(Debug, Default)]
pub(crate) struct CatchingUp {
    pub(crate) cursor: Seq,
    /// Number and deadline of the one ask in flight.
    pub(crate) asked: Option<(u64, Ms)>,
    pub(crate) backoff: Backoff,
    /// The aligned page of which a shared copy brought nothing: asks inside it are unshared.
    pub(crate) unshared: Option<u64>,
    /// Fell behind after having been Live: `max_behind` holds for it.
    pub(crate) was_live: bool,
}

/// A second `sub` of a room without `unsub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("already subscribed to this room")]
pub struct AlreadySubscribed;

/// The subscriptions of one connection, by room. `V` is how the driver finds the view and, with the
/// [`SubKey`], the subscription.
#[derive(Debug)]
pub struct Subscriptions<V> {
    /// In the order of the names. Most connections have one or two rooms: no table, no spare places.
    by_room: Vec<(RoomId, V)>,
    start: usize,
}

/// Below this many rooms no place is kept in reserve.
const EXACT_MAX: usize = 8;

impl<V> Default for Subscriptions<V> {
    fn default() -> Self {
        Self { by_room: Vec::new(), start: 0 }
    }
}

impl<V> Subscriptions<V> {
    /// Enters a subscription.
    ///
    /// # Errors
    /// The room is in the table.
    pub fn insert(&mut self, room: RoomId, at: V) -> Result<(), AlreadySubscribed> {
        let Err(place) = self.find(room.as_str()) else { return Err(AlreadySubscribed) };
        if self.by_room.len() < EXACT_MAX {
            // Left to itself the vector would take four places for one room, a hundred thousand times.
            self.by_room.reserve_exact(1);
        }
        self.by_room.insert(place, (room, at));
        Ok(())
    }

    /// Where a room is, or would be.
    fn find(&self, room: &str) -> Result<usize, usize> {
        self.by_room.binary_search_by(|(name, _)| name.as_str().cmp(room))
    }

    /// Takes a subscription out.
    pub fn remove(&mut self, room: &str) -> Option<V> {
        self.find(room).ok().map(|place| self.by_room.remove(place).1)
    }

    /// Takes all subscriptions out.
    pub fn take(&mut self) -> Vec<(RoomId, V)> {
        std::mem::take(&mut self.by_room)
    }

    /// The subscription of a room.
    #[must_use]
    pub fn get(&self, room: &str) -> Option<&V> {
        self.find(room).ok().and_then(|place| self.by_room.get(place)).map(|(_, at)| at)
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_room.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_room.is_empty()
    }

    /// All, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&RoomId, &V)> {
        self.by_room.iter().map(|(room, at)| (room, at))
    }

    /// All, once each, starting one further with every call: whoever comes first when the queue has
    /// space may fill it, so a fast room would starve the others.
    pub fn rotate(&mut self) -> impl Iterator<Item = (&RoomId, &V)> {
        let len = self.by_room.len();
        // Begins with another room each time, as the first one may fill the queue.
        self.start = if len == 0 { 0 } else { (self.start + 1) % len };
        let start = self.start;
        (start..len).chain(0..start).filter_map(|at| self.by_room.get(at)).map(|(room, at)| (room, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_sub_is_an_error() {
        let mut table = Subscriptions::default();
        let room = RoomId::parse("news").unwrap();
        assert_eq!(table.insert(room.clone(), 1), Ok(()));
        assert_eq!(table.insert(room.clone(), 2), Err(AlreadySubscribed));
        assert_eq!(table.remove("news"), Some(1));
        assert_eq!(table.insert(room, 3), Ok(()));
    }

    #[test]
    fn few_rooms_take_no_place_in_reserve_and_many_do() {
        let mut table = Subscriptions::default();
        for n in 1..=EXACT_MAX {
            table.insert(RoomId::parse(&n.to_string()).unwrap(), n).unwrap();
            assert_eq!((table.len(), table.by_room.capacity()), (n, n));
        }
        table.insert(RoomId::parse("more").unwrap(), 0).unwrap();
        assert!(table.by_room.capacity() > EXACT_MAX + 1, "each further one would move all of them");
    }

    #[test]
    fn a_table_finds_what_was_entered_and_gives_it_back() {
        let mut table = Subscriptions::default();
        assert!(table.is_empty() && table.rotate().next().is_none());
        for (name, at) in [("b", 2), ("a", 1)] {
            table.insert(RoomId::parse(name).unwrap(), at).unwrap();
        }
        assert_eq!((table.len(), table.is_empty()), (2, false));
        assert_eq!((table.get("a"), table.get("b"), table.get("c")), (Some(&1), Some(&2), None));
        assert_eq!(table.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((table.take().len(), table.len()), (2, 0));
    }

    #[test]
    fn the_start_rotates() {
        let mut table = Subscriptions::default();
        for n in 0..3 {
            table.insert(RoomId::parse(&n.to_string()).unwrap(), n).unwrap();
        }
        let turns: Vec<Vec<i32>> = (0..4).map(|_| table.rotate().map(|(_, n)| *n).collect()).collect();
        assert_eq!(turns, [[1, 2, 0], [2, 0, 1], [0, 1, 2], [1, 2, 0]]);
    }
}
