//! A store that keeps the contract in memory and fails on command.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, Seq, UserId};
use sluice_proto::revocation::Revocation;
use sluice_store::{
    Committed, DelayedItem, DelayedOutcome, Due, Fired, Heads, LockedRooms, NewMessage, NoteId, Outcome,
    Pages, Range, Retention, RevocationPage, RoomList, RoomQuery, RoomSummary, Row, ScheduledList,
    ScheduledQuery, StaleNote, Store, StoreError, Trimmed, WaitingLimit,
};
use tokio::sync::watch;

/// Data that no store can hold.
pub const POISON: &str = "\"poison\"";

/// What happens to a group on its way.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The answer is lost; the group is stored, or not.
    Unknown { stored: bool },
    /// Nobody there.
    Unreachable,
    /// Served by another history.
    Epoch(u64),
}

struct Stored {
    sender: String,
    key: String,
    hash: [u8; 32],
}

#[derive(Default)]
struct Memory {
    rooms: HashMap<String, Vec<Stored>>,
    script: VecDeque<Fault>,
    groups: Vec<Vec<String>>,
    locked: Vec<String>,
    revocations: Vec<Revocation>,
}

/// The store.
pub struct Faulty {
    memory: Mutex<Memory>,
    /// Groups that have come, held or not.
    arrived: watch::Sender<usize>,
    held: watch::Sender<bool>,
    /// Reads under way: none of them ends.
    pub reading: watch::Sender<usize>,
    pub now_ms: AtomicI64,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Mutex::default(),
            arrived: watch::Sender::new(0),
            held: watch::Sender::new(false),
            reading: watch::Sender::new(0),
            now_ms: AtomicI64::new(1_000),
        })
    }

    /// What happens to the next groups, in order; afterwards nothing.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.memory.lock().unwrap().script.extend(faults);
    }

    /// Somebody holds this room locked from now on.
    pub fn lock(&self, room: &str) {
        self.memory.lock().unwrap().locked.push(room.to_owned());
    }

    /// Groups that come wait until [`Faulty::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Waits until so many groups have come in all.
    pub async fn arrived(&self, groups: usize) {
        self.arrived.subscribe().wait_for(|n| *n >= groups).await.unwrap();
    }

    /// Keys of each group, in order of coming.
    pub fn groups(&self) -> Vec<Vec<String>> {
        self.memory.lock().unwrap().groups.clone()
    }

    /// Keys stored in a room, in order.
    pub fn keys(&self, room: &str) -> Vec<String> {
        let memory = self.memory.lock().unwrap();
        memory.rooms.get(room).into_iter().flatten().map(|stored| stored.key.clone()).collect()
    }
}

impl Memory {
    fn store(&mut self, items: &[NewMessage], at_ms: i64) -> Vec<Row> {
        let mut one = |item: &NewMessage| {
            let room = self.rooms.entry(item.room.to_string()).or_default();
            let same = |s: &Stored| s.sender == item.sender.as_str() && s.key == item.key.as_str();
            if let Some(at) = room.iter().position(same) {
                let seq = at as Seq + 1;
                return if room[at].hash == item.hash {
                    Outcome::Duplicate { seq }
                } else {
                    Outcome::Conflict
                };
            }
            let (sender, key) = (item.sender.to_string(), item.key.to_string());
            room.push(Stored { sender, key, hash: item.hash });
            Outcome::Stored { seq: room.len() as Seq, at_ms }
        };
        items.iter().map(|item| Row { outcome: one(item) }).collect()
    }
}

/// Counts a read until it is dropped.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn of(reading: &'a watch::Sender<usize>) -> Self {
        reading.send_modify(|n| *n += 1);
        Self(reading)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

const EPOCH: Epoch = Epoch(42);

#[async_trait]
impl Store for Faulty {
    async fn publish(
        &self,
        _lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError> {
        let keys = items.iter().map(|item| item.key.to_string()).collect();
        self.memory.lock().unwrap().groups.push(keys);
        self.arrived.send_modify(|n| *n += 1);
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        if now_ms > not_after_ms {
            return Err(StoreError::TooLate);
        }
        let mut memory = self.memory.lock().unwrap();
        if items.iter().any(|item| memory.locked.iter().any(|room| room == item.room.as_str())) {
            return Err(StoreError::RolledBack { sqlstate: "55P03".into(), message: "scripted".into() });
        }
        let fault = memory.script.pop_front().unwrap_or(Fault::Pass);
        let poison = items.iter().any(|item| &item.data[..] == POISON.as_bytes());
        match fault {
            Fault::Unreachable => return Err(StoreError::Unreachable("scripted".into())),
            Fault::Pass | Fault::Epoch(_) if poison => {
                return Err(StoreError::Poison { sqlstate: "54000".into(), message: "scripted".into() });
            }
            Fault::Unknown { stored: false } => return Err(StoreError::Unknown("scripted".into())),
            Fault::Pass | Fault::Epoch(_) | Fault::Unknown { stored: true } => {}
        }
        let rows = memory.store(&items, now_ms);
        match fault {
            Fault::Unknown { .. } => Err(StoreError::Unknown("scripted".into())),
            Fault::Epoch(epoch) => Ok(Committed { epoch: Epoch(epoch), rows, note: Some(NoteId(1)) }),
            Fault::Pass | Fault::Unreachable => Ok(Committed { epoch: EPOCH, rows, note: Some(NoteId(1)) }),
        }
    }

    async fn read(&self, _ranges: &[Range], _bytes_max: usize) -> Result<Pages, StoreError> {
        let _under_way = UnderWay::of(&self.reading);
        std::future::pending().await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        let memory = self.memory.lock().unwrap();
        let head = |room: &RoomId| memory.rooms.get(room.as_str()).map_or(0, |room| room.len() as Seq);
        Ok(Heads { epoch: EPOCH, heads: rooms.iter().map(head).collect() })
    }

    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError> {
        let memory = self.memory.lock().unwrap();
        let mut names: Vec<&String> =
            memory.rooms.keys().filter(|room| room.starts_with(&query.prefix)).collect();
        names.sort();
        let summary = |room: &String| RoomSummary {
            room: RoomId::parse(room).unwrap(),
            head: memory.rooms[room].len() as Seq,
            at_ms: None,
        };
        Ok(RoomList { epoch: EPOCH, rooms: names.into_iter().map(summary).collect(), more: false })
    }

    async fn scheduled(&self, _query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
        Ok(ScheduledList { messages: Vec::new(), more: false })
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(EPOCH)
    }

    async fn locked(&self, _lane: u8, rooms: &[RoomId]) -> Result<Vec<RoomId>, StoreError> {
        let memory = self.memory.lock().unwrap();
        let locked = |room: &&RoomId| memory.locked.iter().any(|locked| locked == room.as_str());
        Ok(rooms.iter().filter(locked).cloned().collect())
    }

    /// Everything waits for ever, as many of each call as may, and everything can be cancelled.
    async fn delay(
        &self,
        _lane: u8,
        _not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError> {
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let fault = self.memory.lock().unwrap().script.pop_front().unwrap_or(Fault::Pass);
        match fault {
            Fault::Unreachable => return Err(StoreError::Unreachable("scripted".into())),
            Fault::Unknown { .. } => return Err(StoreError::Unknown("scripted".into())),
            Fault::Pass | Fault::Epoch(_) => {}
        }
        let is_poison = |item: &DelayedItem| matches!(item, DelayedItem::Schedule { message, .. } if &message.data[..] == POISON.as_bytes());
        if items.iter().any(is_poison) {
            return Err(StoreError::Poison { sqlstate: "54000".into(), message: "scripted".into() });
        }
        let outcome = |item: DelayedItem| match item {
            DelayedItem::Schedule { due: Due::At(due_ms), .. } => DelayedOutcome::Waits { due_ms },
            DelayedItem::Schedule { due: Due::In(ms), .. } => DelayedOutcome::Waits { due_ms: now_ms + ms },
            DelayedItem::Cancel { .. } => DelayedOutcome::Cancelled,
        };
        let mut places = if limit.max == 0 { u32::MAX } else { limit.max };
        let placed = |outcome: DelayedOutcome| {
            if !matches!(outcome, DelayedOutcome::Waits { .. }) {
                return outcome;
            }
            let is_full = places == 0;
            places = places.saturating_sub(1);
            if is_full { DelayedOutcome::TooMany } else { outcome }
        };
        Ok(items.into_iter().map(outcome).map(placed).collect())
    }

    async fn next_due(&self, _lanes: &[u8]) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    async fn fire_due(&self, _: u8, _: usize, _: &LockedRooms) -> Result<Fired, StoreError> {
        Ok(Fired { epoch: EPOCH, taken: 0, conflicts: 0, runs: Vec::new(), locked: Vec::new(), note: None })
    }

    async fn forget_cancelled(&self, _older_than: Duration, _limit: usize) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn noted(&self, _notes: &[NoteId]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn stale_notes(&self, _older_than: Duration, _limit: usize) -> Result<Vec<StaleNote>, StoreError> {
        Ok(Vec::new())
    }

    async fn drop_old_notes(&self, _older_than: Duration, _limit: usize) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn trim(&self, _policy: &Retention, _limit: usize) -> Result<Trimmed, StoreError> {
        Ok(Trimmed::default())
    }

    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError> {
        let mut memory = self.memory.lock().unwrap();
        let position = memory.revocations.len() as u64 + 1;
        let now_s = u32::try_from(self.now_ms.load(Ordering::SeqCst) / 1_000).unwrap();
        let issued_until_s = issued_until_s.unwrap_or(now_s);
        let revocation = Revocation { user: user.clone(), issued_until_s, position };
        memory.revocations.push(revocation.clone());
        Ok(revocation)
    }

    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        let memory = self.memory.lock().unwrap();
        let page = memory.revocations.iter().filter(|one| one.position > after).take(limit).cloned();
        let head = memory.revocations.len() as u64;
        Ok(RevocationPage { epoch: EPOCH, head, page: page.collect() })
    }

    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError> {
        let memory = self.memory.lock().unwrap();
        let before = memory.revocations.iter().filter(|one| one.position <= position);
        Ok(before.map(|one| one.issued_until_s).max().unwrap_or(0))
    }

    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        let memory = self.memory.lock().unwrap();
        let of = |user: &UserId| {
            memory.revocations.iter().filter(|one| one.user == *user).map(|one| one.issued_until_s).max()
        };
        Ok(users.iter().map(of).collect())
    }

    async fn close(&self) {}
}
