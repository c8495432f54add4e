//! Natural batching of commits: groups that come while a commit is in flight are committed together by the next one,
//! for the price of one sync.
//!
//! A batch is a shared future that all its callers poll, so there is no task: a caller that goes away harms
//! no other, and when all are gone the batch ends where it stands, with its transaction.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use tokio::time::{Instant, timeout_at};

use super::Pools;
use super::file_identity::FileIdentity;
use super::publish::{PendingGroup, commit};
use crate::{Committed, StoreError};

/// A batch takes no more groups from here on: four full calls, some tens of milliseconds of writing.
const ITEMS_MAX: usize = 4 * BATCH_ITEMS_MAX;
/// As [`ITEMS_MAX`].
const BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;

/// One result per group.
type SharedResults = Arc<Vec<Result<Committed, StoreError>>>;
type Work = BoxFuture<'static, SharedResults>;

/// The batch that can still be joined, while anybody waits for it.
#[derive(Default)]
pub(super) struct Commits {
    open: Mutex<Option<(Arc<Batch>, WeakShared<Work>)>>,
}

/// Groups that will be committed together.
#[derive(Default)]
struct Batch(Mutex<Gathering>);

#[derive(Default)]
struct Gathering {
    /// `None`: its caller gave up in time.
    groups: Vec<Option<PendingGroup>>,
    items: usize,
    bytes: usize,
    taken: bool,
}

impl Commits {
    /// Commits a group, perhaps together with others.
    pub(super) async fn publish(
        &self,
        pools: &Arc<Pools>,
        deadline: Instant,
        group: PendingGroup,
    ) -> Result<Committed, StoreError> {
        let (batch, place, work) = self.join(pools, group);
        // Each caller has its own deadline; the batch goes on for the others.
        match timeout_at(deadline, work).await {
            Ok(results) => results.get(place).cloned().unwrap_or(Err(StoreError::Closed)),
            // Out before it was taken: certainly not stored.
            Err(_) if batch.leave(place) => {
                Err(StoreError::Unreachable("waited too long for a turn to write".to_owned()))
            }
            Err(_) => Err(StoreError::Unknown("writing took too long".to_owned())),
        }
    }

    /// The batch, the group's place in it, and what to wait for.
    fn join(&self, pools: &Arc<Pools>, mut group: PendingGroup) -> (Arc<Batch>, usize, Shared<Work>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((batch, work)) = &*open
            // Gone when all its callers gave up: its groups must not be committed by a stranger.
            && let Some(work) = work.upgrade()
        {
            match batch.add(group) {
                Ok(place) => return (Arc::clone(batch), place, work),
                Err(refused) => group = refused,
            }
        }
        let batch = Arc::new(Batch::default());
        drop(batch.add(group));
        let work = run(Arc::clone(pools), Arc::clone(&batch)).boxed().shared();
        // Weak: a batch nobody polls must not stand in the queue of the pool.
        *open = work.downgrade().map(|weak| (Arc::clone(&batch), weak));
        (batch, 0, work)
    }
}

impl Batch {
    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a group while there is space; the first always has it.
    fn add(&self, group: PendingGroup) -> Result<usize, PendingGroup> {
        let mut gathering = self.gathering();
        // Looked at and added to under one lock: nobody joins a batch that is being committed.
        if gathering.taken || gathering.items > ITEMS_MAX || gathering.bytes > BYTES_MAX {
            return Err(group);
        }
        gathering.items += group.items.len();
        gathering.bytes += group.items.iter().map(|item| item.data.len()).sum::<usize>();
        gathering.groups.push(Some(group));
        Ok(gathering.groups.len() - 1)
    }

    /// Takes a group back; false when it is too late for that.
    fn leave(&self, place: usize) -> bool {
        let mut gathering = self.gathering();
        !gathering.taken && gathering.groups.get_mut(place).is_some_and(|group| group.take().is_some())
    }

    /// All groups; nobody can join or leave any more.
    fn take(&self) -> Vec<Option<PendingGroup>> {
        let mut gathering = self.gathering();
        gathering.taken = true;
        mem::take(&mut gathering.groups)
    }
}

/// Waits for the turn to write, closes the batch and commits it.
async fn run(pools: Arc<Pools>, batch: Arc<Batch>) -> SharedResults {
    let all = |count: usize, error: &StoreError| Arc::new(vec![Err(error.clone()); count]);
    let mut turn = match pools.durable.turn().await {
        Ok(turn) => turn,
        Err(error) => return all(batch.take().len(), &error),
    };
    let conn = match turn.conn(&pools.dialer).await {
        Ok(conn) => conn,
        Err(error) => return all(batch.take().len(), &error),
    };
    // certainly not stored, so it is said before anything is written
    if let Some(Err(why)) = pools.file.as_ref().map(FileIdentity::check) {
        return all(batch.take().len(), &StoreError::Unreachable(why));
    }
    // As late as can be: whoever came during the wait is taken along.
    let groups = batch.take();
    let present: Vec<&PendingGroup> = groups.iter().flatten().collect();
    let mut sound = true;
    let done = match commit(conn, pools.epoch, &present).await {
        Ok(done) => done,
        // One group's item must not be another group's failure.
        Err(failure) if present.len() > 1 && failure.of_an_item() => {
            let mut done = Vec::with_capacity(present.len());
            for group in present {
                let alone = commit(conn, pools.epoch, &[group]).await;
                sound &= alone.as_ref().err().is_none_or(|failure| failure.undone);
                done.push(match alone {
                    Ok(mut one) => one.pop().unwrap_or(Err(StoreError::Closed)),
                    Err(failure) => Err(failure.into()),
                });
            }
            done
        }
        Err(failure) => {
            sound = failure.undone;
            let error = StoreError::from(failure);
            tracing::debug!(%error, "a commit failed");
            vec![Err(error); present.len()]
        }
    };
    // Else the next call opens another connection: this one may hold a transaction.
    if sound {
        turn.good();
    }
    // the file may have gone since: an `ok` would promise what the next process cannot find
    let done = match pools.file.as_ref().map(FileIdentity::check_committed) {
        Some(Err(why)) => vec![Err(StoreError::Unknown(why)); done.len()],
        Some(Ok(())) | None => done,
    };
    let mut done = done.into_iter();
    let absent = || Err(StoreError::Closed);
    Arc::new(groups.iter().map(|g| g.as_ref().and_then(|_| done.next()).unwrap_or_else(absent)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> PendingGroup {
        PendingGroup { not_after_ms: 0, items: Vec::new() }
    }

    #[test]
    fn who_gives_up_in_time_is_not_committed() {
        let batch = Batch::default();
        assert!(matches!((batch.add(group()), batch.add(group())), (Ok(0), Ok(1))));
        assert!(batch.leave(0) && !batch.leave(0));
        assert_eq!(batch.take().iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
        assert!(!batch.leave(1) && batch.add(group()).is_err(), "too late");
    }

    #[test]
    fn a_full_batch_is_not_joined() {
        let batch = Batch::default();
        batch.gathering().bytes = BYTES_MAX + 1;
        assert!(batch.add(group()).is_err());
    }
}
