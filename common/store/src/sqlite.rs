//! The store in one file, for one process: what `sluice serve` and `sluice dev` remember with.
//!
//! Commits go through one connection, one transaction at a time, each of them synced (`synchronous=FULL`, WAL); reads
//! have connections of their own and never wait for commits. Retries of writes are the caller's. The file
//! belongs to one process; others may read it (the tables are described in `migrations/sqlite`).
//!
//! A backup is marked as one, and begins a new epoch when it is put in use. Any other older copy put in the file's place
//! cannot be told from the file: run `sluice store new-epoch` after that.

mod backup;
mod commits;
mod config;
#[cfg(feature = "postgres")]
pub(crate) mod copy_out;
mod delayed;
mod dial;
mod failure;
mod file_identity;
mod ledger;
mod listing;
mod lock;
mod migrations;
mod pool;
mod publish;
mod read;
mod revocations;
mod space;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, Seq, UserId};
use sluice_proto::revocation::Revocation;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use tokio::time::{Instant, timeout};

pub use backup::{Backup, BackupError, BackupProgress, backup, restore};
pub use config::SqliteConfig;

use crate::{
    Committed, DelayedItem, DelayedOutcome, Fired, Heads, LockedRooms, NewMessage, NoteId, Pages, Range,
    Retention, RevocationPage, RoomList, RoomQuery, ScheduledList, ScheduledQuery, StaleNote, Store,
    StoreError, Trimmed, WaitingLimit,
};
use commits::Commits;
use dial::{Dialer, Kind};
use failure::{Failure, dial_error};
use file_identity::FileIdentity;
use lock::FileLock;
use pool::Pool;
use publish::PendingGroup;

/// How long [`Store::close`] waits for calls in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The store in one SQLite file, for one process.
pub struct SqliteStore {
    pools: Arc<Pools>,
    commits: Commits,
    /// The room that retention looked at last; "" = begin with the first.
    trim_from: Mutex<String>,
    /// Given back after the connections; `None` in memory and when closed.
    lock: Mutex<Option<FileLock>>,
}

/// The connections. In memory all pools are one.
struct Pools {
    dialer: Dialer,
    /// `None` in memory.
    file: Option<FileIdentity>,
    epoch: Epoch,
    call_timeout: Duration,
    durable: Pool,
    forgetful: Pool,
    reads: Pool,
}

impl SqliteStore {
    /// Opens or makes the file, migrates it if needed, and checks that what it commits stays.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`]: will not get better by itself, the text names the fix; another process uses the file,
    /// for example. Any other: the file was not reached in time, try again.
    pub async fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let OpenedFile { lock, dialer, file, epoch, conn } =
            OpenedFile::new(config.path, config.call_timeout, true).await?;
        // In memory a second connection would be a second, empty store.
        let (durable, forgetful, reads) = if dialer.in_memory() {
            let pool = Pool::with(Kind::Durable, conn);
            (pool.clone(), pool.clone(), pool)
        } else {
            let pool = Pool::with(Kind::Durable, conn);
            let reads = u32::try_from(config.read_connections).unwrap_or(u32::MAX);
            (pool.clone(), pool.beside(Kind::Forgetful), Pool::new(Kind::Reading, reads))
        };
        let pools =
            Pools { dialer, file, epoch, call_timeout: config.call_timeout, durable, forgetful, reads };
        Ok(Self {
            pools: Arc::new(pools),
            commits: Commits::default(),
            trim_from: Mutex::default(),
            lock: Mutex::new(lock),
        })
    }

    /// Whether what was answered survives this process: not in memory.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !self.pools.dialer.in_memory()
    }

    /// Whether the file is still where it was opened: not deleted, moved or replaced. Cheap; publishes look themselves.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`]: what happened to it. Nothing can be kept any more.
    pub fn check_file(&self) -> Result<(), StoreError> {
        let file = self.pools.file.as_ref();
        file.map_or(Ok(()), FileIdentity::check).map_err(StoreError::Misconfigured)
    }

    /// After an older copy was put in the file's place: sets a fresh epoch. Needs the file for itself.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] while a process uses the file, or when there is none. After any other the epoch may
    /// have been set; run it again.
    pub async fn new_epoch(path: &Path) -> Result<Epoch, StoreError> {
        let config = SqliteConfig::at(path);
        let OpenedFile { lock, mut conn, .. } =
            OpenedFile::new(config.path, config.call_timeout, false).await?;
        let sql = "update meta set epoch = lower(hex(randomblob(16)))";
        sqlx::query(sql).execute(&mut conn).await.map_err(|e| dial_error(&e))?;
        let epoch = dial::read_epoch(&mut conn).await.map_err(|e| dial_error(&e))?;
        dial::close(conn).await;
        drop(lock);
        Ok(epoch)
    }

    fn trim_from(&self) -> MutexGuard<'_, String> {
        self.trim_from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is ours, checked and migrated, with its first connection.
struct OpenedFile {
    lock: Option<FileLock>,
    dialer: Dialer,
    file: Option<FileIdentity>,
    epoch: Epoch,
    conn: SqliteConnection,
}

impl OpenedFile {
    async fn new(path: Option<PathBuf>, call_timeout: Duration, create: bool) -> Result<Self, StoreError> {
        let path = path.as_deref().map(real).transpose()?;
        // Before SQLite opens the file: a second process must hear who has it, not wait in the busy
        // loop.
        let lock = path.as_deref().map(FileLock::take).transpose()?;
        let dialer = Dialer::new(path.clone(), call_timeout / 2);
        let mut conn = dialer.first(create).await?;
        let file = path.as_deref().map(FileIdentity::of).transpose()?; // SQLite has it open: this is the one
        migrations::migrate(&mut conn).await?;
        backup::put_in_use(&mut conn).await.map_err(|e| dial_error(&e))?;
        let epoch = dial::read_epoch(&mut conn).await.map_err(|e| dial_error(&e))?;
        Ok(Self { lock, dialer, file, epoch, conn })
    }
}

/// One name for each file, so that there is one lock for it.
fn real(path: &Path) -> Result<PathBuf, StoreError> {
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => Ok(folder.join(name)),
        (Err(_), _) | (_, None) => Err(StoreError::Misconfigured(format!(
            "sqlite.path {} cannot be used; make the folder {} first, or correct the path",
            path.display(),
            folder.display()
        ))),
    }
}

impl Pools {
    /// The file is there: else nothing is written, and that is certain.
    fn before_commit(&self) -> Result<(), StoreError> {
        self.file.as_ref().map_or(Ok(()), FileIdentity::check).map_err(StoreError::Unreachable)
    }

    /// What was committed, unless the file went meanwhile: an `ok` would promise what the next process cannot find.
    fn committed<T>(&self, done: T) -> Result<T, StoreError> {
        self.file.as_ref().map_or(Ok(()), FileIdentity::check_committed).map_err(StoreError::Unknown)?;
        Ok(done)
    }

    /// Within the time of a call. What takes longer is dropped, and the connection with it.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        // Unknown: the worker thread goes on with the statement after its future is dropped.
        let late = || format!("no answer within {} ms", self.call_timeout.as_millis());
        timeout(self.call_timeout, call).await.unwrap_or_else(|_| Err(StoreError::Unknown(late())))
    }
}

/// Runs `$work` on a connection of a pool, within the time of a call.
macro_rules! ask {
    ($pools:expr, $pool:ident, |$conn:ident| $work:expr) => {{
        let pools = &$pools;
        pools
            .in_time(async {
                let mut turn = pools.$pool.turn().await?;
                let $conn = turn.conn(&pools.dialer).await?;
                let answer = $work.await.map_err(Failure::from)?;
                turn.good();
                Ok(answer)
            })
            .await
    }};
}

#[async_trait]
impl Store for SqliteStore {
    /// Lanes share one connection; groups that wait are committed together.
    async fn publish(
        &self,
        _lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError> {
        let deadline = Instant::now() + self.pools.call_timeout;
        self.commits.publish(&self.pools, deadline, PendingGroup { not_after_ms, items }).await
    }

    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Result<Pages, StoreError> {
        ask!(self.pools, reads, |conn| read::pages(conn, self.pools.epoch, ranges, bytes_max))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        ask!(self.pools, reads, |conn| read::heads(conn, self.pools.epoch, rooms))
    }

    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError> {
        ask!(self.pools, reads, |conn| listing::rooms(conn, self.pools.epoch, query))
    }

    async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
        ask!(self.pools, reads, |conn| listing::scheduled(conn, query))
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        ask!(self.pools, reads, |conn| dial::read_epoch(conn))
    }

    /// A group of somebody's says more than a write of ours could; but after one found no space nobody may publish.
    async fn probe_commit(&self, thorough: bool) -> Result<(), StoreError> {
        self.epoch().await?;
        match self.pools.dialer.path().filter(|_| thorough) {
            Some(path) => space::probe(path).await,
            None => Ok(()),
        }
    }

    async fn delay(
        &self,
        _lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError> {
        self.pools.before_commit()?;
        let outcomes = ask!(self.pools, durable, |conn| delayed::delay(conn, not_after_ms, limit, &items))??;
        self.pools.committed(outcomes)
    }

    async fn next_due(&self, lanes: &[u8]) -> Result<Option<Duration>, StoreError> {
        ask!(self.pools, reads, |conn| delayed::next(conn, lanes))
    }

    /// All that write take turns: no room is ever locked by itself.
    async fn fire_due(&self, lane: u8, limit: usize, _locked: &LockedRooms) -> Result<Fired, StoreError> {
        self.pools.before_commit()?;
        let fired = ask!(self.pools, durable, |conn| delayed::fire(conn, self.pools.epoch, lane, limit))?;
        self.pools.committed(fired)
    }

    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        ask!(self.pools, forgetful, |conn| delayed::forget_cancelled(conn, older_than, limit))
    }

    async fn noted(&self, notes: &[NoteId]) -> Result<(), StoreError> {
        ask!(self.pools, forgetful, |conn| upkeep::noted(conn, notes))
    }

    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Result<Vec<StaleNote>, StoreError> {
        ask!(self.pools, reads, |conn| upkeep::stale(conn, older_than, limit))
    }

    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        ask!(self.pools, forgetful, |conn| upkeep::drop_old(conn, older_than, limit))
    }

    async fn trim(&self, policy: &Retention, limit: usize) -> Result<Trimmed, StoreError> {
        let from = self.trim_from().clone();
        // Looked for by a reader: commits wait only for the deletes.
        let cuts = ask!(self.pools, reads, |conn| upkeep::ripe(conn, &from, policy, limit))?;
        let messages = ask!(self.pools, forgetful, |conn| upkeep::cut(conn, &cuts))?;
        *self.trim_from() = cuts.next_from;
        Ok(Trimmed { messages, more: usize::try_from(messages).is_ok_and(|n| n >= limit) })
    }

    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError> {
        self.pools.before_commit()?;
        let revoked = ask!(self.pools, durable, |conn| revocations::revoke(conn, user, issued_until_s))?;
        self.pools.committed(revoked)
    }

    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        ask!(self.pools, reads, |conn| revocations::after(conn, self.pools.epoch, after, limit))
    }

    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError> {
        ask!(self.pools, reads, |conn| revocations::up_to(conn, position))
    }

    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        ask!(self.pools, reads, |conn| revocations::of(conn, users))
    }

    async fn close(&self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let mut closed = true;
        for pool in [&self.pools.reads, &self.pools.forgetful, &self.pools.durable] {
            closed &= pool.close(deadline).await;
        }
        // What still writes keeps the file until this process ends.
        if closed {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Milliseconds since 1970: the store's clock.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn seq_of(row: &SqliteRow, column: &str) -> Result<Seq, sqlx::Error> {
    let seq: i64 = row.try_get(column)?;
    Seq::try_from(seq).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// A position as the file counts; one beyond its numbers is beyond every room.
fn position(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
