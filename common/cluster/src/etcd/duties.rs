//! Takes and gives back duties whenever something was learned, and lets time pass for what depends on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Shared;
use crate::known::Step;

/// Never ends.
pub(super) async fn keep(shared: Arc<Shared>) {
    let beat = (shared.ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        if timeout(beat, shared.learned.notified()).await.is_err() {
            shared.learn(|_, _| {});
        }
        for step in shared.look(|known| known.steps(Instant::now())) {
            take(&shared, step).await;
        }
    }
}

/// Takes a step in the registry. What came of it is seen in the watch.
pub(super) async fn take(shared: &Shared, step: Step) {
    let Some(lease) = *shared.lease.borrow() else { return };
    let me = shared.me.borrow().clone();
    let outcome = match &step {
        Step::Claim { .. } if shared.look(crate::known::Known::is_releasing) => return,
        Step::Claim { duty, from } => {
            let claimed = shared.registry.claim(*duty, from.as_ref(), &me, lease).await;
            claimed.map(|claimed| {
                if claimed {
                    tracing::info!(%duty, "Duty taken.");
                }
            })
        }
        Step::Release(duty) => shared.registry.release(*duty, &me).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(?step, %error, "A duty did not change hands.");
    }
}
