//! What a home does about all of its rooms: asks their heads, announces their interest again. In parts, so that
//! the cost of a turn, and what waits for logic, do not grow with the rooms. Pure.

use super::calls::{Asker, HomeCall, RoomsCall};
use super::{Home, HomeOutput};
use crate::defaults::ROOMS_PER_TURN;
use crate::repair::RepairRound;
use crate::room::link::Ms;
use sluice_proto::limits::ROOMS_PER_CALL_MAX;

/// A look at all rooms in parts: its cost in one turn does not grow with them. Downwards, as a room that goes
/// is replaced by the last one, which then was looked at.
#[derive(Debug)]
pub(super) struct HeadsPass {
    /// Rooms below this number are still to be looked at.
    below: usize,
    /// Rooms when it began.
    len: usize,
    /// Besides active rooms, this many from this number on are asked.
    from: usize,
    others: usize,
}

impl HeadsPass {
    /// Whether a room is asked although nothing happens in it.
    fn covers(&self, number: usize) -> bool {
        (number + self.len - self.from) % self.len.max(1) < self.others
    }
}

impl Home {
    /// A push stream ended, or pushes were dropped: the heads of active rooms (`all`: of every room) are
    /// asked at once.
    pub fn missed(&mut self, now: Ms, all: bool, ports: &mut impl HomeOutput) {
        if all {
            self.repair.alarm(now);
        } else {
            self.repair.hurry(now);
        }
        // Rooms that the pass under way has looked at may have missed something since.
        self.heads_pass = None;
        self.ask_due_heads(now, ports);
        self.go_on(now, ports);
    }

    /// Every room announces its interest again.
    pub fn announce_all(&mut self, now: Ms, ports: &mut impl HomeOutput) {
        self.announce_below = self.rooms.len();
        self.go_on(now, ports);
    }

    /// A part of what concerns all rooms: as much as a call of each kind and a turn have room for. `true` =
    /// another turn can do more at once; else the next reply goes on with it.
    pub(super) fn go_on(&mut self, now: Ms, ports: &mut impl HomeOutput) -> bool {
        for _ in 0..ROOMS_PER_TURN {
            if self.announce_below == 0 || self.subscribes.len() >= ROOMS_PER_CALL_MAX {
                break;
            }
            // Rooms may have gone since the last part: those that were moved down have had their turn.
            self.announce_below = self.announce_below.min(self.rooms.len()).saturating_sub(1);
            let room = self.rooms.get_index(self.announce_below).map(|(room, _)| room.clone());
            if let Some(room) = room {
                self.with_room(now, &room, ports, |entry, out| entry.room.announce(now, out));
            }
        }
        let more = self.announce_below > 0 && self.subscribes.len() < ROOMS_PER_CALL_MAX;
        let more_heads = self.go_on_with_heads(now);
        self.send(now, ports);
        more || more_heads
    }

    fn go_on_with_heads(&mut self, now: Ms) -> bool {
        let Some(mut pass) = self.heads_pass.take() else { return false };
        pass.below = pass.below.min(self.rooms.len());
        for _ in 0..ROOMS_PER_TURN {
            if pass.below == 0 {
                return false;
            }
            if self.heads.len() >= ROOMS_PER_CALL_MAX {
                break;
            }
            pass.below -= 1;
            if let Some((room, entry)) = self.rooms.get_index_mut(pass.below)
                && (entry.active_until > now || pass.covers(pass.below))
                // Also by `missed`, while the former answer is on its way: once is enough.
                && !std::mem::replace(&mut entry.asked_head, true)
            {
                self.heads.push(Asker::Room(room.clone()), (room.clone(), None));
            }
        }
        self.heads_pass = Some(pass);
        self.heads.len() < ROOMS_PER_CALL_MAX
    }

    /// Asks the heads that are due.
    pub(super) fn ask_due_heads(&mut self, now: Ms, ports: &mut impl HomeOutput) {
        // One at a time: what became due meanwhile is asked by the next.
        if self.heads_pass.is_some() {
            return;
        }
        let Some(question) = self.repair.due(now, self.rooms.len()) else { return };
        let len = self.rooms.len();
        let others = match question {
            RepairRound::All => len,
            RepairRound::Slice { others } => others.min(len),
        };
        let from = self.slice % len.max(1);
        self.slice = (from + others) % len.max(1);
        self.heads_pass = (len > 0).then_some(HeadsPass { below: len, len, from, others });
        if len == 0 {
            // No room to ask about, but the reply also tells the epoch and whether Redis forgot.
            ports.ask(HomeCall::Heads(RoomsCall::default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HeadsPass;

    #[test]
    fn a_slice_begins_where_the_last_one_ended_and_goes_round() {
        let covered = |len, from, others| {
            let pass = HeadsPass { below: len, len, from, others };
            (0..len).filter(|number| pass.covers(*number)).collect::<Vec<_>>()
        };
        assert_eq!(covered(10, 2, 3), [2, 3, 4]);
        assert_eq!(covered(10, 8, 4), [0, 1, 8, 9]);
        assert_eq!(covered(3, 0, 3), [0, 1, 2]);
        assert!(covered(3, 1, 0).is_empty(), "active rooms alone");
    }
}
