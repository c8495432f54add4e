//! Who is connected to us, and which of them drain. An entry lives exactly as long as its connection:
//! the stop of the last logic waits for draining gateways, and nobody may wait for a peer that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use serde_json::{Value, json};
use sluice_proto::ids::InstanceId;
use tokio::sync::watch;

use super::{DRAINING_HEADER, INSTANCE_HEADER};

/// What is known of one open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// The other end, for people.
    pub address: String,
    /// Who it said it is; `None` before its first call, and for health checkers.
    pub instance: Option<InstanceId>,
    /// Whether it said that it drains. Never taken back for the same instance, as calls may overtake
    /// each other.
    pub draining: bool,
}

/// All open connections by a number that grows.
pub type PeerStates = BTreeMap<u64, PeerState>;

/// The registry; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    next: Arc<AtomicU64>,
    connections: watch::Sender<PeerStates>,
}

impl Peers {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connection; it is removed when the returned [`Peer`] is dropped. The server does this for the
    /// connections it accepts; a task does it for each push stream it has opened.
    #[must_use]
    pub fn connect(&self, address: String) -> Peer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.send_modify(|all| {
            all.insert(number, PeerState { address, instance: None, draining: false });
        });
        Peer { number, connections: self.connections.clone() }
    }

    /// A view that follows every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PeerStates> {
        self.connections.subscribe()
    }

    /// Open connections whose other end said that it drains.
    #[must_use]
    pub fn draining(&self) -> usize {
        self.connections.borrow().values().filter(|peer| peer.draining).count()
    }

    /// Open connections, with or without a name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, for a status page.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |peer: &PeerState| {
            json!({
                "address": peer.address,
                "instance": peer.instance.as_ref().map(InstanceId::as_str),
                "draining": peer.draining,
            })
        };
        self.connections.borrow().values().map(one).collect()
    }

    /// Waits until somebody who drains is connected.
    pub async fn some_draining(&self) {
        // An error is impossible: self holds a sender.
        let _ = self.watch().wait_for(|all| all.values().any(|peer| peer.draining)).await;
    }

    /// Waits until nobody who drains is connected.
    pub async fn none_draining(&self) {
        let _ = self.watch().wait_for(|all| !all.values().any(|peer| peer.draining)).await;
    }
}

/// One open connection in the registry.
#[derive(Debug)]
pub struct Peer {
    number: u64,
    connections: watch::Sender<PeerStates>,
}

impl Peer {
    /// The other end has said who it is and whether it drains.
    pub fn says(&self, instance: &InstanceId, draining: bool) {
        self.connections.send_if_modified(|all| {
            let Some(peer) = all.get_mut(&self.number) else { return false };
            // Another instance on the same connection is a lease that was lost: it begins anew.
            let same = peer.instance.as_ref() == Some(instance);
            // Calls overtake each other: an old "no" after a "yes" is no news.
            let draining = draining || (same && peer.draining);
            let changed = !same || peer.draining != draining;
            if changed {
                peer.instance = Some(instance.clone());
                peer.draining = draining;
            }
            changed
        });
    }

    /// Reads the same from the metadata of a call. Calls without a valid instance id say nothing.
    pub fn says_in(&self, headers: &HeaderMap) {
        let Some(instance) = headers.get(INSTANCE_HEADER).and_then(|value| value.to_str().ok()) else {
            return;
        };
        let draining = headers.get(DRAINING_HEADER).is_some_and(|value| value == "1");
        // The usual case costs no allocation and no lock for writing.
        let known = self.connections.borrow().get(&self.number).is_some_and(|peer| {
            peer.instance.as_ref().is_some_and(|known| known.as_str() == instance)
                && (peer.draining || !draining)
        });
        if let (false, Ok(instance)) = (known, InstanceId::parse(instance)) {
            self.says(&instance, draining);
        }
    }

    /// What is known of it now.
    #[must_use]
    pub fn state(&self) -> Option<PeerState> {
        self.connections.borrow().get(&self.number).cloned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.connections.send_modify(|all| {
            all.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn draining_sticks_to_an_instance_and_ends_with_its_connection() {
        let peers = Peers::new();
        let (one, two) = (peers.connect("one".into()), peers.connect("two".into()));
        assert_eq!((peers.len(), peers.draining()), (2, 0));
        one.says(&id("gateway-a"), true);
        two.says(&id("gateway-b"), false);
        one.says(&id("gateway-a"), false);
        assert_eq!(peers.draining(), 1);
        peers.some_draining().await;
        drop(one);
        peers.none_draining().await;
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn metadata_is_read_and_nonsense_ignored() {
        let peers = Peers::new();
        let peer = peers.connect("one".into());
        let mut headers = HeaderMap::new();
        peer.says_in(&headers);
        headers.insert(INSTANCE_HEADER, "".parse().unwrap());
        peer.says_in(&headers);
        assert_eq!(peer.state().unwrap().instance, None);
        headers.insert(INSTANCE_HEADER, "gateway-a".parse().unwrap());
        peer.says_in(&headers);
        let mut changes = peers.watch();
        changes.mark_unchanged();
        peer.says_in(&headers);
        assert!(!changes.has_changed().unwrap());
        headers.insert(DRAINING_HEADER, "1".parse().unwrap());
        peer.says_in(&headers);
        assert_eq!(peers.draining(), 1);
    }
}
