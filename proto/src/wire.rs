//! The JSON protocol between client and gateway, version 1 (`WIRE.md` explains it to people).
//!
//! A client frame is one flat struct of optional fields with the payload kept as raw JSON: internally
//! tagged enums cannot hold raw JSON. Nothing here does I/O; encoding appends to a buffer that the
//! caller shares between connections.

pub mod close;
pub mod codec;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::Seq;

/// WebSocket subprotocol of this version; also spoken when a client offers none.
pub const SUBPROTOCOL: &str = "sluice.v1.json";
/// Prefix of the subprotocol entry that carries a token: `bearer.<jwt>`.
pub const BEARER_SUBPROTOCOL: &str = "bearer.";

/// Machine-readable reasons in `{"error":{"code":…}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with exactly one verb.
    BadFrame,
    /// A field is missing or breaks a rule.
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
            Self::NotSent => "not_sent",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// What a client sent: exactly one of the verbs is present in a valid frame ([`codec::decode`]).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClientFrame<'a> {
    /// Verb: authenticate.
    pub connect: Option<Connect>,
    /// Verb: subscribe to this room.
    #[serde(borrow)]
    pub sub: Option<Cow<'a, str>>,
    /// Verb: unsubscribe from this room.
    #[serde(borrow)]
    pub unsub: Option<Cow<'a, str>>,
    /// Verb: publish to this room.
    #[serde(rename = "pub", borrow)]
    pub publish: Option<Cow<'a, str>>,
    /// Verb: read messages of this room.
    #[serde(borrow)]
    pub history: Option<Cow<'a, str>>,
    /// Verb: who is in this room.
    #[serde(borrow)]
    pub presence: Option<Cow<'a, str>>,
    /// Verb: answer me; the value is not looked at.
    #[serde(borrow, deserialize_with = "present")]
    pub ping: Option<&'a RawValue>,
    /// Echoed in the answer, any JSON value of at most 256 bytes.
    #[serde(borrow, deserialize_with = "present")]
    pub id: Option<&'a RawValue>,
    /// `sub`: the last seq seen; absent = from now.
    pub after: Option<Seq>,
    /// `sub`: the epoch `after` belongs to.
    #[serde(borrow)]
    pub epoch: Option<Cow<'a, str>>,
    /// `pub`: the payload, must be there.
    #[serde(borrow, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    /// `pub`: the sender's name for this message.
    #[serde(borrow)]
    pub key: Option<Cow<'a, str>>,
    /// `history`: only messages with a lower seq.
    pub before: Option<Seq>,
    /// `history`: how many, 1…256.
    pub limit: Option<u32>,
}

/// `null` is a value like any other: only a missing field is absent.
fn present<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

/// The value of the verb `connect`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Connect {
    /// A signed JWT.
    pub token: Option<String>,
}

/// What a server tells about its limits in `welcome`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLimits {
    /// Largest frame, bytes.
    pub frame_bytes: usize,
    /// Largest `data`, bytes.
    pub data_bytes: usize,
    /// Longest room, key or user, bytes.
    pub name_bytes: usize,
    /// Most rooms a connection may subscribe to.
    pub rooms: usize,
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
    /// Machine-readable.
    pub code: ErrorCode,
    /// For people: what was wrong and how to mend it.
    pub message: String,
    /// Whether sending the same again (same key) can succeed.
    pub retry: bool,
}
