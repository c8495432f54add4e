//! The wall clock as an argument. Never used to measure a span: that is the runtime's clock.

pub mod skew;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, from the system or from a test.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still at `now_ms` until [`Clock::set_ms`] moves it. Clones share it.
    #[must_use]
    pub fn manual(now_ms: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Some(manual) => manual.load(Ordering::Relaxed),
            None => system_ms(),
        }
    }

    /// Moves a manual clock; the system's clock is left alone.
    pub fn set_ms(&self, now_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.store(now_ms, Ordering::Relaxed);
        }
    }
}

/// A clock set before 1970 counts as 1970.
fn system_ms() -> i64 {
    // Zero rather than a panic: machines start with a clock of 1970 and get the time later.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ms)", self.now_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(5);
        let other = clock.clone();
        other.set_ms(9);
        assert_eq!(clock.now_ms(), 9);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        let clock = Clock::system();
        clock.set_ms(0);
        assert!(clock.now_ms() > 1_577_836_800_000);
    }
}
