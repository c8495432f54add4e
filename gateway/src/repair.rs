//! When the heads of which rooms are asked: active rooms every second, all within a period, at once when
//! a push stream ends, and all every second while repair finds what a push should have brought. Pure.

use crate::room::link::Ms;
use crate::rules::{Faithful, Rule, Rules};

/// Times of the repair.
#[derive(Debug, Clone, Copy)]
pub struct RepairTimes {
    /// Between two questions about active rooms, and between two slices of all.
    pub every_ms: Ms,
    /// All rooms are asked once in this time.
    pub period_ms: Ms,
    /// A room is active for this long after a message or a new subscriber.
    pub active_ms: Ms,
    /// How long a find keeps all rooms under question.
    pub alarm_ms: Ms,
    /// More finds than this in a minute: all rooms announce their interest again.
    pub finds_per_min: u32,
}

/// How often pushes may have been missed: homes ask heads when a number grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missed {
    /// A stream has ended: heads of active rooms.
    pub ended: u64,
    /// A task said that it dropped some: heads of all rooms.
    pub resync: u64,
    /// A shard had no room for who came and left.
    pub told: u64,
}

/// What is to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairRound {
    /// The active rooms, and this many others from where the last slice ended.
    Slice {
        /// Rooms of the slice.
        others: usize,
    },
    /// The heads of every room.
    All,
}

/// The schedule of one home.
#[derive(Debug)]
pub struct Repair {
    times: RepairTimes,
    next: Ms,
    alarm_until: Ms,
    minute: Ms,
    finds: u32,
}

impl Repair {
    /// A schedule that begins at `now`.
    #[must_use]
    pub fn new(times: RepairTimes, now: Ms) -> Self {
        Self { times, next: now + times.every_ms, alarm_until: 0, minute: now, finds: 0 }
    }

    /// What to ask at `now`, with `rooms` rooms in all.
    pub fn due(&mut self, now: Ms, rooms: usize) -> Option<RepairRound> {
        if now < self.next || !Faithful::keeps(Rule::HeadsAsked) {
            return None;
        }
        self.next = now + self.times.every_ms;
        // What one room missed others have missed too: all are asked until nothing more is found.
        if now < self.alarm_until {
            return Some(RepairRound::All);
        }
        let slices = (self.times.period_ms / self.times.every_ms.max(1)).max(1);
        let others = rooms.div_ceil(usize::try_from(slices).unwrap_or(usize::MAX));
        Some(RepairRound::Slice { others })
    }

    /// The active rooms are asked at the next look, because pushes may have been lost.
    pub fn hurry(&mut self, now: Ms) {
        self.next = self.next.min(now);
    }

    /// Every room is asked at the next look and for a while after.
    pub fn alarm(&mut self, now: Ms) {
        self.alarm_until = now + self.times.alarm_ms;
        self.next = self.next.min(now);
    }

    /// A repair found what a push should have brought. `true` = so many that all rooms are to announce
    /// their interest again.
    pub fn found(&mut self, now: Ms) -> bool {
        self.alarm_until = now + self.times.alarm_ms;
        if now.saturating_sub(self.minute) >= 60_000 {
            self.minute = now;
            self.finds = 0;
        }
        self.finds += 1;
        // Once in that minute, not with each further find: announcing all is a load of its own.
        self.finds == self.times.finds_per_min + 1
    }

    /// Until when a room counts as active after something happened in it at `now`.
    #[must_use]
    pub fn active_until(&self, now: Ms) -> Ms {
        now + self.times.active_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: RepairTimes = RepairTimes {
        every_ms: 1_000,
        period_ms: 30_000,
        active_ms: 60_000,
        alarm_ms: 5_000,
        finds_per_min: 2,
    };

    #[test]
    fn all_rooms_are_asked_within_the_period() {
        let mut repair = Repair::new(TIMES, 0);
        assert_eq!(repair.due(999, 100), None);
        assert_eq!(repair.due(1_000, 100), Some(RepairRound::Slice { others: 4 }));
        assert_eq!(repair.due(1_500, 100), None);
    }

    #[test]
    fn a_find_puts_all_rooms_under_question_and_many_announce_all() {
        let mut repair = Repair::new(TIMES, 0);
        assert!(!repair.found(100) && !repair.found(200));
        assert!(repair.found(300));
        assert!(!repair.found(400), "once a minute is enough");
        assert_eq!(repair.due(1_000, 7), Some(RepairRound::All));
        assert_eq!(repair.due(9_000, 7), Some(RepairRound::Slice { others: 1 }));
        assert!(!repair.found(61_000));
    }

    #[test]
    fn a_lost_stream_hurries() {
        let mut repair = Repair::new(TIMES, 0);
        repair.hurry(10);
        assert_eq!(repair.due(10, 0), Some(RepairRound::Slice { others: 0 }));
    }
}
