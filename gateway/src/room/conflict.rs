//! Two versions of one message: noticed where what was passed on comes again, by a second task, a page, or the answer
//! to an own publish. Costs nothing where nothing comes twice.

use bytes::Bytes;
use sluice_proto::ids::Seq;

use super::{Action, Room, RoomOutput, RoomPhase};
use crate::rules::Rules;

/// Two versions of this position met.
pub(super) struct Differs(Seq);

impl Differs {
    /// At this position.
    pub(super) const fn at(seq: Seq) -> Self {
        Self(seq)
    }
}

impl<R: Rules> Room<R> {
    /// What comes again must be what was passed on, as far back as the ring goes: encoded only to be compared (C11).
    pub(super) fn compare(&self, seq: Seq, encode: impl FnOnce() -> Bytes) -> Result<(), Differs> {
        let kept = self.ring.from(seq).and_then(|mut frames| frames.next());
        if kept.is_none_or(|kept| kept.bytes == encode()) { Ok(()) } else { Err(Differs::at(seq)) }
    }

    /// One of two versions is forged, and nothing here tells which: all is forgotten, and the store asked.
    pub(super) fn conflict(&mut self, conflict: &Differs, out: &mut impl RoomOutput) {
        out.act(Action::Conflict(conflict.0));
        // Not sent yet, and from the same hand.
        self.passed.clear();
        self.ahead.clear();
        if let (RoomPhase::Open, Some(epoch)) = (self.phase, self.epoch) {
            self.reopen(epoch, out);
        }
    }
}
