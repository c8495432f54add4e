//! What the server, or the connection's fate, has to tell.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_proto::wire::codec::HistoryRange;
use sluice_proto::wire::{Bye, Drain, Welcome, WireError};

use crate::options::Position;

/// A page of a room's history.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Where to go on, if the room has more in this direction: pages end by their number of messages, or of bytes.
    pub more: Option<HistoryRange>,
}

/// A message of a room.
#[derive(Debug, Clone)]
pub struct Message {
    /// Which room.
    pub room: String,
    /// Its position: one more than that of the message before it.
    pub seq: u64,
    /// Who published it.
    pub from: String,
    /// The publisher's key, when it chose one.
    pub key: Option<String>,
    /// When it was stored, milliseconds since 1970.
    pub at_ms: i64,
    /// The payload as published.
    pub data: Box<RawValue>,
}

/// A stored publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its position in the room.
    pub seq: u64,
    /// Its key.
    pub key: String,
}

/// When a message is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// So long after it is stored, at most 30 days.
    In(Duration),
    /// At this time, milliseconds since 1970, at most 30 days ahead.
    At(u64),
}

/// A message that is to be published later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheduled {
    /// It waits.
    Waits {
        /// Until then, milliseconds since 1970 by the clock of the store.
        due_ms: i64,
        /// The key that cancels it.
        key: String,
    },
    /// It was sent before with this key, and is published already.
    Published(Stored),
}

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscribed {
    /// Which room.
    pub room: String,
    /// The position in force: the next message is `after + 1`.
    pub after: u64,
    /// Last seq known to exist.
    pub head: u64,
    /// The store's epoch, 16 hex digits.
    pub epoch: String,
    /// Whether the position asked for was kept. `false`: something may be missing between it and `after`.
    pub recovered: bool,
}

/// Something that happened, in order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A connection stands; subscriptions and unanswered publishes follow by themselves.
    Connected(Welcome),
    /// A message, in the order of its room.
    Message(Message),
    /// Messages `from…to` of `room` are gone and will not come.
    Skipped {
        /// Which room.
        room: String,
        /// First of them.
        from: u64,
        /// Last of them.
        to: u64,
    },
    /// A user's first connection came into a room that is watched. Of two events about a user the one with the later
    /// `at_ms` counts.
    UserJoined {
        /// Which room.
        room: String,
        /// Who came.
        user: String,
        /// When, milliseconds since 1970.
        at_ms: i64,
        /// What the user's token says.
        info: Option<Box<RawValue>>,
    },
    /// A user's last connection left a room that is watched, and did not come back in time.
    UserLeft {
        /// Which room.
        room: String,
        /// Who left.
        user: String,
        /// When, milliseconds since 1970.
        at_ms: i64,
    },
    /// Joins and leaves of a room that is watched may have been missed, by the server's word or by a reconnect: ask
    /// [`crate::Client::presence`] again, after a random time below two seconds.
    Stale {
        /// Which room.
        room: String,
    },
    /// A subscription was resumed, or its room's epoch changed; look at `recovered`.
    Resumed(Subscribed),
    /// A subscription is over: it cannot be resumed, or the server ended it, as the token in force does not grant it.
    Unsubscribed {
        /// Which room.
        room: String,
        /// Why it ended, for people.
        error: WireError,
    },
    /// The server broke its promise: this is not the next message of the room.
    OutOfOrder {
        /// Which seq should have come.
        expected: u64,
        /// What came.
        message: Message,
    },
    /// The gateway will close this connection; the client moves to another.
    Drain(Drain),
    /// The token ends, and the connection with it, unless another one comes: by itself where the client has a function for
    /// that ([`crate::Options::token_from`]), else by [`crate::Client::refresh`].
    Expiring {
        /// Until then.
        within: Duration,
    },
    /// Last words before a close.
    Bye(Bye),
    /// The connection has ended.
    Closed {
        /// Close code; `None`: it broke off.
        code: Option<u16>,
        /// Reason given, or what broke.
        reason: String,
        /// Whether the client comes back by itself.
        reconnects: bool,
    },
    /// The next attempt begins after `pause`.
    Reconnecting {
        /// How many attempts have failed since the last connection.
        attempt: u32,
        /// Until the attempt.
        pause: Duration,
    },
    /// An error that answers no request of this client.
    Error(WireError),
    /// An attempt to connect has ended. Only with [`crate::Options::detailed`]; so are the three that follow.
    Dialled {
        /// Where to.
        url: String,
        /// Why there is no connection; `None`: there is, and [`Event::Connected`] follows.
        failed: Option<String>,
    },
    /// A `sub` was sent, by the program's wish or to resume.
    Asked {
        /// Which room.
        room: String,
        /// From where.
        from: Position,
    },
    /// The first answer to [`crate::Client::subscribe`], in its place before the room's messages.
    Subscribed(Subscribed),
    /// [`crate::Client::unsubscribe`] took effect: no message of the room follows.
    Left {
        /// Which room.
        room: String,
    },
}
