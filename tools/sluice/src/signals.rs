//! The signals that ask a verb to end. Once installed they never kill: a second one changes nothing.

use sluice_lifecycle::hangup_is_ignored;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    asking: [Signal; 3],
    /// None where whoever started this wants it to outlive the terminal.
    hangup: Option<Signal>,
}

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        let ignored = hangup_is_ignored();
        let [term, int, quit] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        let hangup = if ignored { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { asking: [term?, int?, quit?], hangup })
    }

    /// Returns when one has come. Cancel-safe.
    pub(crate) async fn asked(&mut self) {
        let Self { asking: [term, int, quit], hangup } = self;
        let hangup = async {
            match hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = quit.recv() => {}
            () = hangup => {}
        }
    }
}
