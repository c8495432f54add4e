//! A pool: one or a few like connections and the queue in front of them.
//!
//! A connection that did not answer well, or whose caller went away, is not used again: its transaction ends
//! with it, and the next call opens another. Only in memory there is no other; there the driver
//! has a rollback in front of whatever comes next.

use std::iter;
use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialer, Kind, close};
use crate::StoreError;

/// Connections to the file, lent one call at a time. A clone is the same pool.
#[derive(Clone)]
pub(super) struct Pool {
    kind: Kind,
    size: u32,
    turns: Arc<Semaphore>,
    slots: Arc<[Mutex<Slot>]>,
}

/// Where a connection is kept.
#[derive(Default)]
struct Slot {
    conn: Option<SqliteConnection>,
    /// Somebody began to use it and has not said that it went well.
    in_doubt: bool,
}

impl Pool {
    pub(super) fn new(kind: Kind, size: u32) -> Self {
        let size = size.clamp(1, 1000);
        let slots = iter::repeat_with(Mutex::default).take(size as usize).collect();
        Self { kind, size, turns: Arc::new(Semaphore::new(size as usize)), slots }
    }

    /// A pool that begins with this connection.
    pub(super) fn with(kind: Kind, conn: SqliteConnection) -> Self {
        let slot = Slot { conn: Some(conn), in_doubt: false };
        Self { kind, size: 1, turns: Arc::new(Semaphore::new(1)), slots: Arc::new([Mutex::new(slot)]) }
    }

    /// Another connection behind the same turns: SQLite has one writer, and waiting in its busy loop is not fair.
    pub(super) fn beside(&self, kind: Kind) -> Self {
        Self { turns: Arc::clone(&self.turns), ..Self::new(kind, self.size) }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let permit = self.turns.acquire().await.map_err(|_closed| StoreError::Closed)?;
        let slot = self.slots.iter().find_map(|slot| slot.try_lock().ok());
        let slot = slot.ok_or_else(|| StoreError::Unreachable("no connection is free".to_owned()))?;
        Ok(Turn { slot, kind: self.kind, _permit: permit })
    }

    /// Refuses new calls, waits for those in flight until `deadline`, closes the connections. Whether all are closed.
    pub(super) async fn close(&self, deadline: Instant) -> bool {
        // Turns are fair: whoever asks after this waits behind it and is then refused.
        let all = timeout_at(deadline, self.turns.acquire_many(self.size)).await;
        self.turns.close();
        drop(all);
        let mut closed = true;
        for slot in &*self.slots {
            let Ok(mut slot) = slot.try_lock() else {
                closed = false;
                continue;
            };
            if let Some(conn) = slot.conn.take() {
                // The last one writes the log back; that goes on by itself if it takes longer.
                closed &= timeout_at(deadline, close(conn)).await.is_ok();
            }
        }
        closed
    }
}

/// A turn on a connection.
pub(super) struct Turn<'a> {
    // Before the permit, so that the next in line finds a slot that is free.
    slot: MutexGuard<'a, Slot>,
    kind: Kind,
    _permit: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// The connection, in doubt until [`Turn::good`].
    pub(super) async fn conn(&mut self, dialer: &Dialer) -> Result<&mut SqliteConnection, StoreError> {
        let slot = &mut *self.slot;
        // Its caller went away in the middle: the transaction ends with the connection.
        if slot.in_doubt && !dialer.in_memory() {
            slot.conn = None;
        }
        if slot.conn.is_none() {
            slot.conn = Some(dialer.dial(self.kind).await?);
        }
        // Before it is used: a future that is dropped says nothing.
        slot.in_doubt = true;
        slot.conn.as_mut().ok_or(StoreError::Closed)
    }

    /// Gives the connection back: the call went well.
    pub(super) fn good(mut self) {
        self.slot.in_doubt = false;
    }
}
