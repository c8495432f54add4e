//! Signals: the first act of `main`. SIGTERM, SIGINT and SIGQUIT ask for a stop; a second one is ignored.
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

struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Handlers {
    fn install() -> io::Result<Handlers> {
        Ok(Handlers {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// The life of the signal thread.
fn listen(installed: &SyncSender<io::Result<()>>, lifecycle: oneshot::Receiver<Lifecycle>) {
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
