//! Accepts client connections and hands them to shards. Reads nothing itself: the handshake is the shard's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_service::listen::Bound;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::shard::handle::Shards;
use crate::shard::shared::Shared;

/// Sockets above the limit that may be told 503: beyond them the kernel's queue has to wait.
const REFUSALS_MAX: usize = 1_024;
/// Between two looks whether there is room again.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// Accepts until `stop`; then the listening socket is closed.
pub async fn accept(bound: Bound, shared: Arc<Shared>, shards: Shards, stop: CancellationToken) {
    loop {
        let next = async {
            // Sockets that are told 503 count too: a crowd that is refused must not use up all files.
            while shared.stats.connections.load(Ordering::Relaxed)
                >= shared.config.connections_max + REFUSALS_MAX
            {
                sleep(FULL_WAIT).await;
            }
            bound.accept().await
        };
        let (stream, from) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = next => next,
        };
        // Taken out of this runtime: a shard registers it with the poll of its own thread.
        match stream.into_std() {
            Ok(socket) => {
                shared.stats.connections.fetch_add(1, Ordering::Relaxed);
                // Waits for a place in that shard's queue: meanwhile clients wait in the kernel's.
                shards.assign(socket).await;
            }
            Err(error) => tracing::debug!(%from, %error, "A new connection could not be handed on."),
        }
    }
}
