//! Spans of messages on their way to subscribers: from the push, or the answer to an own publish, until every shard has
//! passed them on. Nearly always there are none.

use sluice_proto::ids::{RoomId, Seq};
use sluice_trace::{Kind, Parent, ROOM, SEQ, Span, Spans, Tracer};

use crate::room::link::Run;

/// What one event of a home passes on and is traced.
pub(super) struct Delivering<'a> {
    tracer: &'a Tracer,
    messages: Vec<Traced>,
}

struct Traced {
    room: RoomId,
    seq: Seq,
    span: Span,
    /// To so many shards; to none if it was known before.
    shards: u64,
}

impl<'a> Delivering<'a> {
    pub(super) const fn new(tracer: &'a Tracer) -> Self {
        Self { tracer, messages: Vec::new() }
    }

    /// A message that may be in a run.
    pub(super) fn message(&mut self, room: &RoomId, seq: Seq, parent: Parent) {
        if !parent.is_recorded() {
            return;
        }
        let span = self.tracer.child("gateway deliver", Kind::Consumer, parent);
        span.text(ROOM, room.as_str());
        span.number(SEQ, seq);
        self.messages.push(Traced { room: room.clone(), seq, span, shards: 0 });
    }

    /// The run with the spans of its messages, if it has any.
    pub(super) fn run(&mut self, room: &RoomId, run: &Run) -> Option<Run> {
        if self.messages.is_empty() {
            return None;
        }
        let mut spans = Spans::default();
        let in_run = |message: &&mut Traced| {
            message.room == *room && (run.first()..=run.last()).contains(&message.seq)
        };
        for message in self.messages.iter_mut().filter(in_run) {
            message.shards += 1;
            spans.push(message.seq, message.span.clone());
        }
        Some(Run { spans, ..run.clone() })
    }
}

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        for message in &self.messages {
            message.span.number("sluice.shards", message.shards);
        }
    }
}
