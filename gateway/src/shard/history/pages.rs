//! Pages that are asked for, and who waits for each: one read serves everybody who asked before it began. Who asks later
//! waits for the next one, as a page must hold what its asker knows to be stored. Pure.

use std::collections::{HashMap, VecDeque};

use sluice_proto::ids::{RoomId, UserId};
use sluice_proto::wire::codec::HistoryRange;

use crate::fair_queue::FairQueue;

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub(super) room: RoomId,
    pub(super) range: HistoryRange,
    pub(super) limit: u32,
}

/// Numbers the reads of a page: a waiter knows by it whether the one under way is for it.
pub(super) type Round = u64;

/// The pages that somebody waits for. `W` is a waiter, `C` the call of a read.
#[derive(Debug)]
pub(super) struct Pages<W, C> {
    by_key: HashMap<PageKey, Page<W, C>>,
    /// Pages that somebody waits for and nobody reads, by the user who asked first.
    ready: FairQueue<UserId, PageKey>,
    last_round: Round,
}

#[derive(Debug)]
struct Page<W, C> {
    /// Who came since the last read began, with those who left.
    next: VecDeque<(UserId, W)>,
    round: Round,
    /// Of `next`, those who are still here.
    next_here: usize,
    read: Option<Read<W, C>>,
}

#[derive(Debug)]
struct Read<W, C> {
    round: Round,
    waiters: Vec<W>,
    here: usize,
    call: Option<C>,
}

/// What became of a read when one of its waiters left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left<C> {
    /// Others wait for it, or it had not begun.
    Others,
    /// Nobody waits for it any more: end it.
    Nobody(Option<C>),
}

impl<W, C> Default for Pages<W, C> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), ready: FairQueue::new(1), last_round: 0 }
    }
}

impl<W: Copy, C> Pages<W, C> {
    /// Waits for the next read of a page; says which one that is, and whether others wait for it already.
    pub(super) fn join(&mut self, user: &UserId, key: &PageKey, waiter: W) -> (Round, bool) {
        let page = self.by_key.entry(key.clone()).or_insert_with(|| {
            self.last_round += 1;
            Page { next: VecDeque::new(), round: self.last_round, next_here: 0, read: None }
        });
        let others = page.next_here > 0;
        // While it is read it has no turn: the end of the read gives it the next one.
        if page.next.is_empty() && page.read.is_none() {
            self.ready.push(user.clone(), key.clone());
        }
        page.next.push_back((user.clone(), waiter));
        page.next_here += 1;
        (page.round, others)
    }

    /// The page whose turn it is.
    pub(super) fn pop(&mut self) -> Option<PageKey> {
        loop {
            let key = self.ready.pop()?;
            // Everybody may have left meanwhile, and others may have come and begun.
            if self.by_key.get(&key).is_some_and(|page| page.read.is_none()) {
                return Some(key);
            }
        }
    }

    /// Not its turn after all.
    pub(super) fn put_back(&mut self, key: PageKey) {
        if let Some((user, _)) = self.by_key.get(&key).and_then(|page| page.next.front()) {
            self.ready.push(user.clone(), key);
        }
    }

    /// How many wait for their turn.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the first of those who wait for the next read, if `is_late`; those who came first are late first.
    pub(super) fn take_late(&mut self, key: &PageKey, is_late: impl FnOnce(W) -> bool) -> Option<W> {
        let page = self.by_key.get_mut(key)?;
        let (_, late) = page.next.pop_front_if(|(_, waiter)| is_late(*waiter))?;
        Some(late)
    }

    /// A read of this page begins, for all who wait. `false` = nobody does.
    pub(super) fn begin(&mut self, key: &PageKey) -> bool {
        let Some(page) = self.by_key.get_mut(key) else { return false };
        if page.next_here == 0 {
            self.by_key.remove(key);
            return false;
        }
        // Who comes from here on waits for the next read: this one may not see what they know to be stored.
        let waiters = page.next.drain(..).map(|(_, waiter)| waiter).collect();
        page.read = Some(Read { round: page.round, waiters, here: page.next_here, call: None });
        page.next_here = 0;
        self.last_round += 1;
        page.round = self.last_round;
        true
    }

    /// Keeps the call of the read that began.
    pub(super) fn called(&mut self, key: &PageKey, call: Option<C>) {
        if let Some(read) = self.by_key.get_mut(key).and_then(|page| page.read.as_mut()) {
            read.call = call;
        }
    }

    /// The read of a page has ended: who waited for it, in order.
    pub(super) fn end(&mut self, key: &PageKey) -> Vec<W> {
        let read = self.by_key.get_mut(key).and_then(|page| page.read.take());
        self.go_on(key);
        read.map_or_else(Vec::new, |read| read.waiters)
    }

    /// One that waits, or waited, for this round leaves.
    pub(super) fn leave(&mut self, key: &PageKey, round: Round) -> Left<C> {
        let Some(page) = self.by_key.get_mut(key) else { return Left::Others };
        if let Some(read) = page.read.as_mut().filter(|read| read.round == round) {
            read.here -= 1;
            if read.here > 0 {
                return Left::Others;
            }
            let call = page.read.take().and_then(|read| read.call);
            self.go_on(key);
            return Left::Nobody(call);
        }
        if page.round == round {
            page.next_here -= 1;
            if page.next_here == 0 {
                // Only now: to look for each who left among thousands would cost more than to keep them.
                page.next.clear();
                if page.read.is_none() {
                    self.by_key.remove(key);
                }
            }
        }
        Left::Others
    }

    /// After a read the page waits for its turn again, if somebody waits for it.
    fn go_on(&mut self, key: &PageKey) {
        let Some(page) = self.by_key.get(key) else { return };
        match page.next.front() {
            Some((user, _)) => self.ready.push(user.clone(), key.clone()),
            None => drop(self.by_key.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(limit: u32) -> PageKey {
        PageKey { room: RoomId::parse("news").unwrap(), range: HistoryRange::Newest, limit }
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn all_who_came_before_a_read_get_it_and_who_comes_later_the_next() {
        let mut pages = Pages::<u32, ()>::default();
        assert!(!pages.join(&user("ann"), &key(1), 1).1);
        assert!(pages.join(&user("bob"), &key(1), 2).1);
        assert_eq!(pages.pop(), Some(key(1)));
        assert!(pages.begin(&key(1)));
        let (later, others) = pages.join(&user("cid"), &key(1), 3);
        assert_eq!((others, pages.pop()), (false, None), "one read of a page at a time");
        assert_eq!(pages.end(&key(1)), [1, 2]);
        assert_eq!(pages.pop(), Some(key(1)));
        assert!(pages.begin(&key(1)));
        assert_eq!(pages.leave(&key(1), later), Left::Nobody(None));
        assert!(pages.by_key.is_empty() && pages.pop().is_none());
    }

    #[test]
    fn a_read_ends_with_the_last_of_its_waiters() {
        let mut pages = Pages::<u32, &str>::default();
        let first = pages.join(&user("ann"), &key(1), 1).0;
        pages.join(&user("bob"), &key(1), 2);
        pages.pop().unwrap();
        assert!(pages.begin(&key(1)));
        pages.called(&key(1), Some("call"));
        let next = pages.join(&user("cid"), &key(1), 3).0;
        assert_eq!(pages.leave(&key(1), first), Left::Others);
        assert_eq!(pages.leave(&key(1), first), Left::Nobody(Some("call")));
        assert_eq!(pages.pop(), Some(key(1)), "another one waits");
        assert_eq!(pages.leave(&key(1), next), Left::Others);
        assert!(!pages.begin(&key(1)) && pages.by_key.is_empty());
    }

    #[test]
    fn users_have_their_turns_whatever_one_asks_for() {
        let mut pages = Pages::<u32, ()>::default();
        for limit in 1..=100 {
            pages.join(&user("loud"), &key(limit), limit);
        }
        pages.join(&user("quiet"), &key(200), 200);
        assert_eq!([pages.pop(), pages.pop()], [Some(key(1)), Some(key(200))]);
    }

    #[test]
    fn those_who_came_first_are_late_first() {
        let mut pages = Pages::<u32, ()>::default();
        let round = pages.join(&user("ann"), &key(1), 1).0;
        pages.join(&user("bob"), &key(1), 2);
        let late = pages.take_late(&key(1), |waiter| waiter < 2);
        assert_eq!(late, Some(1));
        pages.leave(&key(1), round);
        assert_eq!(pages.take_late(&key(1), |waiter| waiter < 2), None);
        pages.pop().unwrap();
        assert!(pages.begin(&key(1)));
        assert_eq!(pages.end(&key(1)), [2]);
    }
}
