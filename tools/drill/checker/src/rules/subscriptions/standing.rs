//! Where one subscription stands: contiguous from its position, or with holes that were not told of. Pure.

use std::collections::BTreeMap;

/// A subscription that was answered.
#[derive(Debug, Clone)]
pub(super) struct Standing {
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
pub(super) enum Arrival {
    /// The next, or one beyond a new hole.
    Onward,
    /// It was passed over before.
    Late,
    /// It had come already, or is from before the position.
    Again,
}

impl Standing {
    pub fn new(epoch: u32, after: u64, had: u64, begun: u32) -> Self {
        Self { epoch, after, had, begun, last: begun, ended: false, holes: BTreeMap::new() }
    }

    /// A message came.
    pub fn arrive(&mut self, seq: u64, step: u32) -> Arrival {
        if seq > self.after {
            if seq > self.after + 1 {
                let (from, to) = (self.after + 1, seq - 1);
                self.holes.insert(from, Hole { from, to, before: self.last, shown: step });
            }
            self.after = seq;
            self.last = step;
            return if seq > self.had { Arrival::Onward } else { Arrival::Again };
        }
        let hole = self.holes.range(..=seq).next_back().map(|(_, hole)| *hole).filter(|hole| seq <= hole.to);
        let Some(hole) = hole else { return Arrival::Again };
        self.holes.remove(&hole.from);
        for part in [Hole { to: seq - 1, ..hole }, Hole { from: seq + 1, ..hole }] {
            if part.from <= part.to {
                self.holes.insert(part.from, part);
            }
        }
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_from_any_side() {
        let mut it = Standing::new(0, 4, 4, 0);
        assert_eq!(it.arrive(5, 1), Arrival::Onward);
        assert_eq!(it.arrive(9, 2), Arrival::Onward);
        assert_eq!(it.holes[&6], Hole { from: 6, to: 8, before: 1, shown: 2 });
        assert_eq!(it.arrive(7, 3), Arrival::Late);
        assert_eq!(it.arrive(6, 4), Arrival::Late);
        assert_eq!(it.arrive(8, 5), Arrival::Late);
        assert!(it.holes.is_empty());
        assert_eq!(it.arrive(9, 6), Arrival::Again);
        assert_eq!(it.arrive(4, 7), Arrival::Again);
        assert_eq!(it.after, 9);
    }
}
