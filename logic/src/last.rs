//! The last logic stays for draining gateways: they are finishing publishes that nobody else can commit. Those
//! that serve hold their publishes for the replacement.

use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::last::Last;
use sluice_cluster::{ClusterView, Service};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::peers::{PeerState, PeerStates, Peers};
use tokio::sync::watch;

use crate::defaults::LAST_LOOK;

/// Waits as long as this logic is needed, `stay` at most; not at all when nobody is connected, [`LAST_LOOK`] when it is not.
pub async fn stay(
    peers: &Peers,
    view: watch::Receiver<Arc<ClusterView>>,
    me: watch::Receiver<InstanceId>,
    stay: Duration,
) {
    let (service, connections) = (Service::Logic, peers.watch());
    let last = Last { service, view, me, connections, look: LAST_LOOK, stay };
    let drains = |peer: &&PeerState| peer.draining && may_be_gateway(peer);
    let draining = |connections: &PeerStates| connections.values().filter(drains).count();
    last.stay(draining, |connections, _| !connections.values().any(may_be_gateway)).await;
}

/// Tasks are connected too, and wait for gateways themselves; who has not said anything yet may be anyone.
pub(crate) fn may_be_gateway(peer: &PeerState) -> bool {
    let gateway = Service::Gateway.as_str();
    peer.instance.as_ref().is_none_or(|id| id.as_str().split('-').next() == Some(gateway))
}
