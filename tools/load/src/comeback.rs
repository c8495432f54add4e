//! When a client comes back: as it was told, else at random within a window that grows. Pure; chance is an argument.

use std::time::Duration;

/// The first window of a connection that was lost without a word, and the longest.
const WINDOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Part of a told `Retry-After` by which clients differ: everybody was told the same full seconds.
const RETRY_SPREAD: f64 = 0.5;

/// Failures since the last connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comeback {
    failures: u32,
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
    pub fn pause(self, told: Option<Duration>, gateways: usize, random: f64) -> Duration {
        if let Some(told) = told {
            return told;
        }
        let window = WINDOW.0.saturating_mul(1 << self.rounds(gateways).min(16)).min(WINDOW.1);
        let least = if self.failures == 0 { 0.0 } else { 0.5 };
        window.mul_f64(least + (1.0 - least) * random)
    }

    /// The same after a refusal. One gateway that refuses says nothing about the next: what it asks for is kept once
    /// all have failed.
    #[must_use]
    pub fn pause_after_refusal(self, retry_after_s: Option<u64>, gateways: usize, random: f64) -> Duration {
        match retry_after_s {
            Some(s) if self.failures > 0 && self.failures.is_multiple_of(count(gateways)) => {
                Duration::from_secs(s).mul_f64(1.0 + RETRY_SPREAD * random)
            }
            _ => self.pause(None, gateways, random),
        }
    }

    /// How often all gateways have failed.
    fn rounds(self, gateways: usize) -> u32 {
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
    fn retry_after_is_kept_once_every_gateway_has_refused() {
        let mut comeback = Comeback::default();
        comeback.failed();
        assert!(comeback.pause_after_refusal(Some(5), 2, 1.0) < Duration::from_secs(1), "try the other one");
        comeback.failed();
        assert_eq!(comeback.pause_after_refusal(Some(4), 2, 0.0), Duration::from_secs(4));
        assert_eq!(comeback.pause_after_refusal(Some(4), 2, 1.0), Duration::from_secs(6));
    }
}
