//! All outlets of this task: follows who is listed and keeps a push stream open to each. Routes nothing; that is
//! the [`Directory`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use sluice_cluster::{ClusterView, Service};
use sluice_lifecycle::Scope;
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::Caller;
use sluice_service::grpc::peers::Peers;
use tokio::sync::watch;

use super::registry::{Directory, Listed};
use super::stream::{self, StreamParts};
use crate::metrics::Metrics;

/// All outlets; clones share them.
#[derive(Clone)]
pub struct Outlets(Arc<OutletsShared>);

struct OutletsShared {
    scope: Scope,
    streams: StreamParts,
    metrics: Metrics,
    seeds: Vec<Arc<str>>,
    /// Whether anybody ever said who is there.
    known: watch::Sender<bool>,
}

impl Outlets {
    /// No outlets yet, but to the seeds. Streams are tasks of `scope`: when its stage begins they send what is left
    /// and end.
    pub fn new(scope: Scope, caller: Caller, peers: Peers, metrics: Metrics, seeds: &[String]) -> Self {
        let seeds: Vec<Arc<str>> = seeds.iter().map(|seed| seed.as_str().into()).collect();
        let known = watch::Sender::new(!seeds.is_empty());
        let streams = StreamParts { registry: Arc::default(), caller, peers };
        let outlets = Self(Arc::new(OutletsShared { scope, streams, metrics, seeds, known }));
        outlets.learn(&ClusterView::default());
        outlets
    }

    /// Follows the registry until the stage of the scope.
    pub async fn follow(self, mut view: watch::Receiver<Arc<ClusterView>>) {
        let stop = self.0.scope.token();
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            self.learn(&now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() {
                    // The last known set stays.
                    return stop.cancelled().await;
                },
            }
        }
    }

    /// Takes over who is listed and begins streams to whoever is new.
    fn learn(&self, view: &ClusterView) {
        let mut listed: Listed =
            self.0.seeds.iter().map(|seed| (Arc::clone(seed), BTreeSet::new())).collect();
        for gateway in view.of(Service::Gateway) {
            listed.entry(gateway.address.as_str().into()).or_default().insert(gateway.id.clone());
        }
        // An empty list means something only to who is on the list: etcd may have come back without us.
        if view.sees_me || !listed.is_empty() {
            self.0.known.send_replace(true);
        }
        for outlet in self.0.streams.registry.list(listed, &self.0.metrics) {
            let keep = stream::keep(outlet, self.0.streams.clone(), self.0.scope.token());
            self.0.scope.spawn_transient("push-stream", keep);
        }
    }

    /// Outlets as of now.
    pub fn directory(&self) -> Arc<Directory> {
        self.0.streams.registry.directory()
    }

    /// Ends when somebody has said who is there.
    pub async fn known(&self) {
        // An error is impossible: self holds the sender.
        let _ = self.0.known.subscribe().wait_for(|known| *known).await;
    }

    /// Whether somebody has said who is there.
    pub fn is_known(&self) -> bool {
        *self.0.known.borrow()
    }

    /// Gateways whose stream works.
    pub fn living(&self) -> BTreeSet<InstanceId> {
        self.0.streams.registry.living()
    }

    /// Gateways whose stream worked, broke and did not come back.
    pub fn broken(&self) -> BTreeSet<InstanceId> {
        self.0.streams.registry.broken()
    }

    /// Outlets that lag, by the name of their gateway or address.
    pub fn lagging(&self) -> Vec<String> {
        self.0.streams.registry.lagging()
    }

    /// What `/status` shows of it.
    pub fn status(&self) -> Value {
        self.0.streams.registry.status()
    }
}
