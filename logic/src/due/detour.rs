//! Which rooms of a lane firing goes around, because somebody keeps them locked. Pure.
//!
//! A room that is locked when it is looked at may be in use by a publish, for some milliseconds. So the first such room is
//! waited for in the next step, a moment, and only if that is in vain it is passed over for a while: what is due in it must
//! not fill each step, and the lane must not stand still for it more than once in that while.

use sluice_proto::ids::RoomId;
use sluice_store::{Fired, LockedRooms};
use tokio::time::Instant;

use crate::defaults::{LOCKED_ROOM_PAUSE, LOCKED_ROOMS_MAX};

/// What is known of the locked rooms of one lane.
#[derive(Debug, Default)]
pub(super) struct Detour {
    /// To be waited for in the next step.
    suspect: Option<RoomId>,
    /// Until when each is passed over.
    passed_over: Vec<(RoomId, Instant)>,
}

impl Detour {
    /// What the next step goes around.
    pub(super) fn ask(&mut self, now: Instant) -> LockedRooms {
        self.passed_over.retain(|(_, until)| *until > now);
        let without = self.passed_over.iter().map(|(room, _)| room.clone()).collect();
        LockedRooms { without, wait_for: self.suspect.take() }
    }

    /// Takes what a step came upon; how many rooms are passed over from now on that were not before.
    pub(super) fn learn(&mut self, asked: &LockedRooms, step: &Fired, now: Instant) -> u64 {
        let in_vain = |room: &&RoomId| asked.wait_for.as_ref() == Some(*room);
        let waited = step.locked.iter().any(|room| in_vain(&room));
        // With nothing published, all that was looked at is locked since before that wait.
        let (kept, others): (Vec<&RoomId>, Vec<&RoomId>) =
            step.locked.iter().partition(|room| waited && (step.taken == 0 || in_vain(room)));
        self.suspect = others.first().map(|&room| room.clone());
        let space = LOCKED_ROOMS_MAX.saturating_sub(self.passed_over.len());
        let kept = kept.into_iter().take(space).map(|room| (room.clone(), now + LOCKED_ROOM_PAUSE));
        let before = self.passed_over.len();
        self.passed_over.extend(kept);
        (self.passed_over.len() - before) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use sluice_proto::ids::Epoch;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).expect("valid")
    }

    fn step(taken: u64, locked: &[&str]) -> Fired {
        let locked = locked.iter().map(|name| room(name)).collect();
        Fired { epoch: Epoch(1), taken, conflicts: 0, runs: Vec::new(), locked, note: None }
    }

    fn names(rooms: &[RoomId]) -> Vec<&str> {
        rooms.iter().map(RoomId::as_str).collect()
    }

    #[test]
    fn a_room_is_passed_over_only_when_it_was_waited_for_in_vain() {
        let (mut detour, now) = (Detour::default(), Instant::now());
        let first = detour.ask(now);
        assert_eq!(first, LockedRooms::default());
        assert_eq!(detour.learn(&first, &step(3, &["a", "b"]), now), 0, "they may just be in use");
        let second = detour.ask(now);
        assert_eq!((names(&second.without), second.wait_for.clone()), (vec![], Some(room("a"))));
        assert_eq!(detour.learn(&second, &step(3, &["a", "b"]), now), 1);
        let third = detour.ask(now);
        assert_eq!((names(&third.without), third.wait_for.clone()), (vec!["a"], Some(room("b"))));
        assert_eq!(detour.learn(&third, &step(1, &[]), now), 0, "b was free a moment later");
        assert_eq!(detour.ask(now).wait_for, None);
        let later = now + LOCKED_ROOM_PAUSE + Duration::from_millis(1);
        assert_eq!(detour.ask(later), LockedRooms::default(), "looked at again");
    }

    #[test]
    fn when_all_that_is_due_is_locked_one_wait_is_enough() {
        let (mut detour, now) = (Detour::default(), Instant::now());
        let first = detour.ask(now);
        detour.learn(&first, &step(0, &["a", "b", "c"]), now);
        let second = detour.ask(now);
        assert_eq!(detour.learn(&second, &step(0, &["a", "b", "c"]), now), 3);
        assert_eq!(names(&detour.ask(now).without), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut detour, now) = (Detour::default(), Instant::now());
        let all: Vec<String> = (0..2 * LOCKED_ROOMS_MAX).map(|n| format!("r{n}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let first = detour.ask(now);
        detour.learn(&first, &step(0, &all), now);
        let second = detour.ask(now);
        assert_eq!(detour.learn(&second, &step(0, &all), now), LOCKED_ROOMS_MAX as u64);
    }
}
