//! Takes, renews and gives back duties: at each change of the registry, and when a lease time is over.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::EtcdShared;
use crate::known::DutyStep;
use crate::shown::beat;

/// Takes, renews and gives back duties until its task is ended.
pub(super) async fn keep(shared: Arc<EtcdShared>) {
    loop {
        // Time alone changes what is owed: a duty whose owner was lost, a lease that ran out.
        if timeout(beat(shared.ttl), shared.learned.notified()).await.is_err() {
            shared.learn(|_, _| {});
        }
        for step in shared.look(|known| known.steps(Instant::now())) {
            take(&shared, step).await;
        }
    }
}

/// Takes a step in the registry. What came of it is seen in the watch.
pub(super) async fn take(shared: &EtcdShared, step: DutyStep) {
    // Without a lease a claim would outlive this process.
    let Some(lease) = *shared.lease.borrow() else { return };
    let me = shared.shown.id();
    let outcome = match &step {
        // A release may have been asked for since the steps were made.
        DutyStep::Claim { .. } if shared.look(crate::known::Known::is_releasing) => return,
        DutyStep::Claim { duty, from } => {
            shared.registry.claim(*duty, from.as_ref(), &me, lease).await.map(|_succeeded| ())
        }
        DutyStep::Release(duty) => {
            // Noted before: the watch may say that it is gone before the answer does.
            shared.learn(|known, _| known.gives(*duty));
            shared.registry.release(*duty, &me).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(?step, %error, "A duty did not change hands.");
    }
}
