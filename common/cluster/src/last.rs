//! The last of its kind stays for draining gateways: they cannot finish without somebody of that service.
//!
//! Nobody waits for a peer except over an open connection to it: gateways that serve are no reason to stay, nor
//! are those known only from the registry.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::{ClusterView, InstanceState, Service};

/// Who may be the last, and what it looks at; `C` is what it knows of its open connections.
#[derive(Debug)]
pub struct Last<C> {
    /// Which service this process runs.
    pub service: Service,
    /// The instances as the registry has them.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// This process among them.
    pub me: watch::Receiver<InstanceId>,
    /// The peers that hold an open connection.
    pub connections: watch::Receiver<C>,
    /// How long to look whether this process is the last and a gateway drains.
    pub look: Duration,
    /// How long to stay at most, the look included.
    pub stay: Duration,
}

impl<C> Last<C> {
    /// Waits as long as this process is needed: while it is the last and `draining` counts any gateways.
    /// Not at all when `needless` says so, of the connections and of being the last.
    pub async fn stay(self, draining: impl Fn(&C) -> usize, needless: impl Fn(&C, bool) -> bool) {
        let gateways = || draining(&self.connections.borrow());
        let stay = async {
            let is_needed = |connections: &C, alone| alone && draining(connections) > 0;
            let looked = tokio::select! {
                // Needed wins over needless when both hold.
                biased;
                () = self.until(is_needed) => true,
                () = self.until(needless) => false,
                // What draining peers say arrives over open connections; a moment must
                // do.
                () = sleep(self.look) => false,
            };
            if looked {
                tracing::info!(gateways = gateways(), "The last one stays for draining gateways.");
                self.until(|connections, alone| !is_needed(connections, alone)).await;
            }
        };
        if timeout(self.stay, stay).await.is_err() {
            let gateways = gateways();
            tracing::warn!(gateways, "Gateways still drain; stopping all the same.");
        }
    }

    /// Waits until the connections and the fact of being the last satisfy `is`.
    async fn until(&self, is: impl Fn(&C, bool) -> bool) {
        let (mut connections, mut view) = (self.connections.clone(), self.view.clone());
        loop {
            let alone = self.alone(&view.borrow_and_update());
            if is(&connections.borrow_and_update(), alone) {
                return;
            }
            let changed = tokio::select! {
                changed = connections.changed() => changed,
                changed = view.changed() => changed,
            };
            if changed.is_err() {
                // Whoever watched has ended: what is known stays, and the caller's deadline holds.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether no other of the service serves, as far as known.
    fn alone(&self, view: &ClusterView) -> bool {
        !view.others(self.service, &self.me.borrow()).any(|one| one.state == InstanceState::Serving)
    }
}
