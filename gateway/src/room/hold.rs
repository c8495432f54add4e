//! How long a room waits for a push that may still come before it reads the store: twice the inversion
//! it has seen, within bounds. Overload must not turn each late push into a store read.

use sluice_proto::ids::Seq;

use super::limits::RoomLimits;
use super::link::Ms;

/// The adaptive wait of one room.
#[derive(Debug)]
pub(super) struct Hold {
    hold_ms: Ms,
    /// Since when the message after `head` is known to be missing.
    since: Option<Ms>,
    /// A missing message that was read: if its push comes after all, it was only late.
    read: Option<(Seq, Ms)>,
}

impl Hold {
    pub(super) fn new(limits: &RoomLimits) -> Self {
        Self { hold_ms: limits.hold_min_ms, since: None, read: None }
    }

    /// The state after an event: is the message after `head` missing, and did the head move?
    pub(super) fn observe(&mut self, now: Ms, missing: bool) {
        if !missing {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// A push filled the gap.
    pub(super) fn filled(&mut self, now: Ms, limits: &RoomLimits) {
        if let Some(since) = self.since.take() {
            self.inversion(now.saturating_sub(since), limits);
        }
    }

    /// A push came for what was passed on already.
    pub(super) fn duplicate(&mut self, now: Ms, seq: Seq, limits: &RoomLimits) {
        if let Some((_, since)) = self.read.take_if(|(read, _)| *read == seq) {
            self.inversion(now.saturating_sub(since), limits);
        }
    }

    /// The store is asked for `seq`.
    pub(super) fn read(&mut self, now: Ms, seq: Seq) {
        self.read = Some((seq, self.since.unwrap_or(now)));
    }

    /// An answer came: what is missing still is waited for anew, and the wait shrinks a little, since
    /// a lost push teaches nothing about late ones.
    pub(super) fn answered(&mut self, limits: &RoomLimits) {
        self.since = None;
        self.hold_ms -= (self.hold_ms - limits.hold_min_ms) / 8;
    }

    /// Forgets the gap, keeps what was learnt.
    pub(super) fn reset(&mut self) {
        self.since = None;
        self.read = None;
    }

    /// When the store is to be read, if a message is missing.
    pub(super) fn due(&self) -> Option<Ms> {
        self.since.map(|since| since + self.hold_ms)
    }

    /// The present wait, ms.
    pub(super) fn hold_ms(&self) -> Ms {
        self.hold_ms
    }

    fn inversion(&mut self, ms: Ms, limits: &RoomLimits) {
        let wanted = (2 * ms).clamp(limits.hold_min_ms, limits.hold_max_ms);
        self.hold_ms =
            if wanted > self.hold_ms { wanted } else { self.hold_ms - (self.hold_ms - wanted) / 8 };
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
        hold.filled(115, &limits);
        assert_eq!(hold.hold_ms(), 30, "twice the 15 ms that the push was late");
        hold.observe(200, true);
        hold.read(230, 7);
        hold.answered(&limits);
        hold.duplicate(500, 6, &limits);
        assert!(hold.hold_ms() < 30, "another message says nothing");
        hold.duplicate(500, 7, &limits);
        assert_eq!(hold.hold_ms(), 600, "the message that was read came 300 ms late");
        hold.observe(1_000, true);
        hold.filled(9_000, &limits);
        assert_eq!(hold.hold_ms(), limits.hold_max_ms);
        for _ in 0..100 {
            hold.observe(10_000, true);
            hold.filled(10_000, &limits);
        }
        assert!(hold.hold_ms() < limits.hold_min_ms + 8, "and it shrinks again");
    }
}
