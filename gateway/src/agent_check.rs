//! Tells a balancer how many of the new clients this gateway wants beside the others: HAProxy's agent check, one
//! line of text per connection. Says nothing of health, which `/readyz` is for, and counts no clients.

pub mod roll;

use std::sync::Arc;
use std::time::Duration;

use sluice_cluster::{Cluster, ClusterView, Service};
use sluice_proto::ids::InstanceId;
use sluice_service::listen::Bound;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::roll::Roll;

/// Its whole weight.
const WHOLE: &[u8] = b"100%\n";
/// While others of this roll have been replaced and it has not: new clients go to those until they have twice as many.
const HALF: &[u8] = b"50%\n";
/// For a line that fits into any empty buffer of a socket.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// Answers until `stop`; then the listening socket is closed, and balancers keep what they heard last.
pub async fn answer(bound: Bound, cluster: Arc<dyn Cluster>, stop: CancellationToken) {
    let (mut view, me) = (cluster.view(), cluster.me());
    let mut roll = Roll::new(Instant::now());
    loop {
        roll.see(others(&view.borrow_and_update(), &me.borrow()), Instant::now());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Ok(()) = view.changed() => {}
            (stream, _) = bound.accept() => {
                // One after the other: balancers are few, and each has a second at most.
                say(stream, if roll.is_ahead(Instant::now()) { HALF } else { WHOLE }).await;
            }
        }
    }
}

fn others(view: &ClusterView, me: &InstanceId) -> roll::Gateways {
    let others = view.others(Service::Gateway, me);
    others.map(|gateway| (gateway.id.clone(), gateway.state)).collect()
}

/// Whoever does not take it asks again.
async fn say(mut stream: TcpStream, line: &[u8]) {
    let said = async {
        stream.write_all(line).await?;
        stream.shutdown().await
    };
    match timeout(SAY_WITHIN, said).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "A balancer left before it had its answer."),
        Err(late) => tracing::debug!(%late, "A balancer took no byte."),
    }
}
