//! A store that keeps the contract in memory and fails on command, and neighbours to go with it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use sluice_cluster::{Cluster, Duty, DutyInfo, Instance, Service, State, View};
use sluice_presence::{Change, Leave, Presence, PresenceError, Present};
use sluice_proto::grpc::Notice;
use sluice_proto::ids::{Epoch, InstanceId, RoomId, Seq, UserId};
use sluice_queue::{Consumer, Queue, QueueError};
use sluice_store::{
    Committed, Heads, NewMessage, NoteId, Outcome, Pages, Range, Retention, Row, StaleNote, Store,
    StoreError, Trimmed,
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
}

/// The store.
pub struct Faulty {
    memory: Mutex<Memory>,
    /// Groups that have come, held or not.
    arrived: watch::Sender<usize>,
    held: watch::Sender<bool>,
    pub now_ms: AtomicI64,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Mutex::default(),
            arrived: watch::Sender::new(0),
            held: watch::Sender::new(false),
            now_ms: AtomicI64::new(1_000),
        })
    }

    /// What happens to the next groups, in order; afterwards nothing.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.memory.lock().unwrap().script.extend(faults);
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
        Err(StoreError::Unreachable("not part of this fake".into()))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        let memory = self.memory.lock().unwrap();
        let head = |room: &RoomId| memory.rooms.get(room.as_str()).map_or(0, |room| room.len() as Seq);
        Ok(Heads { epoch: EPOCH, heads: rooms.iter().map(head).collect() })
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(EPOCH)
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

    async fn close(&self) {}
}

/// A queue that remembers, while it is up.
pub struct Remembering {
    pub up: AtomicBool,
    sent: watch::Sender<Vec<Notice>>,
}

impl Remembering {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { up: AtomicBool::new(true), sent: watch::Sender::default() })
    }

    /// The notices, once there are at least so many.
    pub async fn sent(&self, notices: usize) -> Vec<Notice> {
        self.sent.subscribe().wait_for(|sent| sent.len() >= notices).await.unwrap().clone()
    }
}

#[async_trait]
impl Queue for Remembering {
    async fn publish(&self, _lane: u8, notice: Bytes) -> Result<(), QueueError> {
        if !self.up.load(Ordering::SeqCst) {
            return Err(QueueError::NotConnected);
        }
        let notice = Notice::decode(notice).unwrap();
        self.sent.send_modify(|sent| sent.push(notice));
        Ok(())
    }

    async fn consumer(&self) -> Result<Box<dyn Consumer>, QueueError> {
        Err(QueueError::Closed)
    }

    fn connected(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    async fn close(&self) {}
}

/// A Redis that is away.
pub struct Away;

fn away<T>() -> Result<T, PresenceError> {
    Err(PresenceError::Unavailable("away".into()))
}

#[async_trait]
impl Presence for Away {
    async fn add_interest(&self, _: &InstanceId, _: &[RoomId]) -> Result<(), PresenceError> {
        away()
    }

    async fn remove_interest(&self, _: &InstanceId, _: &[RoomId]) -> Result<(), PresenceError> {
        away()
    }

    async fn interested(&self, _: &[RoomId]) -> Result<Vec<Vec<InstanceId>>, PresenceError> {
        away()
    }

    async fn apply(&self, _: &InstanceId, _: &[Change]) -> Result<Vec<Leave>, PresenceError> {
        away()
    }

    async fn full_set(&self, _: &InstanceId, _: u64, _: &[Change], _: bool) -> Result<(), PresenceError> {
        away()
    }

    async fn marker(&self) -> Result<u64, PresenceError> {
        away()
    }

    async fn room(&self, _: &RoomId, _: usize) -> Result<Vec<Present>, PresenceError> {
        away()
    }

    async fn user(&self, _: &UserId) -> Result<Option<Present>, PresenceError> {
        away()
    }

    async fn instances(&self) -> Result<Vec<InstanceId>, PresenceError> {
        away()
    }

    async fn reap(&self, _: &InstanceId) -> Result<u64, PresenceError> {
        away()
    }

    async fn close(&self) {}
}

/// A cluster of this process and whom a test adds.
pub struct Neighbours {
    view: watch::Sender<Arc<View>>,
    me: watch::Sender<InstanceId>,
    pub states: Mutex<Vec<State>>,
}

impl Neighbours {
    pub fn none() -> Arc<Self> {
        let me = InstanceId::fresh("logic", "test");
        let (view, me) = (watch::Sender::default(), watch::Sender::new(me));
        Arc::new(Self { view, me, states: Mutex::default() })
    }

    /// Another logic is there, in this state.
    pub fn logic(&self, id: &str, state: State) {
        let id = InstanceId::parse(id).unwrap();
        let instance = Instance {
            id: id.clone(),
            service: Service::Logic,
            address: "127.0.0.1:1".into(),
            url: None,
            version: "1".into(),
            started_ms: 1,
            state,
            headroom: None,
        };
        self.view.send_modify(|view| {
            let mut next = (**view).clone();
            next.instances.insert(id, instance);
            *view = Arc::new(next);
        });
    }
}

#[async_trait]
impl Cluster for Neighbours {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    fn me(&self) -> watch::Receiver<InstanceId> {
        self.me.subscribe()
    }

    async fn set_state(&self, state: State) {
        self.states.lock().unwrap().push(state);
    }

    fn gone(&self) -> Vec<InstanceId> {
        Vec::new()
    }

    fn owned(&self) -> watch::Receiver<BTreeSet<Duty>> {
        watch::Sender::default().subscribe()
    }

    fn duties(&self) -> Vec<DutyInfo> {
        Vec::new()
    }

    async fn release_duties(&self) {}

    async fn close(&self) {}
}
