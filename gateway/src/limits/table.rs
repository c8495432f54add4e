//! Who uses what: one entry for each user or address that is here, or was not long ago. It grows with those alone:
//! whenever it has doubled, everybody who is gone and has nothing to pay back is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Charge;
use sluice_service::bucket::{Bucket, Micros};

/// Entries below which nobody looks for what can be forgotten.
const SWEEP_MIN: usize = 64;
/// Longest wait between two rooms of one user: a debt that a crowd has run up is not paid by who comes later.
const BEHIND_MAX: Micros = 5_000_000;

/// What one user or address uses.
#[derive(Debug, Default)]
pub struct Usage {
    connections: AtomicU32,
    /// Bytes of pages of history that may come, and of those that are not taken.
    page_bytes: AtomicU32,
    /// Bytes of pages of history that came.
    pub(super) pages: Bucket,
    pub(super) handshakes: Bucket,
    publishes: Bucket,
    subscribes: Bucket,
    new_rooms: Bucket,
    questions: Bucket,
    /// When the last room that nobody else was in was opened, or will have been.
    opened_at: AtomicU64,
}

impl Usage {
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    fn is_idle(&self, now: Micros) -> bool {
        let Self { connections: _, handshakes, publishes, subscribes, new_rooms, questions, .. } = self;
        let Self { opened_at, page_bytes, pages, .. } = self;
        let buckets = [handshakes, publishes, subscribes, new_rooms, questions, pages];
        let full = buckets.iter().all(|it| it.is_full(now));
        let paid = opened_at.load(Ordering::Relaxed) <= now && page_bytes.load(Ordering::Relaxed) == 0;
        full && paid && self.connections() == 0
    }
}

/// A connection's place in a usage, given back when it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Usage>);

impl Seat {
    /// The same for all of one user or address while one of them is here.
    #[must_use]
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(super) fn bucket(&self, charge: Charge) -> &Bucket {
        match charge {
            Charge::Publish => &self.0.publishes,
            Charge::Subscribe => &self.0.subscribes,
            Charge::NewRoom => &self.0.new_rooms,
            Charge::Question => &self.0.questions,
        }
    }
}

impl Seat {
    /// Another room of this user follows its last one after `behind`, or now if that is later: how long until then.
    pub(super) fn space(&self, behind: Micros, now: Micros) -> Micros {
        let behind = behind.min(BEHIND_MAX);
        // Kept is the time and one more: 0 = none was opened, and the first waits for nobody.
        let next = |kept: Micros| match kept.checked_sub(1) {
            None => now,
            Some(last) => last.saturating_add(behind).max(now),
        };
        let opened = &self.0.opened_at;
        let kept = opened.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| Some(next(kept) + 1));
        next(kept.unwrap_or_else(|same| same)) - now
    }

    /// Takes so many bytes of what this user or address may have unread; 0 = no limit. Whoever has nothing may have
    /// any one page.
    pub(super) fn reserve(&self, bytes: u32, bytes_max: u32) -> Option<PageBytes> {
        let before = self.0.page_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Taken first and looked at then: given back when it is dropped here.
        let taken = PageBytes { bytes, of: Arc::clone(&self.0) };
        (bytes_max == 0 || before == 0 || before.saturating_add(bytes) <= bytes_max).then_some(taken)
    }

    /// Bytes of pages that came.
    pub(super) fn pages(&self) -> &Bucket {
        &self.0.pages
    }
}

/// Bytes of a page, until they are taken.
#[derive(Debug)]
pub(super) struct PageBytes {
    bytes: u32,
    of: Arc<Usage>,
}

impl PageBytes {
    fn settle(&mut self, bytes: u32) {
        // Added before the other is taken off: between the two nobody may find more room than there is.
        self.of.page_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.of.page_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for PageBytes {
    fn drop(&mut self) {
        self.of.page_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a page takes of what its user and its address may have unread; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    pub(super) user: Option<PageBytes>,
    pub(super) address: Option<PageBytes>,
}

impl Share {
    /// The page has so many bytes.
    pub fn settle(&mut self, bytes: usize) {
        let bytes = page_size(bytes);
        self.user.iter_mut().chain(&mut self.address).for_each(|taken| taken.settle(bytes));
    }
}

/// A page has a megabyte at most.
pub(super) fn page_size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Usages by user or address.
#[derive(Debug)]
pub struct UsageTable<K>(Mutex<Entries<K>>);

#[derive(Debug)]
struct Entries<K> {
    by_key: HashMap<K, Arc<Usage>>,
    /// How many are swept next.
    sweep_at: usize,
}

impl<K> Default for UsageTable<K> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: HashMap::new(), sweep_at: SWEEP_MIN }))
    }
}

impl<K: Hash + Eq> UsageTable<K> {
    /// A place for one more connection, if `judge` agrees.
    pub(super) fn seat<E>(
        &self,
        key: K,
        now: Micros,
        judge: impl FnOnce(&Usage) -> Result<(), E>,
    ) -> Result<Seat, E> {
        let entries = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.sweep(now);
        let usage = entries.by_key.entry(key).or_default();
        // Judged and counted under one lock: two at once would both take the last place.
        judge(usage)?;
        usage.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Seat(Arc::clone(usage)))
    }

    /// How many connections one has.
    pub(super) fn connections(&self, key: &K) -> u32 {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_key.get(key).map_or(0, |usage| usage.connections())
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }
}

impl<K: Hash + Eq> Entries<K> {
    fn sweep(&mut self, now: Micros) {
        if self.by_key.len() < self.sweep_at {
            return;
        }
        self.by_key.retain(|_, usage| !usage.is_idle(now));
        // After a crowd the table gives back what it took.
        self.by_key.shrink_to(self.by_key.len() * 2);
        self.sweep_at = (self.by_key.len() * 2).max(SWEEP_MIN);
    }
}
