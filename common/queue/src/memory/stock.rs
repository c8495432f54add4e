//! What the queue holds: which notices wait, which are in somebody's hands and until when. Pure: time is an
//! argument, nothing waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{ACK_WAIT, MAX_AGE};

/// What a notice costs beside its bytes, so that empty ones are bounded too.
const OVERHEAD_BYTES: usize = 64;

#[derive(Debug)]
pub(super) struct Stock {
    bytes_max: usize,
    bytes: usize,
    next: u64,
    /// All that are not done, by number.
    notices: BTreeMap<u64, StockedNotice>,
    /// Those in nobody's hands.
    waiting: BTreeSet<u64>,
    /// When those handed out come back, in order; some are done meanwhile.
    in_hand: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct StockedNotice {
    payload: Bytes,
    published: Instant,
}

fn cost(payload: &Bytes) -> usize {
    payload.len() + OVERHEAD_BYTES
}

impl Stock {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            next: 0,
            notices: BTreeMap::new(),
            waiting: BTreeSet::new(),
            in_hand: VecDeque::new(),
        }
    }

    /// Takes a notice in, the oldest go for it. False: it alone is too large.
    pub(super) fn put(&mut self, payload: Bytes, now: Instant) -> bool {
        // Or it would push out everything and still not fit.
        if cost(&payload) > self.bytes_max {
            return false;
        }
        self.bytes += cost(&payload);
        // The oldest go, as in JetStream with `discard: old`.
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.oldest() else { break };
            self.remove(oldest);
        }
        self.notices.insert(self.next, StockedNotice { payload, published: now });
        self.waiting.insert(self.next);
        self.next += 1;
        true
    }

    /// Hands out the first that waits, or says before when none comes back: one that is handed out after this
    /// has its time before it.
    pub(super) fn take(&mut self, now: Instant) -> Result<(u64, Bytes), Instant> {
        self.pass(now);
        let first = self.waiting.pop_first();
        let Some((number, notice)) = first.and_then(|number| Some((number, self.notices.get(&number)?)))
        else {
            return Err(self.in_hand.front().map_or(now + ACK_WAIT, |(due, _)| *due));
        };
        self.in_hand.push_back((now + ACK_WAIT, number));
        Ok((number, notice.payload.clone()))
    }

    pub(super) fn len(&self) -> usize {
        self.notices.len()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// It is done, in whosever hands it is.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(notice) = self.notices.remove(&number) {
            self.bytes -= cost(&notice.payload);
            self.waiting.remove(&number);
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.notices.clear();
        self.waiting.clear();
        self.in_hand.clear();
    }

    /// What was not acknowledged in time waits again; what is too old goes.
    fn pass(&mut self, now: Instant) {
        while self.in_hand.front().is_some_and(|(due, _)| *due <= now) {
            // In order, as all wait equally long.
            let back = self.in_hand.pop_front().map(|(_, number)| number);
            self.waiting.extend(back.filter(|number| self.notices.contains_key(number)));
        }
        let too_old = |notice: &StockedNotice| now.duration_since(notice.published) >= MAX_AGE;
        while let Some(oldest) = self.oldest().filter(|number| self.notices.get(number).is_some_and(too_old))
        {
            self.remove(oldest);
        }
        // Acknowledged at once, as most are, they need not be remembered until they would have come back.
        while self.in_hand.front().is_some_and(|(_, number)| !self.notices.contains_key(number)) {
            self.in_hand.pop_front();
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.notices.first_key_value().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all(stock: &mut Stock, now: Instant) -> Vec<Bytes> {
        std::iter::from_fn(|| stock.take(now).ok()).map(|(_, payload)| payload).collect()
    }

    #[test]
    fn beyond_the_bound_the_oldest_go() {
        let now = Instant::now();
        let mut stock = Stock::new(3 * (OVERHEAD_BYTES + 1));
        for payload in ["a", "b", "c", "d"] {
            assert!(stock.put(payload.into(), now));
        }
        assert_eq!(all(&mut stock, now), ["b", "c", "d"]);
        assert!(!stock.put(vec![0; 3 * OVERHEAD_BYTES].into(), now), "alone too large");
        // Also out of somebody's hands: it does not come back.
        assert!(stock.put("e".into(), now));
        assert_eq!(all(&mut stock, now + 2 * SECOND), ["c", "d", "e"]);
    }

    #[test]
    fn bytes_are_given_back_and_what_is_too_old_goes() {
        let now = Instant::now();
        let mut stock = Stock::new(1_000);
        for _ in 0..100 {
            assert!(stock.put(vec![0; 900].into(), now));
            let (number, _) = stock.take(now).expect("it is there");
            stock.remove(number);
            stock.remove(number);
        }
        assert_eq!((stock.bytes, stock.notices.len()), (0, 0));
        assert!(stock.take(now).is_err() && stock.in_hand.is_empty(), "nothing gathers");
        assert!(stock.put("old".into(), now));
        assert!(stock.take(now + MAX_AGE).is_err());
        assert_eq!(stock.bytes, 0);
    }
}
