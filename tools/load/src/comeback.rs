//! When a client comes back: as it was told, else at random within a window that grows. Pure; chance is an argument.

use std::time::{Duration, Instant};

/// The first window of a connection that was lost without a word, and the longest.
const WINDOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Part of a told `Retry-After` that chance adds: everybody was told the same full seconds.
const RETRY_SPREAD: f64 = 0.5;
/// A `Retry-After` is kept up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Failures since the last connection, and gateways that said when they may be asked again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comeback {
    failures: u32,
    /// By their place; empty for nearly all.
    closed: Vec<(usize, Instant)>,
}

impl Comeback {
    /// There is a connection.
    pub fn connected(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The pause before the next attempt. `told`: by `drain` or `bye`, kept to the millisecond, as the server spreads
    /// its clients itself. `random`: 0 to 1.
    #[must_use]
    pub fn pause(&self, told: Option<Duration>, gateways: usize, random: f64) -> Duration {
        if let Some(told) = told {
            return told;
        }
        let window = WINDOW.0.saturating_mul(1 << self.rounds(gateways).min(16)).min(WINDOW.1);
        // At once the first time; later never so soon that all of a crowd hit the same instant.
        let least = if self.failures == 0 { 0.0 } else { 0.5 };
        window.mul_f64(least + (1.0 - least) * random)
    }

    /// The gateway at this place refused now and is not to be asked again before so many seconds: never sooner, and
    /// later by chance. `random`: 0 to 1.
    pub fn refused(&mut self, gateway: usize, retry_after_s: u64, now: Instant, random: f64) {
        let after = Duration::from_secs(retry_after_s).min(RETRY_AFTER_MAX);
        // What is over goes with it: the list stays as short as there are gateways.
        self.closed.retain(|(place, until)| *place != gateway && *until > now);
        self.closed.push((gateway, now + after.mul_f64(1.0 + RETRY_SPREAD * random)));
    }

    /// The turn of an attempt at `at`, and when: the gateway that may be asked first, that of `turn` when several may.
    #[must_use]
    pub fn choose(&self, turn: usize, gateways: usize, at: Instant) -> (usize, Instant) {
        let opens = |turn: usize| {
            let closed = self.closed.iter().find(|(place, _)| *place == turn % gateways.max(1));
            closed.map_or(at, |(_, until)| at.max(*until))
        };
        let turns = (0..gateways).map(|step| turn + step);
        // Of equals the first: whose turn it is keeps it.
        turns.map(|turn| (turn, opens(turn))).min_by_key(|(_, at)| *at).unwrap_or((turn, at))
    }

    /// How often all gateways have failed.
    fn rounds(&self, gateways: usize) -> u32 {
        self.failures / count(gateways)
    }
}

fn count(gateways: usize) -> u32 {
    u32::try_from(gateways.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_times_are_kept_and_windows_double_once_a_round() {
        let mut comeback = Comeback::default();
        let told = Duration::from_millis(1_234);
        assert_eq!(comeback.pause(Some(told), 2, 0.3), told);
        assert_eq!(comeback.pause(None, 2, 0.0), Duration::ZERO);
        for longest_ms in [100, 100, 200, 200, 400, 400] {
            assert_eq!(comeback.pause(None, 2, 1.0), Duration::from_millis(longest_ms));
            comeback.failed();
        }
        (0..100).for_each(|_| comeback.failed());
        assert_eq!(comeback.pause(None, 2, 1.0), WINDOW.1);
        comeback.connected();
        assert_eq!(comeback.pause(None, 2, 1.0), WINDOW.0);
    }

    #[test]
    fn a_gateway_that_refused_is_left_alone_as_long_as_it_said() {
        let mut comeback = Comeback::default();
        let now = Instant::now();
        let in_s = |s| now + Duration::from_secs(s);
        assert_eq!(comeback.choose(6, 2, now), (6, now));
        comeback.refused(0, 20, now, 0.0);
        assert_eq!(comeback.choose(6, 2, now), (7, now), "the other one, when it is its time");
        comeback.refused(1, 4, now, 1.0);
        assert_eq!(
            comeback.choose(6, 2, now),
            (7, in_s(6)),
            "the one that may be asked first, spread by chance"
        );
        assert_eq!(comeback.choose(6, 2, in_s(20)), (6, in_s(20)));
        comeback.refused(0, 86_400, now, 0.0);
        assert_eq!(comeback.choose(0, 1, now), (0, now + RETRY_AFTER_MAX));
        comeback.refused(1, 1, in_s(500), 0.0);
        assert_eq!(comeback.closed.len(), 1, "what is over is forgotten");
    }
}
