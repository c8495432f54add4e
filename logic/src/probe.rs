//! Probes the stores: twice a second asks PostgreSQL for its epoch and for a commit, and Redis for its marker, and keeps
//! the answers for replies and `/readyz`. Decides nothing.

mod commits;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use sluice_presence::Presence;
use sluice_proto::ids::Epoch;
use sluice_service::clock::Clock;
use sluice_service::clock::skew::{Clocks, Exchange};
use sluice_store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::defaults::{COMMIT_WITHIN, PROBE_EVERY, PROBE_WITHIN};
use crate::metrics::Metrics;
use commits::Commits;

/// What was last seen of the stores; clones share it.
#[derive(Clone)]
pub struct Probe(Arc<LastSeen>);

struct LastSeen {
    epoch: AtomicU64,
    marker: AtomicU64,
    store: watch::Sender<Result<(), String>>,
    commits: Mutex<Commits>,
    /// Ours, and how far that of the store is from it.
    clocks: Option<(Clock, Clocks)>,
}

/// Whom the clock is compared with.
const STORE: &str = "postgres";

/// A commit that is tried; it may hang for longer than a look.
type Trial = BoxFuture<'static, Result<(), StoreError>>;

impl Default for Probe {
    fn default() -> Self {
        Self::with(None)
    }
}

impl Probe {
    /// Compares the clock of the store with `clock` too.
    #[must_use]
    pub fn comparing(clock: Clock, clocks: Clocks) -> Self {
        Self::with(Some((clock, clocks)))
    }

    fn with(clocks: Option<(Clock, Clocks)>) -> Self {
        let store = watch::Sender::new(Err("the store was not reached yet".to_owned()));
        let (epoch, marker) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(LastSeen { epoch, marker, store, commits: Mutex::default(), clocks }))
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

    /// Whether the store answers and takes commits, and why not.
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

    /// A group was committed.
    pub fn committed(&self) {
        self.commits().stored(Instant::now());
    }

    /// A group was not committed.
    pub fn failed(&self, error: &StoreError) {
        self.commits().failed(error, Instant::now());
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.0.commits.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Looks until `stop`.
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
        let mut trial = None;
        loop {
            tokio::select! {
                // A stop wins over a tick that is due.
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let look = async {
                let store = self.look_at_store(&store, &mut trial, &metrics);
                tokio::join!(store, self.look_at_presence(&*presence))
            };
            tokio::select! {
                biased;
                // Also in the middle of a look: a store that does not answer must not hold the
                // stop.
                () = stop.cancelled() => return,
                (up, ()) = look => { metrics.store_up.set(i64::from(up)); }
            }
        }
    }

    async fn look_at_store(
        &self,
        store: &Arc<dyn Store>,
        trial: &mut Option<Trial>,
        metrics: &Metrics,
    ) -> bool {
        let begun = Instant::now();
        let (read, tried) =
            tokio::join!(timeout(PROBE_WITHIN, store.epoch()), self.try_commit(store, trial, metrics));
        let read = match read {
            Ok(Ok(epoch)) => {
                self.saw_epoch(epoch);
                Ok(())
            }
            Ok(Err(error)) => Err(error.with_fix()),
            Err(_) => Err(format!("the store did not answer within {PROBE_WITHIN:?}")),
        };
        if read.is_err() {
            // Its connection is as dead as that of the read.
            *trial = None;
        }
        let seen = self.commits().verdict(begun, read.and(tried), Instant::now());
        let up = seen.is_ok();
        if up {
            self.compare_clocks(&**store).await;
        }
        let agree = self.0.clocks.as_ref().map_or(Ok(()), |(_, clocks)| clocks.verdict());
        self.saw_store(seen.and(agree));
        up
    }

    /// Reads the clock of the store, now and then.
    async fn compare_clocks(&self, store: &dyn Store) {
        let Some((clock, clocks)) = self.0.clocks.as_ref().filter(|(_, clocks)| clocks.due(STORE)) else {
            return;
        };
        let asked_ms = clock.now_ms();
        if let Ok(Ok(Some(theirs_ms))) = timeout(PROBE_WITHIN, store.now_ms()).await {
            clocks.compared(STORE, Exchange { asked_ms, theirs_ms, answered_ms: clock.now_ms() });
        }
    }

    /// Goes on with the trial under way, or begins one.
    async fn try_commit(
        &self,
        store: &Arc<dyn Store>,
        trial: &mut Option<Trial>,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let thorough = self.commits().thorough();
        let under_way = trial.get_or_insert_with(|| {
            let store = Arc::clone(store);
            Box::pin(async move { store.probe_commit(thorough).await })
        });
        // Kept when it is late: one that hangs holds a session of the server, and so would each that follows.
        let Ok(tried) = timeout(COMMIT_WITHIN, under_way).await else {
            return Err(format!(
                "the store answers, but a commit does not end within {COMMIT_WITHIN:?}: look for a standby that does not \
                 acknowledge (synchronous_standby_names), and for a disk that does not write"
            ));
        };
        *trial = None;
        tried.map_err(|error| {
            metrics.store_refused(error.trouble()).inc();
            error.with_fix()
        })
    }

    async fn look_at_presence(&self, presence: &dyn Presence) {
        match timeout(PROBE_WITHIN, presence.marker()).await {
            Ok(Ok(marker)) => self.0.marker.store(marker, Ordering::Relaxed),
            Ok(Err(error)) => tracing::debug!(%error, "The marker could not be read."),
            Err(_) => tracing::debug!("The marker could not be read in time."),
        }
    }
}
