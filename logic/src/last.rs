//! The last logic stays for draining gateways: they are finishing publishes that nobody else can commit.
//!
//! Nobody waits for a peer except over an open connection to it: gateways that serve are no reason to stay
//! (they hold their publishes for the replacement), nor are those known only from the registry.

use std::sync::Arc;

use sluice_cluster::{Service, State, View};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::peers::{Connections, PeerState, Peers};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::defaults::{LAST_LOOK, LAST_STAY};

/// Waits as long as this logic is needed; not at all when nobody is connected, [`LAST_LOOK`] when it is not.
pub async fn stay(peers: &Peers, view: watch::Receiver<Arc<View>>, me: watch::Receiver<InstanceId>) {
    let stay = async {
        let needed = until(peers, &view, &me, |connections, alone| alone && drains(connections));
        let nobody = until(peers, &view, &me, |connections, _| !connections.values().any(may_be_gateway));
        let looked = tokio::select! {
            biased;
            () = needed => true,
            () = nobody => false,
            () = tokio::time::sleep(LAST_LOOK) => false,
        };
        if looked {
            tracing::info!(connections = peers.draining(), "The last logic stays for draining gateways.");
            until(peers, &view, &me, |connections, alone| !(alone && drains(connections))).await;
        }
    };
    if timeout(LAST_STAY, stay).await.is_err() {
        tracing::warn!(
            connections = peers.draining(),
            "Draining gateways are still connected; stopping all the same."
        );
    }
}

fn drains(connections: &Connections) -> bool {
    connections.values().any(|peer| peer.draining && may_be_gateway(peer))
}

/// Tasks are connected too, and wait for gateways themselves; who has not said anything yet may be anyone.
fn may_be_gateway(peer: &PeerState) -> bool {
    let gateway = Service::Gateway.as_str();
    peer.instance.as_ref().is_none_or(|id| id.as_str().split('-').next() == Some(gateway))
}

/// Waits until the peers and the fact of being the only serving logic satisfy `is`.
async fn until(
    peers: &Peers,
    view: &watch::Receiver<Arc<View>>,
    me: &watch::Receiver<InstanceId>,
    is: impl Fn(&Connections, bool) -> bool,
) {
    let (mut peers, mut view) = (peers.watch(), view.clone());
    loop {
        let alone = alone(&view.borrow_and_update(), &me.borrow());
        if is(&peers.borrow_and_update(), alone) {
            return;
        }
        let changed = tokio::select! {
            changed = peers.changed() => changed,
            changed = view.changed() => changed,
        };
        if changed.is_err() {
            // Whoever watched has ended: what is known stays, and the caller's deadline holds.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether no other logic serves, as far as known. Seeds say nothing about who is there.
fn alone(view: &View, me: &InstanceId) -> bool {
    !view.of(Service::Logic).any(|logic| logic.id != *me && !logic.is_seed() && logic.state == State::Serving)
}
