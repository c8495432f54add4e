//! The plain queue of natural batching. Pure: no clock, no I/O, no task.

use std::collections::VecDeque;

use super::{Bounds, Full, cut};

/// Items in the order they came, cut into batches, at most one of them in flight.
#[derive(Debug)]
pub struct BatchQueue<T> {
    bounds: Bounds,
    items: VecDeque<(T, usize)>,
    bytes: usize,
    in_flight: bool,
}

impl<T> BatchQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, items: VecDeque::new(), bytes: 0, in_flight: false }
    }

    /// Appends an item that counts as `bytes`. An empty queue takes any single item.
    ///
    /// # Errors
    /// [`Full`] gives the item back when the queue's bounds would be passed.
    pub fn push(&mut self, item: T, bytes: usize) -> Result<(), Full<T>> {
        if !self.has_room(bytes) {
            return Err(Full(item));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back((item, bytes));
        Ok(())
    }

    /// Whether [`BatchQueue::push`] would take an item of `bytes` now.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bounds.admits(self.items.len(), self.bytes, bytes)
    }

    /// The next batch, oldest first; `None` while a batch is in flight or nothing waits.
    /// The batch stays in flight until [`BatchQueue::done`].
    pub fn take(&mut self) -> Option<Vec<T>> {
        // One batch in flight: a second one could overtake it.
        if self.in_flight || self.items.is_empty() {
            return None;
        }
        let cut = cut(&self.bounds, self.items.iter().map(|(_, bytes)| *bytes));
        self.bytes -= cut.bytes.min(self.bytes);
        self.in_flight = true;
        Some(self.items.drain(..cut.items).map(|(item, _)| item).collect())
    }

    /// The batch in flight has returned, however it went. Harmless when there is none.
    pub fn done(&mut self) {
        self.in_flight = false;
    }

    /// Keeps the waiting items that satisfy `keep`, returns the others in order. The batch in flight is
    /// not touched.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut kept, mut removed) = (VecDeque::with_capacity(self.items.len()), Vec::new());
        for (item, bytes) in self.items.drain(..) {
            if keep(&item) {
                kept.push_back((item, bytes));
            } else {
                self.bytes -= bytes.min(self.bytes);
                removed.push(item);
            }
        }
        self.items = kept;
        removed
    }

    /// Removes and returns all waiting items, oldest first.
    pub fn clear(&mut self) -> Vec<T> {
        self.retain(|_| false)
    }

    /// The waiting items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits. A batch may still be in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a batch was taken and has not returned.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.in_flight && self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Take,
        Done,
        RemoveMultiplesOf(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..60_usize).prop_map(Step::Push),
            3 => Just(Step::Take),
            3 => Just(Step::Done),
            1 => (2..5_usize).prop_map(Step::RemoveMultiplesOf),
        ]
    }

    proptest! {
        #[test]
        fn order_is_kept_and_bounds_hold(
            items_max in 1..6_usize, bytes_max in 1..100_usize,
            queue_items_max in 1..12_usize, queue_bytes_max in 1..200_usize,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let bounds = Bounds { items_max, bytes_max, queue_items_max, queue_bytes_max };
            let mut queue = BatchQueue::new(bounds);
            let (mut expected, mut out, mut n) = (Vec::new(), Vec::new(), 0_usize);
            for step in steps.into_iter().chain([Step::Done]) {
                match step {
                    Step::Push(bytes) => {
                        n += 1;
                        match queue.push((n, bytes), bytes) {
                            Ok(()) => expected.push(n),
                            Err(Full(item)) => prop_assert_eq!(item, (n, bytes)),
                        }
                    }
                    Step::Take => {
                        let idle = queue.in_flight() || queue.is_empty();
                        match queue.take() {
                            None => prop_assert!(idle),
                            Some(batch) => {
                                prop_assert!(!idle && !batch.is_empty() && batch.len() <= items_max);
                                let bytes: usize = batch.iter().map(|(_, bytes)| bytes).sum();
                                prop_assert!(bytes <= bytes_max || batch.len() == 1);
                                out.extend(batch.into_iter().map(|(n, _)| n));
                            }
                        }
                    }
                    Step::Done => queue.done(),
                    Step::RemoveMultiplesOf(k) => {
                        let removed = queue.retain(|(n, _)| n % k != 0);
                        prop_assert!(removed.is_sorted());
                        prop_assert!(removed.iter().all(|(n, _)| n % k == 0));
                        expected.retain(|n| !removed.iter().any(|(removed, _)| removed == n));
                    }
                }
                prop_assert!(queue.len() <= queue_items_max);
                prop_assert!(queue.bytes() <= queue_bytes_max || queue.len() == 1);
                prop_assert_eq!(queue.bytes(), queue.iter().map(|(_, bytes)| bytes).sum::<usize>());
            }
            while let Some(batch) = queue.take() {
                out.extend(batch.into_iter().map(|(n, _)| n));
                queue.done();
            }
            prop_assert_eq!(out, expected);
            prop_assert!(queue.is_idle());
        }
    }
}
