//! How long to wait before coming back, each client at another time, so that those cut off together do not return
//! together. Pure but for the random number.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::defaults::{RETRY_AFTER_MAX, RETRY_AFTER_SPREAD};

/// The pause before the next attempt, and where that goes.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    /// What the server asked for; used once.
    told: Option<Duration>,
    /// Gateways that refused and said for how long, by URL.
    closed: HashMap<String, Instant>,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, failures: 0, told: None, closed: HashMap::new() }
    }

    /// The server's wish for the next pause.
    pub(crate) fn tell(&mut self, reconnect_ms: u64) {
        self.told = Some(Duration::from_millis(reconnect_ms));
    }

    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// This gateway refused, and is not to be asked again before `after`: never sooner, and later by chance, as all that
    /// came together were told the same full seconds.
    pub(crate) fn refused(&mut self, url: &str, after: Duration) {
        let spread = 1.0 + RETRY_AFTER_SPREAD * rand::rng().random_range(0.0..=1.0);
        // Bounded: what stands before a gateway may say anything, a day too.
        let until = Instant::now() + after.min(RETRY_AFTER_MAX).mul_f64(spread);
        self.closed.insert(url.to_owned(), until);
    }

    /// Where an attempt at `at` goes, and when: to the gateway that may be asked first, that of `next` when several may.
    pub(crate) fn choose(&mut self, urls: &[String], next: usize, at: Instant) -> (usize, Instant) {
        let now = Instant::now();
        // Of gateways that are no longer in the list nothing has to be remembered.
        self.closed.retain(|url, until| *until > now && urls.contains(url));
        let opens =
            |place: usize| self.closed.get(&urls[place % urls.len()]).map_or(at, |until| at.max(*until));
        let places = (0..urls.len()).map(|step| next.wrapping_add(step));
        places.map(|place| (place, opens(place))).min_by_key(|(_, at)| *at).unwrap_or((next, at))
    }

    pub(crate) fn connected(&mut self) {
        self.failures = 0;
        self.told = None;
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.failures
    }

    /// As long as the server asked for: it spreads its clients itself, and knows when somebody will be there for them.
    /// Else at random within a window that doubles each time all `gateways` have failed; one that refuses says nothing
    /// about the next. After a failure in its second half: a few short pauses in a row would make the next one long.
    pub(crate) fn pause(&mut self, gateways: usize) -> Duration {
        if let Some(told) = self.told.take() {
            return told;
        }
        // A round goes past all gateways: one that refuses says nothing about the next.
        let rounds = self.failures / u32::try_from(gateways.max(1)).unwrap_or(u32::MAX);
        let window = self.first.saturating_mul(1 << rounds.min(16)).min(self.longest);
        let least = if self.failures == 0 { 0.0 } else { 0.5 };
        window.mul_f64(rand::rng().random_range(least..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    /// The shortest and the longest of many.
    fn pauses(backoff: &mut Backoff, gateways: usize) -> (Duration, Duration) {
        let some: Vec<Duration> = (0..200).map(|_| backoff.pause(gateways)).collect();
        (some.iter().min().copied().unwrap_or_default(), some.iter().max().copied().unwrap_or_default())
    }

    #[test]
    fn windows_double_up_to_the_longest_and_the_server_is_heard_once() {
        let longest = Duration::from_secs(1);
        let mut backoff = Backoff::new((FIRST, longest));
        let (least, most) = pauses(&mut backoff, 1);
        assert!(least < FIRST / 4 && most <= FIRST, "{least:?} to {most:?}");
        for _ in 0..40 {
            backoff.failed();
        }
        let (least, most) = pauses(&mut backoff, 1);
        assert!(least >= longest / 2 && most > longest * 3 / 4 && most <= longest, "{least:?} to {most:?}");
        backoff.connected();
        backoff.tell(7_000);
        assert_eq!(backoff.pause(1), Duration::from_secs(7), "not a part of it");
        assert!(backoff.pause(1) <= FIRST);
        assert_eq!(backoff.attempt(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_refused_is_left_alone_as_long_as_it_said() {
        let urls = ["a".to_owned(), "b".to_owned()];
        let mut backoff = Backoff::new((FIRST, FIRST));
        let soon = Instant::now() + FIRST;
        assert_eq!(backoff.choose(&urls, 0, soon), (0, soon));
        backoff.refused("a", Duration::from_secs(20));
        assert_eq!(backoff.choose(&urls, 0, soon), (1, soon), "the other one, when it is its time");
        backoff.refused("b", Duration::from_secs(2));
        let (place, at) = backoff.choose(&urls, 0, soon);
        let waits = at - Instant::now();
        assert_eq!(place, 1, "the one that may be asked first");
        assert!(waits >= Duration::from_secs(2) && waits <= Duration::from_secs(3), "{waits:?}");
        let late = Instant::now() + Duration::from_secs(60);
        assert_eq!(backoff.choose(&urls, 0, late), (0, late));
        backoff.refused("a", Duration::from_secs(86_400));
        let (_, at) = backoff.choose(&urls[..1], 0, soon);
        assert!(at - Instant::now() <= RETRY_AFTER_MAX.mul_f64(1.0 + RETRY_AFTER_SPREAD), "bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_the_same_comes_at_another_time() {
        let mut backoff = Backoff::new((FIRST, FIRST));
        let urls = ["a".to_owned()];
        let mut waits = Vec::new();
        for _ in 0..200 {
            backoff.refused("a", Duration::from_secs(4));
            waits.push(backoff.choose(&urls, 0, Instant::now()).1 - Instant::now());
        }
        waits.sort();
        assert!(waits[0] >= Duration::from_secs(4), "never sooner: {waits:?}");
        assert!(waits[199] - waits[0] > Duration::from_secs(1), "{waits:?}");
    }

    #[test]
    fn a_window_doubles_once_a_round_however_many_gateways_are_in_it() {
        let mut backoff = Backoff::new((FIRST, Duration::from_secs(60)));
        for failures in 0..12_u32 {
            let window = FIRST * (1 << (failures / 3));
            let (_, most) = pauses(&mut backoff, 3);
            assert!(most <= window && most > window * 3 / 4, "{most:?} after {failures}");
            backoff.failed();
        }
    }
}
