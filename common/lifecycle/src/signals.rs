//! Signals: the first act of `main`. SIGTERM, SIGINT, SIGQUIT and SIGHUP ask for a stop; a second one is ignored.
//!
//! They are heard on a thread of their own, so that a wedged runtime does not keep the stop, and with it the
//! watchdog, from beginning. Nothing here ends the process.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::lifecycle::Lifecycle;
use crate::report::StopReason;

/// Installed handlers, waiting for the [`Lifecycle`] they are to stop.
#[must_use = "a signal is kept, but nothing stops before drive"]
pub struct Signals {
    driven: oneshot::Sender<Lifecycle>,
}

impl Signals {
    /// Installs the handlers. From here on the default action of these signals is off for the life of the process;
    /// one that comes before [`drive`](Signals::drive) is kept. Needs no runtime.
    ///
    /// # Errors
    /// The system refuses a thread or a handler: give up, the process could not be stopped properly.
    pub fn install() -> io::Result<Signals> {
        let (driven, lifecycle) = oneshot::channel();
        // The caller must not go on before the handlers are there: as PID 1 an early SIGTERM would
        // be lost.
        let (installed, result) = sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || listen(&installed, lifecycle))?;
        result.recv().map_err(|_| io::Error::other("the signal thread died"))??;
        Ok(Signals { driven })
    }

    /// From here on a signal stops `lifecycle`; one that came before stops it at once.
    pub fn drive(self, lifecycle: &Lifecycle) {
        // The thread waits for exactly this; were it gone, install would have failed.
        let _sent = self.driven.send(lifecycle.clone());
    }
}

/// Whether whoever started this process wants it to outlive the terminal (`nohup`): then SIGHUP must stay ignored.
/// Known where there is `/proc`, and only before a handler was installed.
pub fn hangup_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1, SIGHUP.
    mask.is_some_and(|mask| mask & 1 == 1)
}

struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// None where it was ignored at the start.
    hangup: Option<Signal>,
}

impl Handlers {
    fn install() -> io::Result<Handlers> {
        Ok(Handlers {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            () = hangup => "SIGHUP",
        }
    }
}

/// The life of the signal thread.
fn listen(installed: &SyncSender<io::Result<()>>, lifecycle: oneshot::Receiver<Lifecycle>) {
    // A runtime of its own: the main one may be wedged when a signal comes.
    let runtime = match Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(installed.send(Err(error))),
    };
    runtime.block_on(async {
        let mut handlers = match Handlers::install() {
            Ok(handlers) => handlers,
            Err(error) => return drop(installed.send(Err(error))),
        };
        if installed.send(Ok(())).is_err() {
            return;
        }
        // A signal that came meanwhile is kept by its handler and read below.
        let Ok(lifecycle) = lifecycle.await else { return };
        let over = lifecycle.over();
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                name = handlers.next() => drop(lifecycle.stop(StopReason::Signal(name))),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_the_system_says_whether_the_terminal_matters() {
        let status =
            |mask: &str| format!("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert!(ignores_hangup(&status("0000000000000001")) && ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")) && !ignores_hangup(&status("")));
        assert!(!ignores_hangup("Name:\tx\n"));
    }
}
