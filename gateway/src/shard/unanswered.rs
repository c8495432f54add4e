//! Publishes of a shard's connections without outcome: above a bound no socket of the shard is read. Pure.

use crate::defaults::{SHARD_UNANSWERED_BYTES_MAX, SHARD_UNANSWERED_ITEMS_MAX};

/// How many, how large, and whether that is too much.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    items: usize,
    bytes: usize,
    over_budget: bool,
}

impl Unanswered {
    /// One more was accepted.
    pub(super) fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes;
        self.over_budget |=
            self.items >= SHARD_UNANSWERED_ITEMS_MAX || self.bytes >= SHARD_UNANSWERED_BYTES_MAX;
    }

    /// One has its outcome. `true` = sockets may be read again.
    pub(super) fn remove(&mut self, bytes: usize) -> bool {
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        // At half, not at the bound: else every outcome would wake all connections for one publish.
        let enough_space =
            self.items <= SHARD_UNANSWERED_ITEMS_MAX / 2 && self.bytes <= SHARD_UNANSWERED_BYTES_MAX / 2;
        let resumes = self.over_budget && enough_space;
        self.over_budget &= !resumes;
        resumes
    }

    /// No socket is to be read.
    pub(super) const fn over_budget(&self) -> bool {
        self.over_budget
    }

    /// How many publishes have no outcome.
    pub(super) const fn items(&self) -> usize {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_bound_and_goes_on_at_half_of_it_once() {
        let mut unanswered = Unanswered::default();
        (1..SHARD_UNANSWERED_ITEMS_MAX).for_each(|_| unanswered.add(1));
        assert!(!unanswered.over_budget());
        unanswered.add(1);
        assert!(unanswered.over_budget());
        let resumed: Vec<usize> = (0..SHARD_UNANSWERED_ITEMS_MAX).filter(|_| unanswered.remove(1)).collect();
        assert_eq!(resumed, [SHARD_UNANSWERED_ITEMS_MAX / 2 - 1]);
        assert_eq!((unanswered.items(), unanswered.over_budget()), (0, false));
    }

    #[test]
    fn large_publishes_count_by_their_bytes() {
        let mut unanswered = Unanswered::default();
        unanswered.add(SHARD_UNANSWERED_BYTES_MAX);
        assert!(unanswered.over_budget() && unanswered.remove(SHARD_UNANSWERED_BYTES_MAX));
    }
}
