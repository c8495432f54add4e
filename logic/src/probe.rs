//! Probes the stores: once a second asks PostgreSQL for its epoch and Redis for its marker, and keeps the answers
//! for replies and `/readyz`. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_presence::Presence;
use sluice_proto::ids::Epoch;
use sluice_store::Store;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::defaults::{PROBE_EVERY, PROBE_WITHIN};
use crate::metrics::Metrics;

/// What was last seen of the stores; clones share it.
#[derive(Clone)]
pub struct Probe(Arc<LastSeen>);

struct LastSeen {
    epoch: AtomicU64,
    marker: AtomicU64,
    store: watch::Sender<Result<(), String>>,
}

impl Default for Probe {
    fn default() -> Self {
        let store = watch::Sender::new(Err("the store was not reached yet".to_owned()));
        Self(Arc::new(LastSeen { epoch: AtomicU64::new(0), marker: AtomicU64::new(0), store }))
    }
}

impl Probe {
    /// The epoch last seen, 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Relaxed)
    }

    /// The marker last read, 0 before the first: 0 says nothing.
    #[must_use]
    pub fn marker(&self) -> u64 {
        self.0.marker.load(Ordering::Relaxed)
    }

    /// Whether the store answers, and why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn store(&self) -> Result<(), String> {
        self.0.store.borrow().clone()
    }

    /// Takes over an epoch that a reply of the store carried.
    pub fn saw_epoch(&self, epoch: Epoch) {
        self.0.epoch.store(epoch.0, Ordering::Relaxed);
    }

    /// Says how it stands with the store; logged when that changes.
    pub fn saw_store(&self, now: Result<(), String>) {
        self.0.store.send_if_modified(|before| {
            match (&*before, &now) {
                (Err(_), Ok(())) => tracing::debug!("The store answers."),
                (Ok(()), Err(reason)) => tracing::debug!(%reason, "The store does not answer."),
                (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
            }
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    /// Looks once a second until `stop`.
    pub async fn run(
        self,
        store: Arc<dyn Store>,
        presence: Arc<dyn Presence>,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(PROBE_EVERY);
        // After a stall one look is enough; a burst of them would tell nothing new.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A stop wins over a tick that is due.
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let look = async { tokio::join!(self.look_at_store(&*store), self.look_at_presence(&*presence)) };
            tokio::select! {
                biased;
                // Also in the middle of a look: a store that does not answer must not hold the
                // stop.
                () = stop.cancelled() => return,
                (up, ()) = look => { metrics.store_up.set(i64::from(up)); }
            }
        }
    }

    async fn look_at_store(&self, store: &dyn Store) -> bool {
        let seen = match timeout(PROBE_WITHIN, store.epoch()).await {
            Ok(Ok(epoch)) => {
                self.saw_epoch(epoch);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store did not answer within {PROBE_WITHIN:?}")),
        };
        let up = seen.is_ok();
        self.saw_store(seen);
        up
    }

    async fn look_at_presence(&self, presence: &dyn Presence) {
        match timeout(PROBE_WITHIN, presence.marker()).await {
            Ok(Ok(marker)) => self.0.marker.store(marker, Ordering::Relaxed),
            Ok(Err(error)) => tracing::debug!(%error, "The marker could not be read."),
            Err(_) => tracing::debug!("The marker could not be read in time."),
        }
    }
}
