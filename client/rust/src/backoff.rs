//! How long to wait before coming back: full jitter, so that clients cut off together do not return together. Pure but
//! for the random number.

use std::time::Duration;

use rand::RngExt;

/// The pause before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    /// Window the server asked for; used once.
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

    /// A random part of the window: the server's, else one that doubles each time all `gateways` have failed. One that
    /// refuses says nothing about the next.
    pub(crate) fn pause(&mut self, gateways: usize) -> Duration {
        let rounds = self.failures / u32::try_from(gateways.max(1)).unwrap_or(u32::MAX);
        let grown = self.first.saturating_mul(1 << rounds.min(16)).min(self.longest);
        let window = self.told.take().unwrap_or(grown);
        window.mul_f64(rand::rng().random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_up_to_the_longest_and_the_server_is_heard_once() {
        let mut backoff = Backoff::new((Duration::from_millis(100), Duration::from_secs(1)));
        let longest = |backoff: &mut Backoff| (0..200).map(|_| backoff.pause(1)).max().unwrap();
        assert!(longest(&mut backoff) <= Duration::from_millis(100));
        for _ in 0..40 {
            backoff.failed();
        }
        let most = longest(&mut backoff);
        assert!(most <= Duration::from_secs(1) && most > Duration::from_millis(500), "{most:?}");
        backoff.connected();
        backoff.tell(0);
        assert_eq!(backoff.pause(1), Duration::ZERO);
        assert_eq!(backoff.attempt(), 0);
    }

    #[test]
    fn a_window_doubles_once_a_round_however_many_gateways_are_in_it() {
        let mut backoff = Backoff::new((Duration::from_millis(100), Duration::from_secs(60)));
        for failures in 0..12_u32 {
            let round = Duration::from_millis(100) * (1 << (failures / 3));
            let most = (0..200).map(|_| backoff.pause(3)).max().unwrap();
            assert!(most <= round && most > round / 2, "{most:?} after {failures}");
            backoff.failed();
        }
    }
}
