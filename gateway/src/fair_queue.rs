//! What many ask for and one call at a time answers, gathered fairly: each asker in turn gives one, so that
//! a thousand of one connection do not stand before another's only one. Pure.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use sluice_service::seeded::{self, Bug};

/// Items by asker, cut into batches, at most one batch in flight.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    /// With the seeded bug all share one place in the ring: first in, first out.
    by_asker: HashMap<Option<K>, VecDeque<T>>,
    /// Askers that have something waiting, next first. Each once.
    ring: VecDeque<Option<K>>,
    len: usize,
    batch_max: usize,
    in_flight: bool,
}

impl<K: Hash + Eq + Clone, T> FairQueue<K, T> {
    /// An empty queue with batches of at most this many items.
    #[must_use]
    pub fn new(batch_max: usize) -> Self {
        Self { by_asker: HashMap::new(), ring: VecDeque::new(), len: 0, batch_max, in_flight: false }
    }

    /// Appends to what waits for `asker`.
    pub fn push(&mut self, asker: K, item: T) {
        let asker = (!seeded::is(Bug::QueueWithoutFairness)).then_some(asker);
        let waiting = self.by_asker.entry(asker.clone()).or_default();
        if waiting.is_empty() {
            self.ring.push_back(asker);
        }
        waiting.push_back(item);
        self.len += 1;
    }

    /// The next item: one of the asker whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let asker = self.ring.pop_front()?;
        let waiting = self.by_asker.get_mut(&asker)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.by_asker.remove(&asker);
        } else {
            self.ring.push_back(asker);
        }
        self.len -= usize::from(item.is_some());
        if self.ring.is_empty() {
            // A crowd that was served leaves no empty places behind.
            self.ring = VecDeque::new();
            self.by_asker = HashMap::new();
        }
        item
    }

    /// What [`FairQueue::pop`] would take.
    #[must_use]
    pub fn peek(&self) -> Option<&T> {
        self.by_asker.get(self.ring.front()?)?.front()
    }

    /// Askers that have something waiting.
    #[must_use]
    pub fn askers(&self) -> usize {
        self.ring.len()
    }

    /// The next batch of items that are `wanted` still; the others cost no call. `None` while a batch is in
    /// flight or nothing is wanted. The batch stays in flight until [`FairQueue::done`].
    pub fn take(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<Vec<T>> {
        // One at a time: while it is away more gather, so a slow logic gets larger batches and not more calls.
        if self.in_flight {
            return None;
        }
        let mut batch = Vec::new();
        while batch.len() < self.batch_max {
            let Some(item) = self.pop() else { break };
            if wanted(&item) {
                batch.push(item);
            }
        }
        self.in_flight = !batch.is_empty();
        self.in_flight.then_some(batch)
    }

    /// The batch in flight has returned, however it went. Harmless when there is none.
    pub const fn done(&mut self) {
        self.in_flight = false;
    }

    /// Items that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_thousand_of_one_do_not_stand_before_the_one_of_another() {
        let mut queue = FairQueue::new(4);
        (0..1_000).for_each(|n| queue.push("loud", n));
        queue.push("quiet", 7_000);
        assert_eq!(queue.take(|_| true).unwrap(), [0, 7_000, 1, 2]);
        assert_eq!((queue.take(|_| true), queue.len()), (None, 997), "one batch at a time");
        queue.done();
        assert_eq!(queue.take(|_| true).unwrap(), [3, 4, 5, 6]);
    }

    #[test]
    fn what_is_not_wanted_any_more_takes_no_place_in_a_batch() {
        let mut queue = FairQueue::new(3);
        (0..10).for_each(|n| queue.push("one", n));
        assert_eq!(queue.take(|n| n % 4 == 3).unwrap(), [3, 7]);
        queue.done();
        queue.push("one", 1);
        assert_eq!(queue.take(|_| false), None);
        queue.push("one", 2);
        assert_eq!(queue.take(|_| true).unwrap(), [2], "an empty batch is not in flight");
    }

    proptest! {
        #[test]
        fn everything_comes_once_and_in_the_order_of_its_asker(
            pushes in prop::collection::vec(0..4_u8, 0..60), batch_max in 1..5_usize,
        ) {
            let mut queue = FairQueue::new(batch_max);
            for (n, asker) in pushes.iter().enumerate() {
                queue.push(*asker, (*asker, n));
            }
            let mut seen = Vec::new();
            while let Some(batch) = queue.take(|_| true) {
                seen.extend(batch);
                queue.done();
            }
            prop_assert!(queue.is_empty());
            for asker in 0..4 {
                let of = |all: &[(u8, usize)]| all.iter().filter(|(a, _)| *a == asker).map(|(_, n)| *n).collect::<Vec<_>>();
                let pushed: Vec<(u8, usize)> = pushes.iter().enumerate().map(|(n, a)| (*a, n)).collect();
                prop_assert_eq!(of(&seen), of(&pushed));
            }
        }
    }
}
