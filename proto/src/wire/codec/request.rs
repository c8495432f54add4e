//! What a frame asks for, or why it is refused: what decoding and its diagnosis both give. Reads nothing by itself.

use serde_json::value::RawValue;

use crate::ids::{Epoch, InvalidName, Key, RoomId, Seq, UserId};
use crate::json;
use crate::limits::ID_BYTES_MAX;
use crate::wire::{Connect, ErrorCode};

/// Which messages of a room `history` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistoryRange {
    /// The newest messages.
    Newest,
    /// The newest with a lower seq.
    Before(Seq),
    /// The oldest with a higher seq.
    After(Seq),
}

impl HistoryRange {
    /// The field of a frame that asks for it.
    #[must_use]
    pub fn field(self) -> Option<(&'static str, Seq)> {
        match self {
            Self::Newest => None,
            Self::Before(seq) => Some(("before", seq)),
            Self::After(seq) => Some(("after", seq)),
        }
    }
}

/// When a message is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// At once.
    Now,
    /// After so many milliseconds, at most [`DELAY_MS_MAX`](crate::limits::DELAY_MS_MAX).
    In(u64),
    /// At this time, milliseconds since 1970.
    At(u64),
}

/// One valid request of a client.
#[derive(Debug)]
pub enum Request<'a> {
    /// `{"connect":{"token":…}}`
    Connect(Connect),
    /// `{"refresh":{"token":…}}`
    Refresh(Connect),
    /// `{"sub":…}`
    Subscribe {
        /// The room.
        room: RoomId,
        /// Last seq seen; absent = from now.
        after: Option<Seq>,
        /// The epoch of `after`. An epoch that cannot be read is one that differs.
        epoch: Option<Result<Epoch, ()>>,
        /// Also told who comes and goes.
        watches: bool,
        /// A token that grants this room, beside what the connection's own does.
        token: Option<String>,
    },
    /// `{"unsub":…}`
    Unsubscribe(RoomId),
    /// `{"pub":…}`
    Publish {
        /// The room.
        room: RoomId,
        /// Absent: the gateway mints one.
        key: Option<Key>,
        /// The JSON text as it was received.
        data: &'a RawValue,
        /// When it is to be published.
        when: When,
    },
    /// `{"cancel":…}`
    Cancel {
        /// The room.
        room: RoomId,
        /// The key of the delayed publish; of one without, the key that its answer named.
        key: Key,
    },
    /// `{"history":…}`
    History {
        /// The room.
        room: RoomId,
        /// The messages that are asked for.
        range: HistoryRange,
        /// The most that is asked for, 1…256.
        limit: u32,
    },
    /// `{"presence":…}`
    Presence {
        /// The room.
        room: RoomId,
        /// Only users whose names sort after this one.
        after: Option<UserId>,
        /// The most that is asked for, 1…256.
        limit: u32,
    },
    /// `{"ping":…}`
    Ping,
}

/// Why a frame was refused; `code` and `message` go to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The code, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }
}

impl From<InvalidName> for Refused {
    fn from(error: InvalidName) -> Self {
        Self::bad(error.to_string())
    }
}

/// A decoded frame: its request or its refusal, and the `id` to echo in either case.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Echoed in the answer.
    pub id: Option<&'a RawValue>,
    /// What is asked for.
    pub request: Result<Request<'a>, Refused>,
}

/// What is sent back has to be short, and readable like everything else.
pub(super) fn judge_id(id: &RawValue) -> Result<(), Refused> {
    if id.get().len() > ID_BYTES_MAX {
        return Err(Refused::bad(format!("id is longer than {ID_BYTES_MAX} bytes")));
    }
    json::check(id.get()).map_err(|why| Refused::bad(format!("id cannot be sent back: {why}")))
}
