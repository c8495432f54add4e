//! How long a room waits for a push that may still come before it reads the store: twice the inversion
//! it has seen lately, within bounds. Overload must not turn each late push into a store read.

use sluice_proto::ids::Seq;

use super::limits::RoomLimits;
use super::link::Ms;

/// What was learnt is worth half after this: one hiccup must not make the next gap last.
const HALF_LIFE_MS: Ms = 1_000;

/// The adaptive wait of one room. While nothing was ever late there is nothing to keep.
#[derive(Debug)]
pub(super) struct Hold {
    min_ms: u32,
    max_ms: u32,
    seen: Option<Box<Seen>>,
}

/// What was seen of pushes that were late.
#[derive(Debug)]
struct Seen {
    /// The wait as it was at the last lesson.
    hold_ms: Ms,
    /// When the wait was last changed.
    learnt: Ms,
    /// Since when the message after `head` is known to be missing.
    since: Option<Ms>,
    /// A missing message that was read: if its push comes after all, it was only late.
    read: Option<(Seq, Ms)>,
}

impl Hold {
    pub(super) fn new(limits: &RoomLimits) -> Self {
        let ms = |ms: Ms| u32::try_from(ms).unwrap_or(u32::MAX);
        Self { min_ms: ms(limits.hold_min_ms), max_ms: ms(limits.hold_max_ms), seen: None }
    }

    fn min_ms(&self) -> Ms {
        self.min_ms.into()
    }

    fn seen(&mut self) -> &mut Seen {
        let hold_ms = self.min_ms();
        self.seen.get_or_insert_with(|| Box::new(Seen { hold_ms, learnt: 0, since: None, read: None }))
    }

    /// The state after an event: is the message after `head` missing, and did the head move?
    pub(super) fn observe(&mut self, now: Ms, missing: bool) {
        if missing {
            self.seen().since.get_or_insert(now);
        } else if let Some(seen) = &mut self.seen {
            seen.since = None;
        }
    }

    /// A push filled the gap.
    pub(super) fn filled(&mut self, now: Ms) {
        if let Some(since) = self.seen.as_mut().and_then(|seen| seen.since.take()) {
            self.inversion(now, now.saturating_sub(since));
        }
    }

    /// A push came for what was passed on already.
    pub(super) fn duplicate(&mut self, now: Ms, seq: Seq) {
        let read = self.seen.as_mut().and_then(|seen| seen.read.take_if(|(read, _)| *read == seq));
        if let Some((_, since)) = read {
            self.inversion(now, now.saturating_sub(since));
        }
    }

    /// The store is asked for `seq`.
    pub(super) fn read(&mut self, now: Ms, seq: Seq) {
        let seen = self.seen();
        seen.read = Some((seq, seen.since.unwrap_or(now)));
    }

    /// An answer came: what is missing still is waited for anew, and the wait shrinks a little, since
    /// a lost push teaches nothing about late ones.
    pub(super) fn answered(&mut self, now: Ms) {
        self.seen().since = None;
        let hold_ms = self.hold_ms(now);
        self.learn(now, hold_ms - (hold_ms - self.min_ms()) / 8);
    }

    /// Forgets the gap, keeps what was learnt.
    pub(super) fn reset(&mut self) {
        if let Some(seen) = &mut self.seen {
            (seen.since, seen.read) = (None, None);
        }
    }

    /// When the store is to be read, if a message is missing.
    pub(super) fn due(&self) -> Option<Ms> {
        let since = self.seen.as_ref()?.since?;
        Some(since + self.hold_ms(since))
    }

    /// The wait for a push that is missing since `now`, ms.
    pub(super) fn hold_ms(&self, now: Ms) -> Ms {
        let min_ms = self.min_ms();
        let Some(Seen { hold_ms, learnt, .. }) = self.seen.as_deref() else { return min_ms };
        let halved = now.saturating_sub(*learnt) / HALF_LIFE_MS;
        min_ms + (hold_ms - min_ms).checked_shr(u32::try_from(halved).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    fn inversion(&mut self, now: Ms, ms: Ms) {
        // No wait would have been long enough: a task was killed, and its notice came to another one when its time
        // was over. That says nothing about those who are late.
        if ms > Ms::from(self.max_ms) {
            return;
        }
        let (hold_ms, wanted) = (self.hold_ms(now), (2 * ms).clamp(self.min_ms(), self.max_ms.into()));
        let next = if wanted > hold_ms { wanted } else { hold_ms - (hold_ms - wanted) / 8 };
        self.learn(now, next);
    }

    fn learn(&mut self, now: Ms, hold_ms: Ms) {
        let seen = self.seen();
        (seen.hold_ms, seen.learnt) = (hold_ms, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_inversion_seen() {
        let limits = RoomLimits::default();
        let mut hold = Hold::new(&limits);
        hold.observe(100, true);
        assert_eq!(hold.due(), Some(120));
        hold.filled(115);
        assert_eq!(hold.hold_ms(115), 30, "twice the 15 ms that the push was late");
        hold.observe(200, true);
        hold.read(230, 7);
        hold.answered(240);
        hold.duplicate(500, 6);
        assert_eq!(hold.hold_ms(500), 29, "an eighth of the 10 ms above the shortest is taken back");
        hold.duplicate(500, 7);
        assert_eq!(hold.hold_ms(500), 600, "the message that was read came 300 ms late");
        hold.observe(500, true);
        hold.filled(1_300);
        assert_eq!(hold.hold_ms(1_300), limits.hold_max_ms);
        for _ in 0..100 {
            hold.observe(1_400, true);
            hold.filled(1_400);
        }
        assert!(hold.hold_ms(1_400) < limits.hold_min_ms + 8, "and it shrinks again");
    }

    #[test]
    fn what_was_learnt_fades() {
        let mut hold = Hold::new(&RoomLimits::default());
        hold.observe(0, true);
        hold.filled(260);
        let after = |ms: Ms| hold.hold_ms(260 + ms);
        assert_eq!([after(0), after(999), after(1_000), after(3_000)], [520, 520, 270, 82]);
        assert_eq!(after(1_000_000), 20);
    }

    #[test]
    fn a_push_that_came_beyond_any_wait_does_not_make_the_next_gap_last() {
        let mut hold = Hold::new(&RoomLimits::default());
        hold.observe(0, true);
        hold.read(20, 7);
        hold.answered(25);
        hold.duplicate(2_000, 7);
        assert_eq!(hold.hold_ms(2_000), 20);
        // As long as the longest wait is not beyond it.
        hold.observe(2_000, true);
        hold.filled(3_000);
        assert_eq!(hold.hold_ms(3_000), 1_000);
    }

    #[test]
    fn a_history_that_was_forgotten_teaches_nothing() {
        let mut hold = Hold::new(&RoomLimits::default());
        hold.observe(0, true);
        hold.read(20, 7);
        hold.reset();
        assert_eq!(hold.due(), None);
        hold.duplicate(300, 7);
        assert_eq!(hold.hold_ms(300), 20);
    }
}
