//! What the watchdog waits for: a stop that is over its time, in real time.
//!
//! A lock that nothing else takes, so that whatever hangs, the alarm does not hang with it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the watchdog waits for.
#[derive(Default)]
pub(crate) struct Alarm {
    state: Mutex<AlarmState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
enum AlarmState {
    #[default]
    Idle,
    /// A stop began at that instant and may take that long.
    Running(Instant, Duration),
}

impl Alarm {
    /// A stop begins and may take `total`.
    pub(crate) fn start(&self, total: Duration) {
        let mut state = self.state();
        // The first request counts: a second one must not give more time.
        if matches!(*state, AlarmState::Idle) {
            *state = AlarmState::Running(Instant::now(), total);
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a stop is over its time by `margin`.
    pub(crate) fn rings(&self, margin: Duration) {
        let mut state = self.state();
        loop {
            // A loop, as a condition variable may wake for nothing.
            state = match *state {
                AlarmState::Idle => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                AlarmState::Running(since, total) => {
                    let left = total.saturating_add(margin).saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;

    #[test]
    fn it_rings_when_a_stop_is_over_its_time_and_not_before() {
        let alarm = Arc::new(Alarm::default());
        let (ringing, rang) = sync_channel(1);
        let watching = Arc::clone(&alarm);
        thread::spawn(move || {
            watching.rings(Duration::from_millis(20));
            ringing.send(())
        });
        assert!(rang.recv_timeout(Duration::from_millis(50)).is_err(), "no stop was asked for");
        let since = Instant::now();
        alarm.start(Duration::from_millis(30));
        rang.recv().unwrap();
        assert!(since.elapsed() >= Duration::from_millis(50));
    }
}
