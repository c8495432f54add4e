//! The watchdog: a plain thread that ends the process when a stop takes longer than it may, also when the
//! runtime is wedged.
//!
//! It takes no lock of the lifecycle and waits for no log: whatever hangs, it does not hang with it.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::lifecycle::Lifecycle;
use crate::report::list;

/// What the watchdog usually gives beyond the total: a busy machine may be late by some timer ticks.
pub const WATCHDOG_MARGIN: Duration = Duration::from_millis(250);

/// How long the last line in the log may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Ends the process with exit code 1 when a stop is over its time.
///
/// Not disarmed when dropped: what comes behind the stop (the last telemetry, dropping a runtime) can hang too. The
/// end of the process, or [`dismiss`](Watchdog::dismiss), is the end of it.
pub struct Watchdog {
    alarm: Arc<Alarm>,
}

impl Watchdog {
    /// Starts the thread. It sleeps until a stop of `lifecycle` is asked for and then gives it its total plus `margin`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn arm(lifecycle: &Lifecycle, margin: Duration) -> io::Result<Watchdog> {
        let alarm = lifecycle.alarm();
        let watched = lifecycle.clone();
        let thread = Arc::clone(&alarm);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if thread.rings(margin) {
                end_process(watched);
            }
        })?;
        Ok(Watchdog { alarm })
    }

    /// Sends the watchdog home.
    pub fn dismiss(self) {
        self.alarm.set(AlarmState::Dismissed);
    }
}

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
    Dismissed,
}

impl Alarm {
    /// A stop begins and may take `total`.
    pub(crate) fn start(&self, total: Duration) {
        let mut state = self.state();
        if matches!(*state, AlarmState::Idle) {
            *state = AlarmState::Running(Instant::now(), total);
            self.changed.notify_all();
        }
    }

    fn set(&self, state: AlarmState) {
        *self.state() = state;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits: true when a stop was over its time by `margin`, false when dismissed.
    fn rings(&self, margin: Duration) -> bool {
        let mut state = self.state();
        loop {
            state = match *state {
                AlarmState::Dismissed => return false,
                AlarmState::Idle => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                AlarmState::Running(since, total) => {
                    let left = total.saturating_add(margin).saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return true;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the watchdog is one of the two places that may")]
fn end_process(lifecycle: Lifecycle) {
    let (said, heard) = sync_channel(1);
    // On a thread of its own: the log, and the locks behind the question who is late, may be what hangs.
    let words = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        let stage = lifecycle.stage();
        tracing::error!(stage = stage.as_str(), "The stop is over its time, the watchdog ends the process");
        tracing::error!(blockers = list(lifecycle.blockers()), "Who was late");
        said.send(()).ok();
    });
    if words.is_ok() {
        heard.recv_timeout(LAST_WORDS).ok();
    }
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_when_a_stop_is_over_its_time_and_not_before() {
        let alarm = Arc::new(Alarm::default());
        let (ringing, rang) = sync_channel(1);
        let watching = Arc::clone(&alarm);
        thread::spawn(move || ringing.send(watching.rings(Duration::from_millis(20))));
        assert!(rang.recv_timeout(Duration::from_millis(50)).is_err(), "no stop was asked for");
        let since = Instant::now();
        alarm.start(Duration::from_millis(30));
        assert!(rang.recv().unwrap());
        assert!(since.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn dismissed_it_stays_silent_also_during_a_stop() {
        let alarm = Arc::new(Alarm::default());
        alarm.start(Duration::from_secs(3600));
        let watching = Arc::clone(&alarm);
        let thread = thread::spawn(move || watching.rings(Duration::ZERO));
        alarm.set(AlarmState::Dismissed);
        assert!(!thread.join().unwrap());
        alarm.start(Duration::ZERO);
        assert!(!alarm.rings(Duration::ZERO), "a stop does not call it back");
    }
}
