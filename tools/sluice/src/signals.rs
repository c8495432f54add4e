//! The signals that ask a verb to end. Once installed they never kill: a second one changes nothing.

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals([Signal; 4]);

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        let [term, int, quit, hup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()]
                .map(signal);
        Ok(Self([term?, int?, quit?, hup?]))
    }

    /// Returns when one has come. Cancel-safe.
    pub(crate) async fn asked(&mut self) {
        let [term, int, quit, hup] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = quit.recv() => {}
            _ = hup.recv() => {}
        }
    }
}
