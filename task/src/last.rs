//! The last task stays for draining gateways: their clients still get pushes while they leave.

use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::last::Last;
use sluice_cluster::{ClusterView, Service};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::peers::{PeerStates, Peers};
use tokio::sync::watch;

use crate::defaults::LAST_LOOK;

/// Waits as long as this task is needed, `stay` at most; not at all when no stream is open or another task serves, [`LAST_LOOK`]
/// when no gateway drains.
pub async fn stay(
    peers: &Peers,
    view: watch::Receiver<Arc<ClusterView>>,
    me: watch::Receiver<InstanceId>,
    stay: Duration,
) {
    let (service, connections) = (Service::Task, peers.watch());
    let last = Last { service, view, me, connections, look: LAST_LOOK, stay };
    let draining = |streams: &PeerStates| streams.values().filter(|peer| peer.draining).count();
    // Counted by streams, not by the registry: a gateway that is gone has none.
    last.stay(draining, |streams, alone| streams.is_empty() || !alone).await;
}

#[cfg(test)]
mod tests {

    use sluice_cluster::{Instance, InstanceState};
    use tokio::time::Instant;

    use super::*;

    const STAY: Duration = Duration::from_millis(2_900);

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).expect("valid")
    }

    fn view(tasks: &[(&str, InstanceState)]) -> Arc<ClusterView> {
        let instance = |(name, state): &(&str, InstanceState)| Instance {
            id: id(name),
            service: Service::Task,
            address: (*name).into(),
            url: None,
            version: String::new(),
            started_ms: 1,
            state: *state,
            headroom: None,
        };
        let instances = tasks.iter().map(|task| (id(task.0), instance(task))).collect();
        Arc::new(ClusterView { instances, sees_me: true })
    }

    async fn stays(peers: &Peers, tasks: &[(&str, InstanceState)]) -> Duration {
        let (view, me) = (watch::Sender::new(view(tasks)), watch::Sender::new(id("task-me")));
        let begun = Instant::now();
        stay(peers, view.subscribe(), me.subscribe(), STAY).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_last_stays_and_only_for_the_draining() {
        let peers = Peers::new();
        let me = ("task-me", InstanceState::Draining);
        let only_me = [me];
        assert_eq!(stays(&peers, &only_me).await, Duration::ZERO);
        let stream = peers.connect("one".into());
        stream.says(&id("gateway-a"), false);
        assert_eq!(stays(&peers, &[me]).await, LAST_LOOK);
        stream.says(&id("gateway-a"), true);
        assert_eq!(stays(&peers, &[me, ("task-b", InstanceState::Serving)]).await, Duration::ZERO);
        assert!(stays(&peers, &[me, ("task-b", InstanceState::Draining)]).await >= STAY);
        let leaves = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(stream);
        };
        let (stayed, ()) = tokio::join!(stays(&peers, &only_me), leaves);
        assert!((1_000..1_010).contains(&stayed.as_millis()), "{stayed:?}");
    }
}
