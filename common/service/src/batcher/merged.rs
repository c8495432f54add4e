//! Natural batching where a newer value merges into a waiting one of the same key. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::{Bounds, Full, cut};

/// At most one waiting value per key, in the order the keys first came.
///
/// Merging never needs more items, so it is never refused for want of places: under an outage the queue
/// grows with the number of keys, not with the number of changes.
#[derive(Debug)]
pub struct Merged<K, T> {
    bounds: Bounds,
    cost: fn(&T) -> usize,
    places: HashMap<K, i64>,
    waiting: BTreeMap<i64, (K, T)>,
    bytes: usize,
    in_flight: bool,
}

impl<K: Clone + Eq + Hash, T> Merged<K, T> {
    /// An empty queue. `cost` counts a value's bytes.
    #[must_use]
    pub fn new(bounds: Bounds, cost: fn(&T) -> usize) -> Self {
        Self { bounds, cost, places: HashMap::new(), waiting: BTreeMap::new(), bytes: 0, in_flight: false }
    }

    /// Appends a value, or merges it into the waiting one of its key: `merge(waiting, new)` gives what
    /// waits from now on, `None` when the two cancel out. A batch in flight is never merged into.
    ///
    /// # Errors
    /// [`Full`] gives the value back when its key is new and the queue's bounds would be passed.
    pub fn push(&mut self, key: K, value: T, merge: impl FnOnce(T, T) -> Option<T>) -> Result<(), Full<T>> {
        // Keeps its place: a change that comes again and again must not wait for ever.
        if let Some((place, waiting)) = self.remove(&key) {
            if let Some(value) = merge(waiting, value) {
                self.insert(place, key, value);
            }
            return Ok(());
        }
        if !self.bounds.admits(self.waiting.len(), self.bytes, (self.cost)(&value)) {
            return Err(Full(value));
        }
        // Places only grow at the end and shrink at the front, so that no key is moved.
        let last = self.waiting.last_key_value().map_or(0, |(place, _)| *place);
        self.insert(last + 1, key, value);
        Ok(())
    }

    /// The next batch, oldest key first; `None` while a batch is in flight or nothing waits.
    /// The batch stays in flight until [`Merged::done`] or [`Merged::failed`].
    pub fn take(&mut self) -> Option<Vec<(K, T)>> {
        if self.in_flight || self.waiting.is_empty() {
            return None;
        }
        let cut = cut(&self.bounds, self.waiting.values().map(|(_, value)| (self.cost)(value)));
        let mut batch = Vec::with_capacity(cut.items);
        for _ in 0..cut.items {
            let Some((_, (key, value))) = self.waiting.pop_first() else { break };
            self.places.remove(&key);
            batch.push((key, value));
        }
        self.bytes -= cut.bytes.min(self.bytes);
        self.in_flight = true;
        Some(batch)
    }

    /// The batch in flight has returned and is settled. Harmless when there is none.
    pub fn done(&mut self) {
        self.in_flight = false;
    }

    /// The batch in flight failed and goes back to the front, each value merged with what came for its key
    /// since, as `merge(old, newer)`. The queue may be over its bounds by this one batch.
    pub fn failed(&mut self, batch: Vec<(K, T)>, mut merge: impl FnMut(T, T) -> Option<T>) {
        self.in_flight = false;
        let mut place = self.waiting.first_key_value().map_or(0, |(place, _)| *place);
        for (key, old) in batch.into_iter().rev() {
            // In front of all that waits, as it is older.
            place -= 1;
            let value = match self.remove(&key) {
                Some((_, newer)) => merge(old, newer),
                None => Some(old),
            };
            if let Some(value) = value {
                self.insert(place, key, value);
            }
        }
    }

    /// The waiting value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&T> {
        let place = self.places.get(key)?;
        self.waiting.get(place).map(|(_, value)| value)
    }

    /// Forgets all that waits, for instance because a full set is about to say it again.
    pub fn clear(&mut self) {
        self.places.clear();
        self.waiting.clear();
        self.bytes = 0;
    }

    /// The waiting values with their keys, oldest key first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.waiting.values().map(|(key, value)| (key, value))
    }

    /// How many keys wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits. A batch may still be in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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

    fn remove(&mut self, key: &K) -> Option<(i64, T)> {
        let place = self.places.remove(key)?;
        let (_, value) = self.waiting.remove(&place)?;
        self.bytes -= (self.cost)(&value).min(self.bytes);
        Some((place, value))
    }

    fn insert(&mut self, place: i64, key: K, value: T) {
        self.bytes = self.bytes.saturating_add((self.cost)(&value));
        self.places.insert(key.clone(), place);
        self.waiting.insert(place, (key, value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { items_max: 3, bytes_max: 100, queue_items_max: 5, queue_bytes_max: 100 };

    fn queue() -> Merged<&'static str, i64> {
        Merged::new(BOUNDS, |_| 1)
    }

    /// Values add up; a zero sum cancels out.
    fn add(a: i64, b: i64) -> Option<i64> {
        (a + b != 0).then_some(a + b)
    }

    #[test]
    fn a_merged_value_keeps_its_place_and_a_cancelled_one_leaves() {
        let mut queue = queue();
        for (key, value) in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", -2)] {
            queue.push(key, value, add).unwrap();
        }
        assert_eq!(queue.take().unwrap(), [("a", 5), ("c", 3)]);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_failed_batch_returns_to_the_front_and_merges_with_what_came_since() {
        let mut queue = queue();
        for key in ["a", "b", "c", "d"] {
            queue.push(key, 1, add).unwrap();
        }
        let batch = queue.take().unwrap();
        queue.push("b", 1, add).unwrap();
        queue.push("c", -1, add).unwrap();
        queue.failed(batch, add);
        let waiting: Vec<_> = queue.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(waiting, [("a", 1), ("b", 2), ("d", 1)]);
    }

    proptest! {
        #[test]
        fn whatever_fails_the_sums_arrive(
            steps in prop::collection::vec((0..8_u8, -3..4_i64, 0..4_u8), 0..300),
        ) {
            let mut queue = Merged::new(BOUNDS, |value: &i64| value.unsigned_abs() as usize);
            let mut expected: BTreeMap<u8, i64> = BTreeMap::new();
            let mut arrived: BTreeMap<u8, i64> = BTreeMap::new();
            let mut in_flight = None;
            for (key, value, action) in steps {
                match (action, in_flight.take()) {
                    (0 | 1, flying) => {
                        in_flight = flying;
                        if queue.push(key, value, add).is_ok() {
                            *expected.entry(key).or_default() += value;
                        } else {
                            prop_assert!(queue.get(&key).is_none());
                        }
                    }
                    (2, Some(batch)) => queue.failed(batch, add),
                    (_, Some(batch)) => {
                        batch.into_iter().for_each(|(key, value)| *arrived.entry(key).or_default() += value);
                        queue.done();
                    }
                    (_, None) => {
                        in_flight = queue.take();
                        prop_assert!(in_flight.as_ref().is_none_or(|batch| batch.len() <= BOUNDS.items_max));
                    }
                }
                prop_assert!(queue.len() <= BOUNDS.queue_items_max + BOUNDS.items_max);
                let bytes: usize = queue.iter().map(|(_, value)| value.unsigned_abs() as usize).sum();
                prop_assert_eq!(queue.bytes(), bytes);
            }
            if let Some(batch) = in_flight {
                queue.failed(batch, add);
            }
            while let Some(batch) = queue.take() {
                batch.into_iter().for_each(|(key, value)| *arrived.entry(key).or_default() += value);
                queue.done();
            }
            expected.retain(|_, sum| *sum != 0);
            arrived.retain(|_, sum| *sum != 0);
            prop_assert_eq!(arrived, expected);
        }
    }
}
