//! One change of who is connected and in which rooms, as logic is told it. Pure.

use sluice_proto::grpc::{ChangeKind, StatusChange};
use sluice_proto::ids::{RoomId, SessionId, UserId};

/// A connection as presence knows it.
#[derive(Debug)]
pub struct About<'a> {
    /// The session of the connection.
    pub session: SessionId,
    /// The user of the connection.
    pub user: &'a UserId,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// What the token says of the user, as JSON; empty = nothing.
    pub info: &'a str,
}

impl About<'_> {
    fn change(&self, kind: ChangeKind, room: &str, goodbye: bool) -> StatusChange {
        StatusChange {
            kind: kind.into(),
            connection: self.session.to_string(),
            user: self.user.to_string(),
            room: room.to_owned(),
            since_ms: self.since_ms,
            goodbye,
            ..StatusChange::default()
        }
    }
}

/// The connection began.
#[must_use]
pub fn connected(about: &About<'_>) -> StatusChange {
    let change = about.change(ChangeKind::Connected, "", false);
    StatusChange { info: about.info.to_owned(), ..change }
}

/// It has left; `goodbye` = for good, the client said so.
#[must_use]
pub fn disconnected(about: &About<'_>, goodbye: bool) -> StatusChange {
    about.change(ChangeKind::Disconnected, "", goodbye)
}

/// The connection goes on as somebody else.
#[must_use]
pub fn disconnected_by_change(about: &About<'_>) -> StatusChange {
    // For good: the user before must not stay present for the time that a moving client is given.
    disconnected(about, true)
}

/// It subscribed to a room; `watches`: and is told who comes and goes.
#[must_use]
pub fn joined(about: &About<'_>, room: &RoomId, watches: bool) -> StatusChange {
    StatusChange { watches, ..about.change(ChangeKind::Joined, room.as_str(), false) }
}

/// It left a room.
#[must_use]
pub fn left(about: &About<'_>, room: &RoomId, goodbye: bool) -> StatusChange {
    about.change(ChangeKind::Left, room.as_str(), goodbye)
}

/// This gateway wants a room's messages.
#[must_use]
pub fn interested(room: &RoomId) -> StatusChange {
    StatusChange {
        kind: ChangeKind::InterestAdded.into(),
        room: room.as_str().to_owned(),
        ..StatusChange::default()
    }
}

/// This gateway no longer wants a room's messages.
#[must_use]
pub fn uninterested(room: &RoomId) -> StatusChange {
    StatusChange {
        kind: ChangeKind::InterestRemoved.into(),
        room: room.as_str().to_owned(),
        ..StatusChange::default()
    }
}
