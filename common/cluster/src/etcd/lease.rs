//! Registers this process and renews its lease; a lost lease means a new id.
//!
//! Only etcd's word counts as a loss: while it is silent the id stays, because after an outage the lease is
//! usually still there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::EtcdShared;
use super::error::RegistryError;
use crate::InstanceState;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pause before the next attempt: longer each time, up to a second.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// Registers, renews, and begins again after each loss. Never ends.
pub(super) async fn hold(shared: Arc<EtcdShared>) {
    loop {
        let mut pause = Pause::new();
        let (lease, sent) = loop {
            let registered = register(&shared).await;
            shared.went(&registered);
            match registered {
                Ok(registered) => break registered,
                Err(error) => tracing::debug!(%error, "Not registered yet."),
            }
            sleep(pause.next()).await;
        };
        tracing::info!(id = %shared.shown.id(), "Registered.");
        renew(&shared, lease, sent).await;
        // Before the new id: nothing may be claimed under a lease that is gone.
        shared.lease.send_replace(None);
        shared.written.send_replace(None);
        let (was, fresh) = (shared.shown.id(), shared.registrant.fresh_id());
        shared.shown.count(|counts| counts.leases_lost += 1);
        tracing::warn!(%was, id = %fresh, "The lease was lost; a new id begins.");
        shared.learn(|known, _| known.rename(fresh));
    }
}

/// A new lease with this process under it.
async fn register(shared: &EtcdShared) -> Result<(i64, Instant), RegistryError> {
    let (sent, lease) = sent_and_answered(shared.registry.grant(shared.ttl)).await;
    let lease = lease?;
    write(shared, lease).await?;
    shared.lease.send_replace(Some(lease));
    shared.learn(|known, _| known.renewed(sent));
    Ok((lease, sent))
}

/// When a question was sent, with its answer. A lease counts from then: etcd may have granted it at once and answered
/// late, so that less of it is left than seems (D7).
async fn sent_and_answered<T>(question: impl Future<Output = T>) -> (Instant, T) {
    let sent = Instant::now();
    (sent, question.await)
}

async fn write(shared: &EtcdShared, lease: i64) -> Result<InstanceState, RegistryError> {
    let state = *shared.state.borrow();
    shared.registry.put(&shared.registrant.instance(shared.shown.id(), state), lease).await?;
    shared.written.send_replace(Some(state));
    Ok(state)
}

/// Renews until etcd says that the lease is gone.
async fn renew(shared: &EtcdShared, lease: i64, mut sent: Instant) {
    let mut state = shared.state.subscribe();
    let mut pause = Pause::new();
    // A third: two renewals may fail before the lease ends.
    let mut due = sent + shared.ttl / 3;
    // Written at once when the state was changed between the registration and now.
    let mut to_write = *shared.written.borrow() != Some(*state.borrow_and_update());
    loop {
        if !to_write {
            tokio::select! {
                () = sleep_until(due) => to_write = shared.registrant.headroom_is_stale(),
                () = shared.doubt.notified() => to_write = true,
                changed = state.changed() => to_write = changed.is_ok(),
            }
        }
        let (asked, outcome) = sent_and_answered(async {
            if to_write {
                write(shared, lease).await?;
            }
            shared.registry.renew(lease).await
        })
        .await;
        shared.went(&outcome);
        match outcome {
            Ok(()) => {
                (sent, to_write, pause) =
                    (asked, *shared.written.borrow() != Some(*state.borrow()), Pause::new());
                due = sent + shared.ttl / 3;
                shared.learn(|known, _| known.renewed(sent));
            }
            // Only etcd's own word; silence may be an outage after which the lease is
            // still there.
            Err(RegistryError::LeaseGone) => return,
            Err(error) => {
                tracing::debug!(%error, "The lease is not renewed yet.");
                sleep(pause.next()).await;
                // At once after the pause: each failure has used some of the lease.
                due = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_when_it_was_asked_for() {
        let (began, late) = (Instant::now(), Duration::from_millis(1_500));
        let (sent, answered) = sent_and_answered(async {
            sleep(late).await;
            Instant::now()
        })
        .await;
        assert_eq!((sent, answered), (began, began + late));
    }
}
