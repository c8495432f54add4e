//! Spans of notices: from the commit until NATS has the notice. The runs name them, for whoever carries the messages on.

use sluice_proto::grpc::{MessageTrace, RoomRun};
use sluice_store::{Committed, NewMessage, Outcome};
use sluice_trace::{Kind, SEQ, Spans};

/// Begins a span for each traced message that was stored, and writes it into the run of its message.
pub(super) fn of(
    traced: &Spans,
    items: &[&NewMessage],
    committed: &Committed,
    runs: &mut [RoomRun],
) -> Spans {
    let mut spans = Spans::default();
    for (place, span) in traced.iter() {
        let Ok(at) = usize::try_from(place) else { continue };
        let (Some(item), Some(row)) = (items.get(at), committed.rows.get(at)) else { continue };
        // Of one that was there before its first sending has told, or a sweep will.
        let Outcome::Stored { seq, .. } = row.outcome else { continue };
        let is_its =
            |run: &&mut RoomRun| run.room == item.room.as_str() && (run.first..=run.last).contains(&seq);
        let Some(run) = runs.iter_mut().find(is_its) else { continue };
        let notice = span.child("logic notice", Kind::Producer);
        notice.number(SEQ, seq);
        if let Some(traceparent) = notice.traceparent() {
            run.traces.push(MessageTrace { seq, traceparent });
        }
        spans.push(place, notice);
    }
    spans
}
