//! Deadlines of all connections of a shard: one wheel of slots instead of a timer per connection. Pure.
//!
//! A connection is in the wheel for its nearest deadline only, and asks to be put in again when that one
//! has moved. Entries are never removed: one that is out of date is dropped when its slot comes.

use std::collections::VecDeque;

use crate::defaults::WHEEL_SLOTS;
use crate::tick::Tick;

/// An entry: a connection by slot and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WheelEntry {
    /// Slot in the slab.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
    /// When it is due.
    pub at: Tick,
}

/// The timer wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<WheelEntry>>,
    now: Tick,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { slots: (0..WHEEL_SLOTS).map(|_| Vec::new()).collect(), now: 0 }
    }
}

impl Wheel {
    /// The current tick.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// Puts an entry in and says when it comes: one that is due already, with the next tick.
    pub fn insert(&mut self, entry: WheelEntry) -> Tick {
        // The slot of a time that is over comes only when the wheel has gone around.
        let at = entry.at.max(self.now + 1);
        self.slots[at as usize % WHEEL_SLOTS].push(WheelEntry { at, ..entry });
        at
    }

    /// Goes on to `tick` and appends what is due to `due`.
    pub fn advance(&mut self, tick: Tick, due: &mut VecDeque<WheelEntry>) {
        // Once around is all of it, however long the process stood still.
        let steps = (tick.saturating_sub(self.now) as usize).min(WHEEL_SLOTS);
        let first = self.now + 1;
        self.now = self.now.max(tick);
        for step in 0..steps {
            let slot = &mut self.slots[(first as usize + step) % WHEEL_SLOTS];
            let now = self.now;
            due.extend(slot.extract_if(.., |entry| entry.at <= now));
            if slot.is_empty() {
                // After a mass disconnect the memory goes back.
                slot.shrink_to(64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_entry_comes_once_and_not_before_its_time(
            ats in prop::collection::vec(0..2_000_u32, 1..100),
            jumps in prop::collection::vec(1..700_u32, 1..50),
        ) {
            let mut wheel = Wheel::default();
            for (slot, at) in ats.iter().enumerate() {
                let _ = wheel.insert(WheelEntry { slot: u32::try_from(slot).unwrap(), generation: 0, at: *at });
            }
            let mut seen = Vec::new();
            let mut tick = 0;
            for jump in jumps.into_iter().chain([2_000]) {
                let before = tick;
                tick += jump;
                let mut due = VecDeque::new();
                wheel.advance(tick, &mut due);
                for entry in due {
                    prop_assert!(entry.at <= tick, "early");
                    prop_assert!(entry.at > before, "late");
                    seen.push(entry.slot);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..u32::try_from(ats.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
