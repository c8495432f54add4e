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
    },
    /// A connection ended. Rooms it had joined are left one by one with [`Change::Left`].
    Disconnected {
        /// The id of the connection.
        connection: String,
        /// The user of the connection.
        user: UserId,
        /// The client said goodbye: no grace.
        goodbye: bool,
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
    },
    /// A connection left a room.
    Left {
        /// The id of the connection.
        connection: String,
        /// The room that it left.
        room: RoomId,
    },
    /// The instance wants pushes of a room.
    InterestAdded(RoomId),
    /// The instance no longer wants them.
    InterestRemoved(RoomId),
}

/// A user's last connection was removed. Emitted by the one call that removed it, at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLeft {
    /// The user who left.
    pub user: UserId,
    /// The client said goodbye: announce at once, else after the grace.
    pub goodbye: bool,
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

    /// Applies changes in order and returns the users whose last connection ended by them.
    async fn apply(&self, instance: &InstanceId, changes: &[Change]) -> Result<Vec<UserLeft>>;

    /// Takes a part of everything an instance holds. After the part marked `last`, whatever of this
    /// instance was neither in a part of this generation nor written since its first part is removed.
    ///
    /// Removals among the changes are applied too. A part of an older generation than the last one seen
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

    /// Ends the connection at once. Harmless when repeated.
    async fn close(&self);
}
