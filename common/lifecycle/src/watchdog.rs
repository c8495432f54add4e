//! The watchdog: a plain thread that ends the process when a stop takes longer than it may, also when the
//! runtime is wedged.
//!
//! It takes no lock of the lifecycle and waits for no log: whatever hangs, it does not hang with it.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use crate::lifecycle::Lifecycle;
use crate::report::{counted, numbers};

/// What the watchdog usually gives beyond the total: a busy machine may be late by some timer ticks.
pub const WATCHDOG_MARGIN: Duration = Duration::from_millis(250);

/// How long the last line in the log may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Starts the thread, which lives as long as the process. It sleeps until a stop of `lifecycle` is asked for, and
/// when that takes longer than its total plus `margin`, it ends the process with exit code 1. Nothing disarms it: what
/// comes behind the stop (the last telemetry, dropping a runtime) can hang too. `flush` brings out what the log still
/// holds; it may hang.
///
/// # Errors
/// The system refuses a thread.
pub fn arm_watchdog(lifecycle: &Lifecycle, margin: Duration, flush: fn()) -> io::Result<()> {
    let alarm = lifecycle.alarm();
    let watched = lifecycle.clone();
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        alarm.rings(margin);
        end_process(watched, flush);
    })?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the watchdog is one of the two places that may")]
fn end_process(lifecycle: Lifecycle, flush: fn()) {
    let (said, heard) = sync_channel(1);
    // On a thread of its own: the log, and the locks behind the question who is late, may be what hangs.
    let words = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        let stage = lifecycle.stage();
        tracing::error!(stage = stage.as_str(), "The stop is over its time, the watchdog ends the process");
        tracing::error!(blockers = numbers(lifecycle.blockers().iter().map(counted)), "Who was late");
        flush();
        said.send(()).ok();
    });
    if words.is_ok() {
        // A log that hangs gets this long; the end comes all the same.
        heard.recv_timeout(LAST_WORDS).ok();
    }
    std::process::exit(1);
}
