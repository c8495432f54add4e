//! Aligned pages, one Read each: a crowd that resumes in one room asks the store once per page. Never
//! keeps a page: the answer goes to those who wait for it, later askers start anew.

use std::collections::HashMap;
use std::hash::Hash;

/// Reads of pages in flight. `K` names a page (room, epoch, start), `W` whoever waits for it; each waiter has at
/// most one ask, so the subscriptions bound the table.
#[derive(Debug)]
pub struct PageReads<K, W> {
    in_flight: HashMap<K, Vec<W>>,
}

impl<K, W> Default for PageReads<K, W> {
    fn default() -> Self {
        Self { in_flight: HashMap::new() }
    }
}

impl<K: Hash + Eq, W> PageReads<K, W> {
    /// Joins the Read of page `key`. `true` = there is none: the caller starts it.
    pub fn join(&mut self, key: K, waiter: W) -> bool {
        let waiters = self.in_flight.entry(key).or_default();
        waiters.push(waiter);
        waiters.len() == 1
    }

    /// The Read of `key` has ended, well or not: who waited for it.
    pub fn end(&mut self, key: &K) -> Vec<W> {
        self.in_flight.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_serves_all_who_came_before_its_end() {
        let mut pages = PageReads::default();
        assert!(pages.join("page", 1));
        assert!(!pages.join("page", 2));
        assert!(pages.join("other", 3));
        assert_eq!(pages.end(&"page"), [1, 2]);
        assert!(pages.end(&"page").is_empty());
        assert!(pages.join("page", 4));
    }
}
