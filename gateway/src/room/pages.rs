//! What a room takes from pages: those it asked for, and those that subscribers asked for.

use sluice_proto::ids::Epoch;

use super::link::{Ms, Page};
use super::{Action, Room, RoomOutput, RoomPhase};
use crate::rules::Rules;

impl<R: Rules> Room<R> {
    /// A page was read for a subscriber: what was passed on of it must be what the store has.
    pub fn seen(&mut self, now: Ms, page: &Page, out: &mut impl RoomOutput) {
        if self.phase == RoomPhase::Open && self.epoch == Some(page.epoch) {
            let mut frames = page.frames.iter();
            let same = frames.try_for_each(|frame| self.compare(frame.seq, || frame.bytes.clone()));
            if let Err(conflict) = same {
                self.conflict(&conflict, out);
            }
        }
        self.hint(now, page.epoch, page.store_head, out);
    }

    pub(super) fn take_page(&mut self, now: Ms, epoch: Epoch, page: &Page, out: &mut impl RoomOutput) {
        let before = self.head;
        self.hold.answered(now);
        self.known = self.known.max(page.store_head);
        if page.oldest > self.head + 1 {
            // Retention took what is missing: nothing will ever fill the gap, so all begin behind it (B5).
            self.ring.clear();
            self.head = page.oldest - 1;
            self.known = self.known.max(self.head);
            self.ahead.drop_through(self.head);
            self.owe_all();
            self.hand_over(out);
            self.pass_stashed();
        }
        for frame in page.frames.iter() {
            if let Err(conflict) = self.feed(epoch, frame.seq, || frame.bytes.clone()) {
                return self.conflict(&conflict, out);
            }
        }
        self.send_run(epoch, out);
        // More is missing than one page holds: no hold, the gap is proven.
        self.read_at_once = self.head > before && self.head < self.known;
        let again = now.saturating_sub(self.limits.reannounce_ms);
        // The store had what no push brought: our interest may be lost, and every message would come this way (C1).
        if self.head > before && self.reannounced_at.is_none_or(|at| at <= again) {
            self.reannounced_at = Some(now);
            self.interest.owed = true;
            out.act(Action::Reannounced);
        }
    }
}
