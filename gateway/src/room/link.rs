//! What passes between a room in its home shard and the views of other shards: values only, shared by
//! reference. Of these only *runs* (and hints) may be dropped; hand-overs and needs are levels: the last
//! value counts and is sent as soon as there is space.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Seq};
use sluice_trace::Spans;

use crate::session::event;
use crate::session::outbound::payload;

/// Milliseconds of the gateway's monotonic clock.
pub type Ms = u64;

/// A shard of this gateway, counted from 0.
pub type ShardId = usize;

/// A message encoded once for each transport that somebody reads it by. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Position in the room.
    pub seq: Seq,
    /// Ready for a WebSocket: the frame header and its JSON.
    pub bytes: Bytes,
    /// As an event, once somebody has read it so.
    event: OnceLock<Bytes>,
}

impl Frame {
    /// A message that is encoded for WebSockets.
    #[must_use]
    pub const fn new(seq: Seq, bytes: Bytes) -> Self {
        Self { seq, bytes, event: OnceLock::new() }
    }

    /// As an event for readers of `epoch`, the history that it belongs to.
    #[must_use]
    pub fn event(&self, epoch: Epoch) -> Bytes {
        if let Some(event) = self.event.get() {
            return event.clone();
        }
        let event = event::message(epoch, self.seq, payload(&self.bytes));
        // Not `get_or_init`: another shard would wait while this one encodes, and if this one is not running, for long.
        // Two that meet encode it twice.
        drop(self.event.set(event.clone()));
        event
    }
}

/// Contiguous messages of one room, never empty.
#[derive(Debug, Clone)]
pub struct Run {
    /// The history the positions belong to.
    pub epoch: Epoch,
    /// `first`, `first + 1`, … in order.
    pub frames: Arc<[Frame]>,
    /// Spans of the messages that are traced, which end when all shards have passed the run on.
    pub spans: Spans,
}

impl Run {
    /// Position of the first message; 0 when empty, which a room never sends.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.frames.first().map_or(0, |frame| frame.seq)
    }

    /// Position of the last message; 0 when empty.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.frames.last().map_or(0, |frame| frame.seq)
    }
}

/// Where the room stands, from home to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    /// Identity of the history.
    pub epoch: Epoch,
    /// Differs each time the room begins anew, also in the same history.
    pub opened: u64,
    /// Last position passed on; the next run starts after it.
    pub head: Seq,
    /// Last position known to exist, at least `head`.
    pub known: Seq,
    /// Every `sub` of this shard numbered up to this has its answer.
    pub answered: u64,
}

/// What a shard wants of a room, from its view to home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Whether the shard has subscribers of the room.
    pub attached: bool,
    /// Number of the last `sub` there.
    pub number: u64,
}

/// A page of the store: what a `Read` with `after` answered.
#[derive(Debug, Clone)]
pub struct Page {
    /// The history it was read from.
    pub epoch: Epoch,
    /// Oldest position kept; `store_head + 1` when nothing is kept.
    pub oldest: Seq,
    /// Last position in the store.
    pub store_head: Seq,
    /// Contiguous messages from `max(after + 1, oldest)`, possibly fewer than asked for.
    pub frames: Arc<[Frame]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::outbound::text_frame;

    #[test]
    fn a_message_is_encoded_once_for_all_who_read_it_as_an_event() {
        let mut bytes = Vec::new();
        text_frame(br#"{"msg":"news","seq":5}"#, &mut bytes);
        let frame = Frame::new(5, bytes.into());
        let first = frame.event(Epoch(7));
        assert!(first.ends_with(b"data: {\"msg\":\"news\",\"seq\":5}\n\n\r\n"), "{first:?}");
        for again in [frame.event(Epoch(7)), frame.clone().event(Epoch(7))] {
            assert_eq!((again.as_ptr(), again.len()), (first.as_ptr(), first.len()), "the same bytes");
        }
    }
}
