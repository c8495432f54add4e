//! What goes into a store and what comes out. Plain data, no I/O.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sluice_proto::ids::{Epoch, Key, RoomId, Seq, UserId};
use sluice_proto::revocation::Revocation;

/// SHA-256 of a message's data: what tells a resend from another message under the same key.
#[must_use]
pub fn hash_of(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// What a message counts towards `bytes_max`: its data, its names, and 32 bytes for numbers and framing.
#[must_use]
pub fn message_cost(sender: &str, key: &str, data: &[u8]) -> usize {
    data.len() + sender.len() + key.len() + 32
}

/// A message to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The room it is published to.
    pub room: RoomId,
    /// The user who sends it.
    pub sender: UserId,
    /// Stored once per `(room, sender, key)`.
    pub key: Key,
    /// The hash of `data`, as [`hash_of`] makes it.
    pub hash: [u8; 32],
    /// The JSON text as it was received.
    pub data: Bytes,
}

/// The outcome of one item of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This call stored it.
    Stored {
        /// The position of the message.
        seq: Seq,
        /// When, milliseconds since 1970 by the store's clock. Never decreases within a room.
        at_ms: i64,
    },
    /// The same message was stored before, perhaps earlier in the same group.
    Duplicate {
        /// Position of the first one.
        seq: Seq,
    },
    /// The same message waits to be published later.
    Waits {
        /// Until then, milliseconds since 1970 by the store's clock.
        due_ms: i64,
    },
    /// The key was used for other data, also of one that waits, or was cancelled. Final.
    Conflict,
}

/// One item's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What became of it.
    pub outcome: Outcome,
}

/// Names an outbox row: what a committed group owes to subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteId(pub i64);

/// A committed group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// One per item, in order.
    pub rows: Vec<Row>,
    /// The outbox row, absent when nothing new was stored.
    pub note: Option<NoteId>,
}

/// When a delayed message is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At this time of the store's clock, milliseconds since 1970.
    At(i64),
    /// So many milliseconds after it is stored.
    In(i64),
}

/// Something about a message that is to be published later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelayedItem {
    /// Keeps it until it is due.
    Schedule {
        /// The message.
        message: NewMessage,
        /// When it is to be published.
        due: Due,
    },
    /// Takes it back.
    Cancel {
        /// Its room.
        room: RoomId,
        /// Who scheduled it.
        sender: UserId,
        /// The key it was scheduled with.
        key: Key,
    },
}

/// How many messages may wait, and whose are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitingLimit {
    /// At most so many; 0: any number.
    pub max: u32,
    /// The name of the key of the API by which they come: what came by it is counted, whoever sends it. `None`: they come
    /// from clients, and what each sender has is counted, also what came by a key in their name.
    pub api_key: Option<Box<str>>,
}

impl WaitingLimit {
    /// Of each sender.
    #[must_use]
    pub const fn per_sender(max: u32) -> Self {
        Self { max, api_key: None }
    }
}

/// The outcome of one [`DelayedItem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayedOutcome {
    /// It waits, since this call or an earlier one.
    Waits {
        /// Until then, milliseconds since 1970 by the store's clock.
        due_ms: i64,
    },
    /// It was published before, by itself or without a delay.
    Published {
        /// The position of the message.
        seq: Seq,
    },
    /// The key was used for other data. Final.
    Conflict,
    /// It was cancelled, by this call or an earlier one: it is not published.
    Cancelled,
    /// Nothing waits under this key: it was published, or never scheduled.
    NothingWaits,
    /// As many messages wait as may, see [`WaitingLimit`]: it is not kept.
    TooMany,
}

/// Rooms that somebody else kept locked when something of theirs was due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockedRooms {
    /// They are passed over.
    pub without: Vec<RoomId>,
    /// For this one a moment is waited: it may just be in use.
    pub wait_for: Option<RoomId>,
}

/// What one step of firing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// Messages that do not wait any more.
    pub taken: u64,
    /// Of these, messages whose key was used for other data meanwhile: they are not published.
    pub conflicts: u64,
    /// What was published now, in the order of the rooms' names.
    pub runs: Vec<Run>,
    /// Rooms with something due that somebody else has locked: it waits on.
    pub locked: Vec<RoomId>,
    /// The outbox row, absent when nothing new was stored.
    pub note: Option<NoteId>,
}

/// What to read of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The room.
    pub room: RoomId,
    /// Without `before`: messages with `seq > after`, from the oldest. Ignored otherwise.
    pub after: Seq,
    /// With it: the newest messages with `seq < before` (history), still oldest first.
    pub before: Option<Seq>,
    /// Messages, 1…256; 0 stands for 256, more is taken as 256.
    pub limit: u32,
}

/// A message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The position of the message.
    pub seq: Seq,
    /// The user who sent it.
    pub sender: UserId,
    /// The key of the sender.
    pub key: Key,
    /// When it was stored, milliseconds since 1970 by the store's clock.
    pub at_ms: i64,
    /// The JSON text as it was received.
    pub data: Bytes,
}

/// Messages of one room, oldest first, without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The room.
    pub room: RoomId,
    /// Oldest seq kept; `head + 1` when nothing is kept.
    pub oldest: Seq,
    /// Last seq given out; 0 for an unknown room.
    pub head: Seq,
    /// The messages of the page. Shorter than asked when the reply was full; ask again from there.
    pub messages: Vec<StoredMessage>,
    /// There is something to read but the reply was full. `oldest` and `head` are right all the same.
    pub deferred: bool,
}

/// The answer to a read: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// One per range, in order.
    pub pages: Vec<Page>,
}

/// Heads of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// One per room, in order.
    pub heads: Vec<Seq>,
}

/// A contiguous run of new messages of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The room.
    pub room: RoomId,
    /// The first position.
    pub first: Seq,
    /// The last position, inclusive.
    pub last: Seq,
}

/// An outbox row nobody has forgotten yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleNote {
    /// The id of the outbox row.
    pub id: NoteId,
    /// When its group was stored, milliseconds since 1970 by the store's clock.
    pub at_ms: i64,
    /// What the group stored.
    pub runs: Vec<Run>,
}

/// Revocations after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationPage {
    /// Epoch of the connection that served it.
    pub epoch: Epoch,
    /// The last position that was given to any.
    pub head: u64,
    /// By their positions.
    pub page: Vec<Revocation>,
}

/// What one step of retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Messages deleted.
    pub messages: u64,
    /// The limit stopped it: there is more to delete now.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_sha256() {
        assert_eq!(hash_of(b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
