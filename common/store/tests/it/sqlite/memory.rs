//! The store in memory under test: nobody can look past it, so its tables are what it says itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, UserId};
use sluice_proto::revocation::Revocation;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{
    Committed, DelayedItem, DelayedOutcome, Fired, Heads, LockedRooms, NewMessage, NoteId, Pages, Range,
    Retention, RevocationPage, RoomList, RoomQuery, ScheduledList, ScheduledQuery, StaleNote, Store,
    StoreError, Trimmed, WaitingLimit, hash_of,
};

use super::rig::Fickle;
use crate::cases::contract::{Is, after, messages, page, publish, room};
use crate::rig::{Rig, Table, TableRow};

/// Remembers which rooms there are.
#[derive(Clone)]
struct Noting(Fickle, Arc<Mutex<BTreeSet<RoomId>>>);

#[async_trait]
impl Store for Noting {
    async fn publish(
        &self,
        lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError> {
        self.1.lock().unwrap().extend(items.iter().map(|item| item.room.clone()));
        self.0.publish(lane, not_after_ms, items).await
    }
    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Result<Pages, StoreError> {
        self.0.read(ranges, bytes_max).await
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        self.0.heads(rooms).await
    }
    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError> {
        self.0.rooms(query).await
    }
    async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
        self.0.scheduled(query).await
    }
    async fn epoch(&self) -> Result<Epoch, StoreError> {
        self.0.epoch().await
    }
    async fn delay(
        &self,
        lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError> {
        let room = |item: &DelayedItem| match item {
            DelayedItem::Schedule { message, .. } => message.room.clone(),
            DelayedItem::Cancel { room, .. } => room.clone(),
        };
        self.1.lock().unwrap().extend(items.iter().map(room));
        self.0.delay(lane, not_after_ms, limit, items).await
    }
    async fn next_due(&self, lanes: &[u8]) -> Result<Option<Duration>, StoreError> {
        self.0.next_due(lanes).await
    }
    async fn fire_due(&self, lane: u8, limit: usize, locked: &LockedRooms) -> Result<Fired, StoreError> {
        self.0.fire_due(lane, limit, locked).await
    }
    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.0.forget_cancelled(older_than, limit).await
    }
    async fn noted(&self, notes: &[NoteId]) -> Result<(), StoreError> {
        self.0.noted(notes).await
    }
    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Result<Vec<StaleNote>, StoreError> {
        self.0.stale_notes(older_than, limit).await
    }
    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.0.drop_old_notes(older_than, limit).await
    }
    async fn trim(&self, policy: &Retention, limit: usize) -> Result<Trimmed, StoreError> {
        self.0.trim(policy, limit).await
    }
    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError> {
        self.0.revoke(user, issued_until_s).await
    }

    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        self.0.revocations(after, limit).await
    }

    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError> {
        self.0.revoked_up_to(position).await
    }

    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        self.0.revocations_of(users).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

pub struct MemoryRig(Noting);

#[async_trait]
impl Rig for MemoryRig {
    async fn start() -> Self {
        let store = SqliteStore::open(SqliteConfig::default()).await.unwrap();
        assert!(!store.is_durable());
        Self(Noting(Fickle::new(store), Arc::default()))
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    async fn cut(&self) {
        self.0.0.cut();
    }

    /// What memory holds does not survive a crash: there is none.
    async fn crash(&mut self) {}

    async fn table(&self) -> Table {
        let rooms: Vec<RoomId> = self.0.1.lock().unwrap().iter().cloned().collect();
        let heads = self.0.heads(&rooms).await.unwrap().heads;
        let mut rows = Vec::new();
        for room in &rooms {
            let mut from = 0;
            loop {
                let pages = self.0.read(&[after(room.as_str(), from, 0)], 1 << 24).await.unwrap();
                let Some(last) = pages.pages[0].messages.last() else { break };
                from = last.seq;
                rows.extend(pages.pages[0].messages.iter().map(|m| TableRow {
                    room: room.as_str().to_owned(),
                    seq: m.seq,
                    sender: m.sender.as_str().to_owned(),
                    key: m.key.as_str().to_owned(),
                    hash: hash_of(&m.data).to_vec(),
                    at_ms: m.at_ms,
                }));
            }
        }
        let owed = self.0.stale_notes(Duration::ZERO, usize::MAX).await.unwrap();
        let runs = owed.iter().flat_map(|note| &note.runs);
        let heads: BTreeMap<_, _> = rooms.iter().map(|room| room.as_str().to_owned()).zip(heads).collect();
        Table {
            heads,
            rows,
            owed: runs.map(|run| (run.room.as_str().to_owned(), run.first, run.last)).collect(),
            deadlocks: 0,
        }
    }

    async fn run(&self, sql: &str) {
        unreachable!("nobody reaches memory: {sql}");
    }
    async fn age_those(&self, which: &str, _seconds: i64) {
        self.run(which).await;
    }
    async fn age(&self, room: &str, _seconds: i64) {
        self.run(room).await;
    }
    async fn refuse_poison(&self) {
        self.run("poison").await;
    }
    async fn hold(&self) -> Box<dyn Send> {
        unreachable!("nobody holds memory")
    }
    async fn open_transactions(&self) -> usize {
        unreachable!("nobody looks into memory")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_calls_work_on_the_one_connection() {
    let store = SqliteStore::open(SqliteConfig::default()).await.unwrap();
    let other = SqliteStore::open(SqliteConfig::default()).await.unwrap();
    assert_eq!(publish(&store, messages("a", 5)).await.last(), Some(&Is::New(5)));
    assert_eq!(publish(&other, messages("a", 1)).await, [Is::New(1)], "each memory is its own");
    assert_ne!(store.epoch().await.unwrap(), other.epoch().await.unwrap());
    let notes = store.stale_notes(Duration::ZERO, 10).await.unwrap();
    store.noted(&[notes[0].id]).await.unwrap();
    assert_eq!(store.drop_old_notes(Duration::ZERO, 10).await.unwrap(), 0);
    let greedy = Retention { age: Some(Duration::ZERO), count: Some(2), dedupe_min: Duration::ZERO };
    tokio::time::sleep(Duration::from_millis(2)).await;
    let trimmed = store.trim(&greedy, 3).await.unwrap();
    assert_eq!((trimmed.messages, trimmed.more), (3, true));
    assert_eq!(page(&store, after("a", 0, 0)).await, (4, 5, vec![4, 5]));
    assert_eq!(store.heads(&[room("a")]).await.unwrap().heads, [5]);
    store.close().await;
    assert!(matches!(store.epoch().await, Err(StoreError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_do_not_lose_the_memory() {
    let store = SqliteStore::open(SqliteConfig::default()).await.unwrap();
    for n in 1..60 {
        let allowed = Duration::from_micros(40 * u64::try_from(n).unwrap());
        drop(tokio::time::timeout(allowed, store.publish(0, i64::MAX, messages("a", n))).await);
        drop(tokio::time::timeout(allowed, store.read(&[after("a", 0, 0)], 1 << 20)).await);
        assert_eq!(publish(&store, messages("a", n)).await.len(), n);
        assert_eq!(page(&store, after("a", 0, 0)).await.1, n as u64);
    }
}
