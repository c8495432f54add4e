//! When a JWK set is fetched: regularly, soon again after a failure, and when somebody asks, but not more often than the
//! provider should have to bear. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::defaults::{JWKS_AGAIN, JWKS_AGAIN_MAX, JWKS_ASKED_EVERY};

#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    due: Instant,
    /// The last time that somebody was given what they asked for.
    asked: Option<Instant>,
    /// After the next failure.
    again: Duration,
}

impl Schedule {
    pub(super) fn new(refresh: Duration, now: Instant) -> Self {
        Self { refresh, due: now, asked: None, again: JWKS_AGAIN }
    }

    /// When it is fetched unless somebody asks.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// From when on asking has an effect; `None`: now.
    pub(super) fn asked_from(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + JWKS_ASKED_EVERY)
    }

    /// Somebody asks. `true`: it is fetched now.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        if self.asked_from().is_some_and(|from| now < from) {
            return false;
        }
        self.asked = Some(now);
        true
    }

    /// A fetch has ended. `chance`, 0…1, spreads the logics, which were started together.
    pub(super) fn ended(&mut self, now: Instant, good: bool, chance: f64) {
        let pause = if good {
            self.again = JWKS_AGAIN;
            self.refresh
        } else {
            let pause = self.again.min(self.refresh);
            self.again = (self.again * 2).min(JWKS_AGAIN_MAX);
            pause
        };
        self.due = now + pause.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 10.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(300);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_due_at_once_then_regularly_and_soon_after_a_failure() {
        let began = Instant::now();
        let mut schedule = Schedule::new(REFRESH, began);
        assert_eq!(schedule.due(), began);
        // Good or not, and the pause after it.
        for (good, pause) in [
            (false, 1),
            (false, 2),
            (false, 4),
            (false, 8),
            (false, 10),
            (false, 10),
            (true, 300),
            (false, 1),
            (true, 300),
        ] {
            schedule.ended(began, good, 0.0);
            assert_eq!(schedule.due(), began + secs(pause));
        }
        schedule.ended(began, true, 1.0);
        assert_eq!(schedule.due(), began + secs(270), "a tenth earlier at most");
        let mut often = Schedule::new(secs(2), began);
        (0..5).for_each(|_| often.ended(began, false, 0.0));
        assert_eq!(often.due(), began + secs(2), "a failure makes nothing slower than it was to be");
    }

    #[test]
    fn who_asks_is_heard_once_in_ten_seconds_whatever_came_by_itself() {
        let began = Instant::now();
        let mut schedule = Schedule::new(REFRESH, began);
        schedule.ended(began, true, 0.0);
        for (after, heard) in [(1, true), (2, false), (10, false), (11, true), (20, false), (30, true)] {
            assert_eq!(schedule.ask(began + secs(after)), heard, "after {after} s");
        }
        assert_eq!(schedule.asked_from(), Some(began + secs(40)));
    }
}
