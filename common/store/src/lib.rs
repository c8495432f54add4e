//! The store: rooms, messages, outbox, what is to be published later, and which tokens are revoked. The one part of Sluice that is trusted to
//! remember.
//!
//! [`Store`] is the contract. Two modules keep it, each behind the feature of its name:
//!
//! | | `postgres` | `sqlite` |
//! |---|---|---|
//! | for | a cluster: many processes, one server | `sluice serve`, `sluice dev`: one process, one file, or memory, which keeps no promise |
//! | `ok` stands on | `fsync`, `synchronous_commit`: checked on every connection | WAL, `synchronous=FULL`: checked on every connection that publishes |
//! | a group is | one call of `publish_v2` | one `begin immediate` transaction, shared by groups that wait |
//! | the epoch changes with | restore, promotion, `new_epoch` | another file, a backup put in use, `new_epoch`; any other older copy in its place is not seen |
//!
//! The tests hold both to the same cases. Nothing here knows of gateways, notices or users' rights, and
//! nothing here retries a write: the caller has the keys that make a retry safe, so the caller retries.

#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub mod copy;
mod error;
mod listing;
#[cfg(feature = "postgres")]
pub mod postgres;
mod retention;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod revocations;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod trouble;
mod types;

use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, UserId};
use sluice_proto::revocation::Revocation;

pub use error::{Class, StoreError};
pub use listing::{RoomList, RoomQuery, RoomSummary, ScheduledList, ScheduledMessage, ScheduledQuery};
pub use retention::{DEDUPE_MIN, InvalidRetention, Retention};
pub use trouble::Trouble;
pub use types::{
    Committed, DelayedItem, DelayedOutcome, Due, Fired, Heads, LockedRooms, NewMessage, NoteId, Outcome,
    Page, Pages, Range, RevocationPage, Row, Run, StaleNote, StoredMessage, Trimmed, WaitingLimit, hash_of,
    message_cost,
};

/// What every store must do. Each call is bounded by the store's own deadlines and may be cancelled by
/// dropping its future: a cancelled write may still be stored, exactly like one that answers
/// [`Class::Unknown`].
///
/// At every instant a room holds exactly the messages `oldest…head` without a hole, each
/// `(room, sender, key)` once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits one group: all of `items` or nothing, in the order given.
    ///
    /// `lane` may choose the connection; groups of one lane wait for each other. Past `not_after_ms`
    /// (milliseconds since 1970, the store's clock) nothing is stored: [`StoreError::TooLate`].
    ///
    /// # Errors
    /// By [`StoreError::class`]; only [`Class::Unknown`] leaves open whether the group was stored.
    async fn publish(
        &self,
        lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError>;

    /// Reads pages, one per range in order, all from one snapshot: no message is above its page's head.
    ///
    /// Stops at `bytes_max` (sum of [`message_cost`]); the first range still gets at least one message
    /// if it has one, and ranges that got nothing for lack of space are marked `deferred`.
    ///
    /// # Errors
    /// Any failure; nothing was changed and the call can be made again.
    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Result<Pages, StoreError>;

    /// The last seq of each room, in order; 0 for a room nobody published to.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError>;

    /// Rooms by prefix, a page of them.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError>;

    /// Messages of a room that wait for their time, a page of them; what was cancelled does not wait.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, StoreError>;

    /// The epoch now, after a round trip that proves the connection it stands for.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn epoch(&self) -> Result<Epoch, StoreError>;

    /// The clock that times of messages are taken from, milliseconds since 1970; `None`: this process's own.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// Proves that a publish could be committed, by one that is taken back in its own transaction. `thorough`: one that
    /// needs space of its own, for a store that had none. May take longer than other calls, as long as a commit hangs;
    /// asked again before it has answered, it waits for itself.
    ///
    /// A store in a file is only asked whether it answers, and after it had no space whether there is some beside it.
    ///
    /// # Errors
    /// Why nothing can be committed.
    async fn probe_commit(&self, thorough: bool) -> Result<(), StoreError> {
        let _ = thorough;
        self.epoch().await.map(drop)
    }

    /// Which of these rooms somebody holds locked, after a group of `lane` waited too long for one of them. None where
    /// all that publish take turns.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn locked(&self, lane: u8, rooms: &[RoomId]) -> Result<Vec<RoomId>, StoreError> {
        let _ = (lane, rooms);
        Ok(Vec::new())
    }

    /// Keeps messages until they are due, and takes them back: all of `items` or nothing, those of a key in the order
    /// given. All are of `lane`. What was cancelled is remembered until [`Store::forget_cancelled`], so each item may be
    /// sent again. Past `not_after_ms` nothing is stored: [`StoreError::TooLate`].
    ///
    /// No more wait than `limit` says. What other lanes keep in the same moment is not counted.
    ///
    /// A message that waits has its key: a publish at once under it answers [`Outcome::Waits`] or [`Outcome::Conflict`].
    ///
    /// # Errors
    /// By [`StoreError::class`]; only [`Class::Unknown`] leaves open whether it was done.
    async fn delay(
        &self,
        lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError>;

    /// How long until the next message of these lanes is due by the store's clock; zero if one is, `None` if none waits.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn next_due(&self, lanes: &[u8]) -> Result<Option<Duration>, StoreError>;

    /// Publishes messages of `lane` that are due, at most `limit`, the longest due first: they wait no more and are
    /// stored with the keys of their senders, in one transaction. Who else fires at the same time takes others. What is
    /// due in a room that somebody keeps locked is left, see [`LockedRooms`].
    ///
    /// # Errors
    /// By [`StoreError::class`]; made again after any of them, it publishes what is still due.
    async fn fire_due(&self, lane: u8, limit: usize, locked: &LockedRooms) -> Result<Fired, StoreError>;

    /// Forgets up to `limit` keys that were cancelled longer ago than `older_than`; says how many.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError>;

    /// Forgets outbox rows that were handed over. May be undone by a crash of the store, which only
    /// makes somebody announce them again.
    ///
    /// # Errors
    /// Any failure; the rows stay, or not.
    async fn noted(&self, notes: &[NoteId]) -> Result<(), StoreError>;

    /// Outbox rows older than `older_than` by the store's clock, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Result<Vec<StaleNote>, StoreError>;

    /// Deletes up to `limit` outbox rows older than `older_than`; says how many.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError>;

    /// Applies retention to the next few rooms, deleting at most `limit` messages, always the oldest of
    /// a room. Called again and again it comes past every room. Never deletes a message younger than
    /// `dedupe_min`, never a room.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn trim(&self, policy: &Retention, limit: usize) -> Result<Trimmed, StoreError>;

    /// Refuses tokens of a user that were issued up to this second since 1970, by default the present one of the store's
    /// clock, and all that do not say when. What was revoked before stays so. Made again, it takes a new position.
    ///
    /// # Errors
    /// By [`StoreError::class`]; made again after any of them, it revokes what it would have.
    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError>;

    /// Revocations after a position, in order, at most `limit`; each user's last one alone. Those that are not among them
    /// have later positions: none is committed before another that has a lower one.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError>;

    /// The latest second up to which any revocation reaches whose position is not above this one; 0: there is none.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError>;

    /// Up to which second the tokens of each of these users are revoked, in order.
    ///
    /// # Errors
    /// Any failure; the call can be made again.
    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError>;

    /// Refuses new calls, gives those in flight a moment (2 s), closes the connections. May be called twice.
    async fn close(&self);
}
