//! How many more clients there is room for, told to the other gateways.

use std::sync::Arc;

use sluice_cluster::{Cluster, Headroom};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::defaults::HEADROOM_EVERY;
use crate::shard::shared::Shared;

/// Tells it once a second until `stop`.
pub async fn tell(shared: Arc<Shared>, cluster: Arc<dyn Cluster>, stop: CancellationToken) {
    let (mut seen, mut looked) = (shared.usages.entered(), Instant::now());
    loop {
        if stop.run_until_cancelled(sleep(HEADROOM_EVERY)).await.is_none() {
            return;
        }
        // By the time that has really passed: a busy machine sleeps longer than asked.
        let free = shared.config.connections_max.saturating_sub(shared.stats.connections());
        let (entered, now) = (shared.usages.entered(), Instant::now());
        let came = entered - std::mem::replace(&mut seen, entered);
        let within = now - std::mem::replace(&mut looked, now);
        cluster.set_headroom(Headroom {
            connections: u32::try_from(free).unwrap_or(u32::MAX),
            handshakes_per_s: shared.usages.handshakes_left_per_s(came, within),
        });
    }
}
