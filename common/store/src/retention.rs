//! How long messages are kept, and the floor no policy may go below.

use std::time::Duration;

/// Shortest time a key is remembered: promise P3, one hour.
pub const DEDUPE_MIN: Duration = Duration::from_secs(3600);
/// `dedupe_min` must be at least this many times the longest retry horizon.
const HORIZONS_MIN: u32 = 10;

/// What to keep. A message goes when `age` *or* `count` lets it go, but never before `dedupe_min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Messages older than this go.
    pub age: Option<Duration>,
    /// Only this many newest messages of a room stay.
    pub count: Option<u64>,
    /// Messages younger than this always stay, so that retries find their keys.
    pub dedupe_min: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: None, count: None, dedupe_min: DEDUPE_MIN }
    }
}

/// A policy that would break a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRetention {
    /// Keys would be forgotten within the promised hour.
    #[error("retention.dedupe_min_s is {}, it must be at least {} (one hour)", .0.as_secs(), DEDUPE_MIN.as_secs())]
    BelowPromise(Duration),
    /// A retry could come after its key was forgotten.
    #[error(
        "retention.dedupe_min_s is {}, it must be at least {HORIZONS_MIN} times the longest retry ({} s)",
        .dedupe_min.as_secs(), .horizon.as_secs()
    )]
    BelowRetries {
        /// The configured `dedupe_min_s`.
        dedupe_min: Duration,
        /// The longest time somebody retries.
        horizon: Duration,
    },
    /// `age` promises less than `dedupe_min` keeps.
    #[error("retention.age_s is {}, below retention.dedupe_min_s {}", .age.as_secs(), .dedupe_min.as_secs())]
    AgeBelowDedupe {
        /// The configured `age_s`.
        age: Duration,
        /// The configured `dedupe_min_s`.
        dedupe_min: Duration,
    },
}

impl Retention {
    /// Checks the relations between these numbers and the longest time somebody retries a publish.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn check(&self, retry_horizon: Duration) -> Result<(), InvalidRetention> {
        let dedupe_min = self.dedupe_min;
        if dedupe_min < DEDUPE_MIN {
            return Err(InvalidRetention::BelowPromise(dedupe_min));
        }
        // A retry that comes after its key was forgotten would be stored twice (B6).
        if dedupe_min < retry_horizon * HORIZONS_MIN {
            return Err(InvalidRetention::BelowRetries { dedupe_min, horizon: retry_horizon });
        }
        match self.age {
            Some(age) if age < dedupe_min => Err(InvalidRetention::AgeBelowDedupe { age, dedupe_min }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: Duration = Duration::from_secs(10);

    #[test]
    fn the_default_holds() {
        assert_eq!(Retention::default().check(HORIZON), Ok(()));
    }

    #[test]
    fn each_relation_is_checked() {
        let hour = DEDUPE_MIN;
        let short = Retention { dedupe_min: hour - Duration::from_secs(1), ..Retention::default() };
        assert!(matches!(short.check(HORIZON), Err(InvalidRetention::BelowPromise(_))));
        let long_retries = Retention::default().check(hour / 9);
        assert!(matches!(long_retries, Err(InvalidRetention::BelowRetries { .. })));
        let young = Retention { age: Some(hour / 2), ..Retention::default() };
        assert!(matches!(young.check(HORIZON), Err(InvalidRetention::AgeBelowDedupe { .. })));
    }
}
