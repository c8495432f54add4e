//! The one clock of a run: monotonic microseconds since it began, the same for clients, faults and samples.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When the run began. Copies are the same clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        // Only to set logs beside records: the wall clock may be set back during a run.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Time since the run began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// When the run began, milliseconds since 1970.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }
}
