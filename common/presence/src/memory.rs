//! Presence inside one process: what Redis is to a cluster, without a server.
//!
//! Kept in memory only, and as forgetful as Redis may be: gateways announce again what is lost with the process.

mod tables;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sluice_proto::ids::{InstanceId, RoomId, UserId};

use tokio::time::Instant;

use self::tables::Tables;
use crate::{
    Applied, Change, DueLeaves, LEAVE_GRACE, Presence, PresenceError, Present, QUIET, Result, Roster,
};

/// [`Presence`] inside one process. One for each service: see [`MemoryPresence::share`].
pub struct MemoryPresence {
    memory: Arc<Memory>,
    closed: AtomicBool,
}

/// What all that share a presence have in common.
struct Memory {
    tables: Mutex<Tables>,
    away: AtomicBool,
    begun: (Instant, SystemTime),
}

impl Default for MemoryPresence {
    fn default() -> Self {
        Self::with_grace(LEAVE_GRACE)
    }
}

impl MemoryPresence {
    /// One that tells a leave when its user was away for so long.
    #[must_use]
    pub fn with_grace(grace: Duration) -> Self {
        let tables = Mutex::new(Tables::with_grace(millis(grace)));
        let begun = (Instant::now(), SystemTime::now());
        let memory = Memory { tables, away: AtomicBool::default(), begun };
        Self { memory: Arc::new(memory), closed: AtomicBool::new(false) }
    }

    /// The same presence for another service: each closes only its own, like a connection to a server.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), closed: AtomicBool::new(false) }
    }

    /// Forgets everything, the marker too, as a server that came back empty.
    pub fn wipe(&self) {
        let quiet_until = self.memory.now_ms() + millis(QUIET);
        self.memory.tables.lock().unwrap_or_else(PoisonError::into_inner).wipe(quiet_until);
    }

    /// Behaves as a server that is down, or up again, for all that share it. Nothing is forgotten by that.
    pub fn set_away(&self, away: bool) {
        self.memory.away.store(away, Ordering::SeqCst);
    }

    fn call<T>(&self, call: impl FnOnce(&mut Tables) -> T) -> Result<T> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(PresenceError::Closed);
        }
        // After the look whether it is closed: that is final, and callers give up on it.
        if self.memory.away.load(Ordering::SeqCst) {
            return Err(PresenceError::Unavailable("it is away".into()));
        }
        let now_ms = self.memory.now_ms();
        let mut tables = self.memory.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.now_ms = now_ms;
        Ok(call(&mut tables))
    }
}

impl Memory {
    /// Milliseconds since 1970; goes on at the pace of the runtime's clock, which tests may pause.
    fn now_ms(&self) -> i64 {
        let (begun, wall) = self.begun;
        millis(wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + begun.elapsed())
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn add_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestAdded).collect();
        self.apply(instance, &changes).await.stored
    }

    async fn remove_interest(&self, instance: &InstanceId, rooms: &[RoomId]) -> Result<()> {
        let changes: Vec<_> = rooms.iter().cloned().map(Change::InterestRemoved).collect();
        self.apply(instance, &changes).await.stored
    }

    async fn interested(&self, rooms: &[RoomId]) -> Result<Vec<Vec<InstanceId>>> {
        self.call(|tables| rooms.iter().map(|room| tables.interested(room)).collect())
    }

    async fn apply(&self, instance: &InstanceId, changes: &[Change]) -> Applied {
        self.call(|tables| tables.apply(instance, changes)).into()
    }

    async fn due_leaves(&self) -> Result<DueLeaves> {
        self.call(Tables::due_leaves)
    }

    async fn full_set(
        &self,
        instance: &InstanceId,
        generation: u64,
        changes: &[Change],
        last: bool,
    ) -> Result<()> {
        self.call(|tables| tables.full_set(instance, generation, changes, last))
    }

    async fn marker(&self) -> Result<u64> {
        self.call(Tables::marker)
    }

    async fn room(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Result<Roster> {
        self.call(|tables| tables.room(room, after, limit))
    }

    async fn subscribers(&self, rooms: &[RoomId]) -> Result<Vec<u64>> {
        self.call(|tables| rooms.iter().map(|room| tables.subscribers(room)).collect())
    }

    async fn user(&self, user: &UserId) -> Result<Option<Present>> {
        self.call(|tables| tables.user(user))
    }

    async fn instances(&self) -> Result<Vec<InstanceId>> {
        self.call(|tables| tables.instances())
    }

    async fn reap(&self, instance: &InstanceId) -> Result<u64> {
        self.call(|tables| tables.reap(instance))
    }

    async fn goodbye(&self, instance: &InstanceId) -> Result<()> {
        self.call(|tables| tables.goodbye(instance))
    }

    async fn keep_ticket(&self, name: &str, record: &[u8], keep: Duration) -> Result<()> {
        self.call(|tables| tables.tickets.keep(name, record, tables.now_ms, millis(keep)))
    }

    async fn take_ticket(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.call(|tables| tables.tickets.take(name, tables.now_ms))
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}
