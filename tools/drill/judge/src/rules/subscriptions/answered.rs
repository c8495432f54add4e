//! Answers to `sub`, and news of another epoch: whether the position in force is the one asked for, and where not, why.

use super::progress::SubscriptionProgress;
use super::room::{AskedPosition, SeenPosition};
use super::{AnomalyKind, Walk};
use crate::history::{NONE, SubAnswered};

impl Walk<'_> {
    pub(super) fn subscribed(&mut self, index: u32, at_us: u64, told: &SubAnswered) {
        let (room, lane, library) = (told.room, self.lane(told.conn), self.it.library);
        let view = self.rooms.entry(room).or_default();
        // The library asks on its own connections: nobody writes down its `sub`.
        let is_answer = told.asked || library;
        let asked = if is_answer { view.take_asked(lane) } else { None };
        let before = view.take(lane);
        let last = before.as_ref().map(SeenPosition::of);
        if let Some(before) = before {
            view.leave(&before);
            self.holes(room, &before);
        }
        self.honest_gaps += u64::from(!told.recovered);
        // Before anything else: such a position can never be reached, whatever was asked.
        if told.after > told.head {
            let (after, head) = (told.after, told.head);
            self.find(AnomalyKind::Dishonest, room, index, &[], |room| {
                format!("was told that {room:?} stands at {after} beyond its head {head}")
            });
        }
        let asked = match asked {
            None if !is_answer => {
                self.unsolicited(index, told, last);
                None
            }
            None => {
                last.filter(|last| library && !last.ended).map(|last| AskedPosition::implied(last, at_us))
            }
            asked => asked,
        };
        if let Some(asked) = &asked {
            self.answer(index, told, asked);
        }
        // what the library has delivered it must not deliver again; others may ask for what they had
        let goes_on =
            |last: &SeenPosition| library && told.recovered && !last.ended && last.epoch == told.epoch;
        let had = last.filter(goes_on).map_or(0, |last| last.after).max(told.after);
        let progress = SubscriptionProgress::new(told.epoch, told.after, had, index);
        self.rooms.entry(room).or_default().lanes.push((lane, progress));
    }

    /// Only another epoch is a reason to speak unasked.
    fn unsolicited(&mut self, index: u32, told: &SubAnswered, last: Option<SeenPosition>) {
        let is_news = last.is_some_and(|last| last.epoch != told.epoch);
        if told.recovered || !is_news {
            let before = last.map_or(index, |last| last.last);
            self.find(AnomalyKind::Dishonest, told.room, index, &[before], |room| {
                format!("was told unasked where {room:?} stands, though its epoch is the same")
            });
        }
    }

    fn answer(&mut self, index: u32, told: &SubAnswered, asked: &AskedPosition) {
        // Without a position the server chooses one, and any is right.
        let Some(position) = asked.after else { return };
        let (room, after) = (told.room, told.after);
        let mut lines: Vec<u32> = asked.seen.map(|seen| seen.last).into_iter().collect();
        lines.extend(Some(asked.step).filter(|step| *step != NONE));
        let is_other_epoch = asked.epoch != NONE && asked.epoch != told.epoch;
        if !told.recovered {
            if !is_other_epoch && !self.is_unknown(told, asked, position) {
                self.find(AnomalyKind::Dishonest, room, index, &lines, |room| {
                    let head = told.head;
                    format!("was told that its position {position} in {room:?} is not kept, but the epoch is the same and the head {head}")
                });
            }
            return;
        }
        if after != position || is_other_epoch {
            self.find(AnomalyKind::Dishonest, room, index, &lines, |room| {
                let epoch = if is_other_epoch { " of another epoch" } else { "" };
                format!("asked {room:?} from {position}{epoch} and was told that this is kept, from {after}")
            });
            return;
        }
        // It left, or the history is another: what it had seen binds nobody.
        let seen = asked.seen.filter(|seen| !seen.ended && seen.epoch == told.epoch);
        if let Some(seen) = seen.filter(|seen| seen.after < position) {
            self.find(AnomalyKind::Gap, room, index, &lines, |room| {
                format!("resumed {room:?} from {position}, but had come only to {}", seen.after)
            });
        }
    }

    /// Whether a position is rightly called unknown: it is beyond the head, and nobody knew of such a message when it
    /// was asked for.
    fn is_unknown(&self, told: &SubAnswered, asked: &AskedPosition, position: u64) -> bool {
        let was_restored = !self.history.restores.is_empty();
        let known = self.history.row_at(told.room, position);
        let is_known = known.is_some_and(|(_, row)| row.known_us < asked.at_us);
        let is_seen = asked.seen.is_some_and(|seen| seen.epoch == told.epoch && seen.after >= position);
        position > told.head && (was_restored || !(is_known || is_seen))
    }
}
