//! The JSON protocol between client and gateway, version 1 (`WIRE.md` explains it to people).
//!
//! [`codec`] reads what clients send and writes what they get; here is what both share. Nothing here does I/O;
//! encoding appends to a buffer that the caller shares between connections.

pub mod close;
pub mod codec;

use serde::{Deserialize, Serialize};

/// WebSocket subprotocol of this version; also spoken when a client offers none.
pub const SUBPROTOCOL: &str = "sluice.v1.json";
/// Prefix of the subprotocol entry that carries a token: `bearer.<jwt>`.
pub const BEARER_SUBPROTOCOL: &str = "bearer.";

/// Machine-readable reasons in `{"error":{"code":…}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with exactly one verb: ten in a row end the connection.
    BadFrame,
    /// A field is missing, not known, or breaks a rule.
    BadRequest,
    /// No valid token.
    Unauthorized,
    /// The token lacks the grant.
    Forbidden,
    /// `data` is larger than allowed.
    TooLarge,
    /// A second `sub` without `unsub`.
    AlreadySubscribed,
    /// `unsub` of a room without `sub`.
    NotSubscribed,
    /// The key was used for other data: final.
    Conflict,
    /// As many delayed messages of the user wait as may.
    TooManyScheduled,
    /// This sending was certainly not stored: send again.
    NotSent,
    /// No answer in time: a publish may or may not be stored; send again with the same key.
    Unavailable,
    /// A bug in the server.
    Internal,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::Conflict => "conflict",
            Self::TooManyScheduled => "too_many_scheduled",
            Self::NotSent => "not_sent",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// The value of the verbs `connect` and `refresh`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// A signed JWT.
    pub token: String,
}

/// What a server tells about its limits in `welcome`. Each is the most that is allowed; a server of another version may
/// tell fewer, which then read as 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WireLimits {
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// Bytes of `data`.
    pub data_bytes: usize,
    /// Arrays and objects in each other, in `data` and `id`.
    pub json_depth: usize,
    /// Bytes of a user or key.
    pub name_bytes: usize,
    /// Bytes of a room.
    pub room_bytes: usize,
    /// Bytes of an `id`.
    pub id_bytes: usize,
    /// Rooms a connection is subscribed to.
    pub rooms: usize,
    /// Messages in an answer to `history`.
    pub history_messages: usize,
    /// Users in an answer to `presence`.
    pub presence_users: usize,
    /// Publishes without answer; with more the socket is not read.
    pub unanswered: usize,
    /// Bytes of publishes without an answer.
    pub unanswered_bytes: usize,
    /// Delayed messages of a user that wait; 0: any number.
    pub scheduled: usize,
}

/// The value of `{"welcome":…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// This connection, 32 hex digits.
    pub session: String,
    /// The gateway instance.
    pub instance: String,
    /// Who the client is.
    pub user: String,
    /// Anonymous users only: present it at the next connection to stay the same user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Epoch of the store, 16 hex digits.
    pub epoch: String,
    /// Seconds between protocol pings of the server.
    pub ping_s: u64,
    /// Limits of this server.
    pub limits: WireLimits,
}

/// The value of `{"drain":…}`: come back, this connection will close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Why, one word: `restart`.
    pub reason: String,
    /// The connection is closed within this many milliseconds.
    pub within_ms: u64,
    /// Wait this long before connecting again.
    pub reconnect_ms: u64,
}

/// The value of `{"bye":…}`: the last frame before a close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// The close code that follows.
    pub code: u16,
    /// Why, for people.
    pub reason: String,
    /// Whether coming back makes sense.
    pub reconnect: bool,
    /// Wait this long before connecting again; present when `reconnect` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_ms: Option<u64>,
}

/// The value of `{"error":…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// The code, for programs.
    pub code: ErrorCode,
    /// For people: what was wrong and how to mend it.
    pub message: String,
    /// Whether sending the same again (same key) can succeed.
    pub retry: bool,
}
