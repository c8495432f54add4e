//! How long to wait before coming back, each client at another time, so that those cut off together do not return
//! together. Pure but for the random number.

use std::time::Duration;

use rand::RngExt;

/// The pause before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    /// What the server asked for; used once.
    told: Option<Duration>,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, failures: 0, told: None }
    }

    /// The server's wish for the next pause.
    pub(crate) fn tell(&mut self, reconnect_ms: u64) {
        self.told = Some(Duration::from_millis(reconnect_ms));
    }

    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
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
