//! SQLite under test: a file of its own, reached by the test through another program's eyes, read-only or not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, UserId};
use sluice_proto::revocation::Revocation;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{
    Committed, DelayedItem, DelayedOutcome, Fired, Heads, LockedRooms, NewMessage, NoteId, Pages, Range,
    Retention, RevocationPage, RoomList, RoomQuery, ScheduledList, ScheduledQuery, StaleNote, Store,
    StoreError, Trimmed, WaitingLimit,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::rig::{Rig, Table, TableRow};

/// A store behind a handle that outlives it, and whose publishes can be cut off in the middle.
#[derive(Clone)]
pub struct Fickle(Arc<Inside>);

struct Inside {
    store: Mutex<Option<Arc<SqliteStore>>>,
    cut: Notify,
}

impl Fickle {
    pub fn new(store: SqliteStore) -> Self {
        Self(Arc::new(Inside { store: Mutex::new(Some(Arc::new(store))), cut: Notify::new() }))
    }

    pub fn cut(&self) {
        self.0.cut.notify_waiters();
    }

    /// Drops the store with everything in flight, and comes back when nothing of it is left.
    pub async fn drop_store(&self) {
        let store: Weak<SqliteStore> =
            self.0.store.lock().unwrap().take().map(|store| Arc::downgrade(&store)).unwrap();
        while store.strong_count() > 0 {
            self.cut();
            tokio::task::yield_now().await;
        }
    }

    pub fn put(&self, store: SqliteStore) {
        *self.0.store.lock().unwrap() = Some(Arc::new(store));
    }

    pub fn is_there(&self) -> bool {
        self.0.store.lock().unwrap().is_some()
    }

    fn store(&self) -> Result<Arc<SqliteStore>, StoreError> {
        let store = self.0.store.lock().unwrap().clone();
        store.ok_or_else(|| StoreError::Unreachable("down".to_owned()))
    }
}

#[async_trait]
impl Store for Fickle {
    async fn publish(
        &self,
        lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError> {
        let store = self.store()?;
        tokio::select! {
            biased;
            () = self.0.cut.notified() => Err(StoreError::Unknown("cut".to_owned())),
            answer = store.publish(lane, not_after_ms, items) => answer,
        }
    }
    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Result<Pages, StoreError> {
        self.store()?.read(ranges, bytes_max).await
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        self.store()?.heads(rooms).await
    }
    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError> {
        self.store()?.rooms(query).await
    }
    async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
        self.store()?.scheduled(query).await
    }
    async fn epoch(&self) -> Result<Epoch, StoreError> {
        self.store()?.epoch().await
    }
    async fn delay(
        &self,
        lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError> {
        let store = self.store()?;
        tokio::select! {
            biased;
            () = self.0.cut.notified() => Err(StoreError::Unknown("cut".to_owned())),
            answer = store.delay(lane, not_after_ms, limit, items) => answer,
        }
    }
    async fn next_due(&self, lanes: &[u8]) -> Result<Option<Duration>, StoreError> {
        self.store()?.next_due(lanes).await
    }
    async fn fire_due(&self, lane: u8, limit: usize, locked: &LockedRooms) -> Result<Fired, StoreError> {
        let store = self.store()?;
        tokio::select! {
            biased;
            () = self.0.cut.notified() => Err(StoreError::Unknown("cut".to_owned())),
            answer = store.fire_due(lane, limit, locked) => answer,
        }
    }
    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.store()?.forget_cancelled(older_than, limit).await
    }
    async fn noted(&self, notes: &[NoteId]) -> Result<(), StoreError> {
        self.store()?.noted(notes).await
    }
    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Result<Vec<StaleNote>, StoreError> {
        self.store()?.stale_notes(older_than, limit).await
    }
    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.store()?.drop_old_notes(older_than, limit).await
    }
    async fn trim(&self, policy: &Retention, limit: usize) -> Result<Trimmed, StoreError> {
        self.store()?.trim(policy, limit).await
    }
    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError> {
        self.store()?.revoke(user, issued_until_s).await
    }
    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        self.store()?.revocations(after, limit).await
    }
    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError> {
        self.store()?.revoked_up_to(position).await
    }
    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        self.store()?.revocations_of(users).await
    }
    async fn close(&self) {
        if let Ok(store) = self.store() {
            store.close().await;
        }
    }
}

pub struct FileRig {
    folder: TempDir,
    store: Fickle,
}

/// A connection of another program.
pub async fn outside(path: &Path, read_only: bool) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).read_only(read_only);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// All that a file holds, as a reader from outside sees it.
pub async fn table_of(path: &Path) -> Table {
    let mut conn = outside(path, true).await;
    let mut conn = conn.begin().await.unwrap();
    let seq = |row: &sqlx::sqlite::SqliteRow, i: usize| u64::try_from(row.get::<i64, _>(i)).unwrap();
    let heads = conn.fetch_all("select room, head from rooms").await.unwrap();
    let rows = "select room, seq, sender, key, hash, at_ms from messages order by room, seq";
    let rows = conn.fetch_all(rows).await.unwrap();
    let owed = "select r.value ->> 0, r.value ->> 1, r.value ->> 2 from outbox, json_each(runs) r";
    let owed = conn.fetch_all(owed).await.unwrap();
    Table {
        heads: heads.iter().map(|r| (r.get(0), seq(r, 1))).collect(),
        rows: rows
            .iter()
            .map(|r| TableRow {
                room: r.get(0),
                seq: seq(r, 1),
                sender: r.get(2),
                key: r.get(3),
                hash: r.get(4),
                at_ms: r.get(5),
            })
            .collect(),
        owed: owed.iter().map(|r| (r.get(0), seq(r, 1), seq(r, 2))).collect(),
        deadlocks: 0,
    }
}

impl FileRig {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }
}

#[async_trait]
impl Rig for FileRig {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-store-").tempdir().unwrap();
        let store = SqliteStore::open(SqliteConfig::at(folder.path().join("store.db"))).await.unwrap();
        Self { folder, store: Fickle::new(store) }
    }

    /// The file has one store; all callers share it. A store that was closed is opened again.
    async fn open(&self) -> Arc<dyn Store> {
        if !self.store.is_there() {
            self.store.put(SqliteStore::open(SqliteConfig::at(self.path())).await.unwrap());
        }
        Arc::new(self.store.clone())
    }

    async fn cut(&self) {
        self.store.cut();
    }

    /// No process is killed here (see `crash`): the store is dropped in the middle, without being closed.
    async fn crash(&mut self) {
        self.store.drop_store().await;
        self.open().await;
    }

    async fn table(&self) -> Table {
        table_of(&self.path()).await
    }

    async fn run(&self, sql: &str) {
        let mut conn = outside(&self.path(), false).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }

    async fn age_those(&self, which: &str, seconds: i64) {
        self.run(&format!("update messages set at_ms = at_ms - 1000 * {seconds} where {which}")).await;
    }

    async fn age(&self, room: &str, seconds: i64) {
        self.age_those(&format!("room = '{room}'"), seconds).await;
        self.run(&format!(
            "update outbox set at_ms = at_ms - 1000 * {seconds} \
             where exists (select 1 from json_each(runs) r where r.value ->> 0 = '{room}')"
        ))
        .await;
    }

    async fn refuse_poison(&self) {
        self.run(
            "create trigger taste before insert on messages when cast(new.data as text) = 'poison' \
             begin select raise(abort, 'tastes bad'); end",
        )
        .await;
    }

    async fn hold(&self) -> Box<dyn Send> {
        let mut holder = outside(&self.path(), false).await;
        holder.execute("begin immediate").await.unwrap();
        Box::new(holder)
    }

    async fn open_transactions(&self) -> usize {
        let options = SqliteConnectOptions::new().filename(self.path()).busy_timeout(Duration::ZERO);
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        usize::from(conn.execute("begin immediate").await.is_err())
    }
}
