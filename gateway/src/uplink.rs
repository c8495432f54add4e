//! The publish path of a gateway: from a decoded frame to the client's outcome. What is to be published later, and what is
//! not to be after all, goes the same way: it needs the same retries, the same fence and the same order.
//!
//! [`Publish`] is one accepted publish, [`Link`] what it shares with its connection, [`lane::Lane`] the
//! machine that batches, sends and retries. No I/O here.

pub mod lane;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use sluice_proto::ids::{Key, RoomId, Seq, SessionId, UserId};
use sluice_proto::wire::ErrorCode;
use sluice_service::seeded::{self, Bug};
use sluice_trace::{Parent, Span};

use crate::address::Address;

/// What every publish of a connection shares with it, also after the connection has closed.
#[derive(Debug)]
pub struct Link {
    /// The session that minted the keys.
    pub session: SessionId,
    /// Where the outcome goes.
    pub address: Address,
    /// What its publishes are a part of, as the upgrade said.
    pub parent: Parent,
    fenced: AtomicBool,
}

impl Link {
    /// A link without fence.
    #[must_use]
    pub fn new(session: SessionId, address: Address) -> Arc<Self> {
        Self::part_of(Parent::default(), session, address)
    }

    /// The same of a connection whose publishes are a part of something.
    #[must_use]
    pub fn part_of(parent: Parent, session: SessionId, address: Address) -> Arc<Self> {
        Arc::new(Self { session, address, parent, fenced: AtomicBool::new(false) })
    }

    /// Sets the fence: nothing of this connection that is not yet handed to logic may be stored.
    pub fn fence(&self) {
        self.fenced.store(!seeded::is(Bug::NoFence), Ordering::SeqCst);
    }

    /// Whether the fence is set.
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }
}

/// What is asked for under the key of a publish, if not to publish it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// To publish it so many milliseconds after it is stored.
    In(i64),
    /// To publish it at this time, milliseconds since 1970.
    At(i64),
    /// Not to publish it: it waits to be, and has no data here.
    Cancel,
}

/// One accepted publish. Its outcome goes back with it, so nothing has to be looked up.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The connection it came by.
    pub link: Arc<Link>,
    /// The room.
    pub room: RoomId,
    /// The user who publishes.
    pub sender: UserId,
    /// The client's key, or a minted one.
    pub key: Key,
    /// The JSON text as it was received.
    pub data: Bytes,
    /// What else is asked for than to publish it at once. Boxed, as it is rare.
    pub later: Option<Box<Later>>,
    /// The frame's `id`, as JSON text.
    pub id: Option<Box<str>>,
    /// Past this wall time (milliseconds since 1970) it must not be stored: retention may have
    /// forgotten its key.
    pub not_after_ms: i64,
    /// When its shard took it, for the histogram of answers.
    pub taken_at: Option<Instant>,
    /// From its frame to its answer, if it is traced.
    pub span: Span,
}

/// Fixed share of an item in the byte bounds: its fields besides data and names.
const ITEM_OVERHEAD_BYTES: usize = 64;

impl Publish {
    /// What it counts in byte bounds, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let names = self.room.as_str().len() + self.sender.as_str().len() + self.key.as_str().len();
        ITEM_OVERHEAD_BYTES + names + self.data.len()
    }
}

/// What the client is told of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `ok`: stored now, at this store time in milliseconds since 1970.
    Stored {
        /// The position of the message.
        seq: Seq,
        /// When it was stored, by the clock of the store.
        at_ms: i64,
    },
    /// `ok`: was stored before.
    Duplicate {
        /// Position of the first storing.
        seq: Seq,
    },
    /// `ok`: it waits until then, milliseconds since 1970.
    Scheduled {
        /// By the clock of the store.
        due_ms: i64,
    },
    /// `ok` to a cancel: it is not published.
    Cancelled,
    /// `ok` to a cancel, which came too late or is of nothing.
    TooLate,
    /// `retry:false`: the key was used for other data.
    Conflict,
    /// `retry:false`: this sending stored nothing and never will.
    Refused {
        /// The error code of the wire.
        code: ErrorCode,
        /// What is wrong, for people.
        message: String,
    },
    /// `retry:true`: this sending was certainly not stored.
    NotSent,
    /// `retry:true`: this sending may or may not be stored.
    Unknown,
}

impl Outcome {
    /// Whether the client is told `ok`.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        matches!(
            self,
            Self::Stored { .. }
                | Self::Duplicate { .. }
                | Self::Scheduled { .. }
                | Self::Cancelled
                | Self::TooLate
        )
    }

    /// Whether the client is asked to send again.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::NotSent | Self::Unknown)
    }
}

/// A publish with its outcome, on its way back to the connection.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The publish.
    pub publish: Publish,
    /// What became of it.
    pub outcome: Outcome,
}
