//! Interest (which gateway wants which room) and presence (who is connected, who is in a room).
//!
//! Everything here is a memory aid that gateways announce again when it is lost; every operation is
//! idempotent. This crate never writes "offline": a connection is a field, and only that field is removed,
//! by name, while it still belongs to the instance that wrote it.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod section;
mod users;

pub use section::Redis;
pub use users::CONNECTIONS_MAX;

use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{InstanceId, RoomId, UserId};

/// Why presence could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// Not reachable, or no answer in time: done or not. Sending the same again is always safe.
    #[error("presence is unavailable: {0}")]
    Unavailable(String),
    /// It answered with something else than expected: a misconfigured or foreign server.
    #[error("presence refused: {0}")]
    Refused(String),
    /// [`Presence::close`] was called; final.
    #[error("presence is closed")]
    Closed,
}

/// How long a user may be away from a room before a leave is told: longer than a gateway needs to be replaced.
pub const LEAVE_GRACE: Duration = Duration::from_secs(15);
/// After a goodbye: a second connection that took the place of the first is known by then.
pub const GOODBYE_GRACE: Duration = Duration::from_secs(1);
/// How long nobody is told of joins after the data was lost, or may be an older copy: gateways notice within a second
/// and tell everything again.
pub const QUIET: Duration = Duration::from_secs(10);
/// Leaves taken by one call: some milliseconds of Redis.
pub const DUE_LEAVES_MAX: usize = 256;
/// A user with more connections than this neither joins nor leaves a room for those who watch it: to look through all
/// of them with each change would cost too much.
pub const WATCHED_CONNECTIONS_MAX: usize = 256;

/// Short for results of this crate.
pub type Result<T, E = PresenceError> = std::result::Result<T, E>;

/// One change of what an instance holds. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A user's connection began.
    Connected {
        /// Names the connection, unique for all time.
        connection: String,
        /// The user of the connection.
        user: UserId,
        /// When the connection began, milliseconds since 1970.
        since_ms: i64,
        /// What its token says of the user, as JSON; empty = nothing.
        info: String,
    },
    /// A connection ended. Rooms it had joined are left one by one with [`Change::Left`].
    Disconnected {
        /// The id of the connection.
        connection: String,
        /// The user of the connection.
        user: UserId,
    },
    /// A connection joined a room.
    Joined {
        /// The id of the connection.
        connection: String,
        /// The user of the connection.
        user: UserId,
        /// The room that it joined.
        room: RoomId,
        /// When it joined, milliseconds since 1970.
        since_ms: i64,
        /// It is told who comes and goes: only rooms with such a connection have events.
        watches: bool,
    },
    /// A connection left a room.
    Left {
        /// The id of the connection.
        connection: String,
        /// The room that it left.
        room: RoomId,
        /// The client said goodbye: hardly any grace.
        goodbye: bool,
    },
    /// The instance wants pushes of a room.
    InterestAdded(RoomId),
    /// The instance no longer wants them.
    InterestRemoved(RoomId),
}

/// What whoever watches a room is told, at most once. Of two events about one user the later one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The room.
    pub room: RoomId,
    /// The user who came or left.
    pub user: UserId,
    /// When, by the clock of what keeps the data, milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    pub kind: RoomEventKind,
}

/// What happened in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomEventKind {
    /// The user's first connection joined.
    Joined {
        /// What the user's token says, as JSON; empty = nothing.
        info: String,
    },
    /// The user's last connection is gone, and did not come back within the grace.
    Left,
}

/// Leaves whose grace is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueLeaves {
    /// What is to be told.
    pub events: Vec<RoomEvent>,
    /// Whether more are due.
    pub more: bool,
}

/// What came of changes. What is kept in parts may have stored some of them when it fails: those joins are told now or never,
/// as they are no news when the same is sent again.
#[derive(Debug)]
#[must_use]
pub struct Applied {
    /// Who came into rooms that are watched, by what was stored.
    pub joins: Vec<RoomEvent>,
    /// Whether all was stored; if not, it is to be sent again.
    pub stored: Result<()>,
}

impl Applied {
    /// The joins, if all was stored.
    ///
    /// # Errors
    /// Why it was not.
    pub fn complete(self) -> Result<Vec<RoomEvent>> {
        self.stored.map(|()| self.joins)
    }
}

impl From<Result<Vec<RoomEvent>>> for Applied {
    fn from(joins: Result<Vec<RoomEvent>>) -> Self {
        match joins {
            Ok(joins) => Self { joins, stored: Ok(()) },
            Err(error) => Self { joins: Vec::new(), stored: Err(error) },
        }
    }
}

/// A user who is connected, or in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The user.
    pub user: UserId,
    /// How many connections; a lower bound above [`CONNECTIONS_MAX`].
    pub connections: u32,
    /// Since when the oldest of them, in milliseconds since 1970.
    pub since_ms: i64,
    /// What a token of the user says, as JSON; empty = nothing, or nobody knows.
    pub info: String,
}

/// A page of the users in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Sorted by name, in bytes: who is there from the first page to the last is in exactly one of them.
    pub users: Vec<Present>,
    /// Users in the room; a lower bound above [`CONNECTIONS_MAX`] connections.
    pub count: u32,
    /// Connections in the room.
    pub connections: u32,
    /// Whether users follow after the last of these.
    pub more: bool,
}

/// Interest and presence of all instances. Cheap to share as `Arc<dyn Presence>`.
///
/// Every call fails within 500 ms when presence cannot be reached.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Announces that an instance wants pushes of these rooms.
    async fn add_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()>;

    /// Removes interest of `instance` in `rooms`.
    async fn remove_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()>;

    /// Who wants each of these rooms, in their order. Dead instances may be among them until reaped.
    async fn interested(&self, rooms: &[RoomId]) -> Result<Vec<Vec<InstanceId>>>;

    /// Applies changes in order and returns who came by them into rooms that are watched. Whoever removes a user's last
    /// connection of such a room notes the leave in the same call; it is told by [`Presence::due_leaves`].
    async fn apply(&self, instance: &InstanceId, changes: &[Change]) -> Applied;

    /// Takes leaves whose grace is over, at most [`DUE_LEAVES_MAX`] of them: each is returned once, to one caller.
    async fn due_leaves(&self) -> Result<DueLeaves>;

    /// Takes a part of everything an instance holds. After the part marked `last`, whatever of this
    /// instance was neither in a part of this generation nor written since its first part is removed.
    ///
    /// Removals among the changes are applied too. Nobody is told of who comes by this: it is no news. A part of an older generation than the last one seen
    /// is ignored.
    async fn full_set(
        &self,
        instance: &InstanceId,
        generation: u64,
        changes: &[Change],
        last: bool,
    ) -> Result<()>;

    /// A random number that belongs to the data, never 0. Another one than before means that the data was lost, or
    /// that an older copy may have come back. Created when absent.
    async fn marker(&self) -> Result<u64>;

    /// Whether anybody can be asked now; the reason, for people, when not.
    ///
    /// # Errors
    /// What keeps the data is away.
    async fn probe(&self) -> std::result::Result<(), String> {
        self.marker().await.map(drop).map_err(|error| error.to_string())
    }

    /// Users in a room whose names sort after `after`, at most `limit` of them. Looks at [`CONNECTIONS_MAX`]
    /// connections at most, and keeps a page of them.
    async fn room(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Result<Roster>;

    /// How many connections each of these rooms has, in their order. A user who has just left may count as one.
    async fn subscribers(&self, rooms: &[RoomId]) -> Result<Vec<u64>>;

    /// One user's connections; `None` when there are none.
    async fn user(&self, user: &UserId) -> Result<Option<Present>>;

    /// Instances that have, or had until not long ago, something stored: those among them that are gone
    /// are to be reaped. Not more than 1,000.
    async fn instances(&self) -> Result<Vec<InstanceId>>;

    /// Removes everything that is still this instance's and returns how many fields that were.
    async fn reap(&self, instance: &InstanceId) -> Result<u64>;

    /// Removes everything of an instance that ends, at its own word. Nothing of it is taken afterwards: a write that
    /// it sent before may arrive late. Instance ids are never used again.
    async fn goodbye(&self, instance: &InstanceId) -> Result<()>;

    /// Keeps what a ticket stands for, for so long: in the place of what had this name.
    async fn keep_ticket(&self, name: &str, record: &[u8], keep: Duration) -> Result<()>;

    /// Takes what a ticket stands for: one caller gets it. `None`: it was taken, its time is over, or it never was. An
    /// outcome that is lost on its way has taken it all the same.
    async fn take_ticket(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Ends the connection at once. Harmless when repeated.
    async fn close(&self);
}
