//! Where one subscription stands: contiguous from its position, or with holes that were not told of. Pure.

use std::collections::BTreeMap;

/// A subscription that was answered.
#[derive(Debug, Clone)]
pub(super) struct SubscriptionProgress {
    /// Epoch of its positions.
    pub epoch: u32,
    /// The highest position delivered or told of.
    pub after: u64,
    /// Everything up to here was delivered before it began, and must not come again.
    pub had: u64,
    /// The step that began it.
    pub begun: u32,
    /// The last delivery or skip.
    pub last: u32,
    /// It was ended by `unsub`: what still comes is in flight.
    pub ended: bool,
    /// What is missing so far, by its first position.
    pub holes: BTreeMap<u64, Hole>,
}

/// Positions passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The delivery before them.
    pub before: u32,
    /// The delivery that passed over them.
    pub shown: u32,
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryOrder {
    /// The next, or one beyond a new hole.
    Onward,
    /// It was passed over before.
    Late,
    /// It had come already, or is from before the position.
    Again,
}

impl SubscriptionProgress {
    pub fn new(epoch: u32, after: u64, had: u64, begun: u32) -> Self {
        Self { epoch, after, had, begun, last: begun, ended: false, holes: BTreeMap::new() }
    }

    /// A message came.
    pub fn arrive(&mut self, seq: u64, step: u32) -> DeliveryOrder {
        if seq > self.after {
            if seq > self.after + 1 {
                // Not a finding yet: what comes late is told as out of order, what never comes as a gap.
                let (from, to) = (self.after + 1, seq - 1);
                self.holes.insert(from, Hole { from, to, before: self.last, shown: step });
            }
            self.after = seq;
            self.last = step;
            return if seq > self.had { DeliveryOrder::Onward } else { DeliveryOrder::Again };
        }
        let hole = self.holes.range(..=seq).next_back().map(|(_, hole)| *hole).filter(|hole| seq <= hole.to);
        let Some(hole) = hole else { return DeliveryOrder::Again };
        self.holes.remove(&hole.from);
        // It fills one place of the hole: what is left of it on either side stays missing.
        for part in [Hole { to: seq - 1, ..hole }, Hole { from: seq + 1, ..hole }] {
            if part.from <= part.to {
                self.holes.insert(part.from, part);
            }
        }
        DeliveryOrder::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_from_any_side() {
        let mut it = SubscriptionProgress::new(0, 4, 4, 0);
        assert_eq!(it.arrive(5, 1), DeliveryOrder::Onward);
        assert_eq!(it.arrive(9, 2), DeliveryOrder::Onward);
        assert_eq!(it.holes[&6], Hole { from: 6, to: 8, before: 1, shown: 2 });
        assert_eq!(it.arrive(7, 3), DeliveryOrder::Late);
        assert_eq!(it.arrive(6, 4), DeliveryOrder::Late);
        assert_eq!(it.arrive(8, 5), DeliveryOrder::Late);
        assert!(it.holes.is_empty());
        assert_eq!(it.arrive(9, 6), DeliveryOrder::Again);
        assert_eq!(it.arrive(4, 7), DeliveryOrder::Again);
        assert_eq!(it.after, 9);
    }
}
