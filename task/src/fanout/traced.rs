//! Spans of the messages in a notice: one while they are carried, and one for each gateway until it has acknowledged.
//! Nearly always there are none.

use bytes::Bytes;
use prost::Message as _;
use sluice_proto::grpc::{MessageTrace, RoomRun};
use sluice_trace::{Kind, Parent, ROOM, SEQ, Spans, Tracer};

use super::notice::{EncodedRun, Notice};

/// Begins a span for each message of a notice that is traced.
pub(super) fn carry(tracer: &Tracer, notice: &mut Notice) {
    for run in &mut notice.runs {
        for MessageTrace { seq, traceparent } in std::mem::take(&mut run.traces) {
            let span = tracer.child("task carry", Kind::Consumer, Parent::read(&traceparent));
            span.text(ROOM, run.room.as_str());
            span.number(SEQ, seq);
            run.spans.push(seq, span);
        }
    }
}

/// A run as one gateway gets it: with the spans of its push, which are added to `spans`.
pub(super) fn for_gateway(run: &EncodedRun, gateway: &str, spans: &mut Vec<Spans>) -> Bytes {
    if run.spans.is_empty() {
        return run.bytes.clone();
    }
    // It was decoded before, to judge it.
    let Ok(mut told) = RoomRun::decode(run.bytes.clone()) else { return run.bytes.clone() };
    let pushes = run.spans.children("task push", Kind::Client);
    told.traces.clear();
    for (seq, span) in pushes.iter() {
        span.text("server.address", gateway);
        let trace = span.traceparent().map(|traceparent| MessageTrace { seq, traceparent });
        told.traces.extend(trace);
    }
    spans.push(pushes);
    told.encode_to_vec().into()
}
