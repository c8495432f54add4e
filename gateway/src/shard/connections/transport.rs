//! How what is said to a connection is written: as frames of a WebSocket, or as events of a stream.

use bytes::Bytes;
use sluice_proto::wire::Bye;

use super::Connections;
use crate::session::event::{self, Note};
use crate::session::machine::Sink;
use crate::session::outbound::{Outbound, Spare, close_frame, ping_frame, text_frame};
use crate::shard::event_stream::EventStream;

impl Connections {
    /// Connections that read events.
    #[must_use]
    pub const fn event_streams(&self) -> usize {
        self.event_streams
    }

    /// So many messages were appended for a reader of events.
    pub fn delivered_events(&mut self, messages: usize) {
        self.delivered(messages);
        self.events += messages as u64;
    }

    /// Appends a sign of life; `true`: it is answered.
    pub fn ping(&mut self, slot: u32) -> bool {
        let is_stream = self.at(slot).is_some_and(|connection| connection.events.is_some());
        self.append(slot, if is_stream { Bytes::from_static(event::HEARTBEAT) } else { ping_frame() });
        !is_stream
    }

    /// Appends what ends the connection's transport: nothing may follow it.
    pub fn end(&mut self, slot: u32, bye: &Bye) {
        let is_stream = self.at(slot).is_some_and(|connection| connection.events.is_some());
        let end = if is_stream { Bytes::from_static(event::END) } else { close_frame(bye.code, &bye.reason) };
        self.append(slot, end);
    }
}

/// Text frames of one session on their way into its queue.
#[derive(Debug)]
pub struct FrameSink<'a> {
    pub(super) outbound: &'a mut Outbound,
    pub(super) spare: &'a mut Spare,
    pub(super) encode: &'a mut Vec<u8>,
    pub(super) events: Option<&'a mut EventStream>,
    pub(super) note: Note,
    pub(super) written: bool,
}

/// Longest header of a server's frame.
const HEADER_BYTES_MAX: usize = 10;

impl Sink for FrameSink<'_> {
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        // Before the head of its answer no frame can stand: whoever is not let in is told by that.
        if self.events.as_ref().is_some_and(|events| !events.is_answered()) {
            return;
        }
        self.encode.clear();
        write(self.encode);
        let frame = match &mut self.events {
            None => {
                let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + self.encode.len());
                text_frame(self.encode, &mut frame);
                frame.into()
            }
            Some(events) => {
                // Of several rooms one position says nothing: all of them are told before the next write.
                let several = self.note.id.is_some() && events.reads_several();
                let id = self.note.id.filter(|_| !several);
                event::event(self.encode, Note { id, ..self.note })
            }
        };
        // One large answer must not keep its memory for as long as the shard lives.
        self.encode.shrink_to(64 * 1024);
        self.outbound.push(frame, self.spare);
        self.written = true;
    }
}
