//! The last task stays for draining gateways: their clients still get pushes while they leave.
//!
//! Nobody waits for a peer except over an open connection to it: gateways that serve are no reason to stay, nor
//! are those known only from the registry.

use std::sync::Arc;

use sluice_cluster::{Service, State, View};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::peers::{Connections, Peers};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::defaults::{LAST_LOOK, LAST_STAY};

/// Waits as long as this task is needed; not at all when no stream is open or another task serves, [`LAST_LOOK`]
/// when no gateway drains.
pub async fn stay(peers: &Peers, view: watch::Receiver<Arc<View>>, me: watch::Receiver<InstanceId>) {
    let stay = async {
        let needed = until(peers, &view, &me, |streams, alone| alone && drains(streams));
        let nobody = until(peers, &view, &me, |streams, alone| streams.is_empty() || !alone);
        let looked = tokio::select! {
            biased;
            () = needed => true,
            () = nobody => false,
            () = tokio::time::sleep(LAST_LOOK) => false,
        };
        if looked {
            tracing::info!(gateways = peers.draining(), "The last task stays for draining gateways.");
            until(peers, &view, &me, |streams, alone| !(alone && drains(streams))).await;
        }
    };
    if timeout(LAST_STAY, stay).await.is_err() {
        tracing::warn!(gateways = peers.draining(), "Gateways still drain; stopping all the same.");
    }
}

fn drains(streams: &Connections) -> bool {
    streams.values().any(|peer| peer.draining)
}

/// Waits until the streams and the fact of being the only serving task satisfy `is`.
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

/// Whether no other task serves, as far as known.
fn alone(view: &View, me: &InstanceId) -> bool {
    !view.of(Service::Task).any(|task| task.id != *me && task.state == State::Serving)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_cluster::Instance;
    use tokio::time::Instant;

    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).expect("valid")
    }

    fn view(tasks: &[(&str, State)]) -> Arc<View> {
        let instance = |(name, state): &(&str, State)| Instance {
            id: id(name),
            service: Service::Task,
            address: String::new(),
            url: None,
            version: String::new(),
            started_ms: 1,
            state: *state,
            headroom: None,
        };
        let instances = tasks.iter().map(|task| (id(task.0), instance(task))).collect();
        Arc::new(View { instances, sees_me: true })
    }

    async fn stays(peers: &Peers, tasks: &[(&str, State)]) -> Duration {
        let (view, me) = (watch::Sender::new(view(tasks)), watch::Sender::new(id("task-me")));
        let begun = Instant::now();
        stay(peers, view.subscribe(), me.subscribe()).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_last_stays_and_only_for_the_draining() {
        let peers = Peers::new();
        let me = ("task-me", State::Draining);
        let only_me = [me];
        assert_eq!(stays(&peers, &only_me).await, Duration::ZERO);
        let stream = peers.connect("one".into());
        stream.says(&id("gateway-a"), false);
        assert_eq!(stays(&peers, &[me]).await, LAST_LOOK);
        stream.says(&id("gateway-a"), true);
        assert_eq!(stays(&peers, &[me, ("task-b", State::Serving)]).await, Duration::ZERO);
        assert!(stays(&peers, &[me, ("task-b", State::Draining)]).await >= LAST_STAY);
        let leaves = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(stream);
        };
        let (stayed, ()) = tokio::join!(stays(&peers, &only_me), leaves);
        assert!((1_000..1_010).contains(&stayed.as_millis()), "{stayed:?}");
    }
}
