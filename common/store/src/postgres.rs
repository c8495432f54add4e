//! The store on PostgreSQL 15 or later.
//!
//! Every call is one statement, its own transaction, on a connection of one of three kinds of pools: commits (a pool of
//! one for each lane, shared; one for the probe), reads (which commits never wait for, B9), and chores. They have no
//! manager to wait for and no `BEGIN` to leave open: a connection that did not answer well is dropped. Retries of writes
//! are the caller's.

mod access;
mod config;
#[cfg(feature = "sqlite")]
pub(crate) mod copy_in;
mod delayed;
mod dial;
mod epochs;
mod failure;
mod listing;
mod migrations;
mod others;
mod pool;
mod publish;
mod read;
mod revocations;
#[cfg(feature = "seeded-bugs")]
pub mod seeded;
mod servers;
mod session;
mod upkeep;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use sluice_proto::ids::{Epoch, RoomId, UserId, lane_of};
use sluice_proto::revocation::Revocation;
use tokio::time::Instant;

pub use access::PgAccess;
pub use config::PgConfig;
pub use dial::probe;
pub use migrations::{migrate, new_epoch, new_epoch_with};

use crate::{
    Committed, DelayedItem, DelayedOutcome, Fired, Heads, LockedRooms, NewMessage, NoteId, Pages, Range,
    Retention, RevocationPage, RoomList, RoomQuery, ScheduledList, ScheduledQuery, StaleNote, Store,
    StoreError, Trimmed, WaitingLimit,
};
use dial::{Dialer, Kind};
use failure::OWN_SESSION;
use pool::Pool;

/// How long a probe may hang. A commit that waits for a standby keeps its session in the server also after its connection
/// was dropped, so an impatient probe would use up the server's connections.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// How long [`Store::close`] waits for calls in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which history a connection speaks of is known: it is asked whether it still does.
const EPOCH: &str = "select where (select own_session_v1($1))";

/// The store on PostgreSQL: one statement for each call, a connection dropped on any doubt.
pub struct PgStore {
    dialer: Dialer,
    lanes: Vec<Pool>,
    reads: Pool,
    notes: Pool,
    chores: Pool,
    probes: Pool,
    /// The room that retention looked at last; "" = begin with the first.
    trim_from: Mutex<String>,
}

impl PgStore {
    /// Migrates the database if needed, and checks that the server can be trusted.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`]: will not get better by itself, the text names the fix. Any other: the server
    /// was not reached in time, try again.
    pub async fn connect(config: PgConfig) -> Result<Self, StoreError> {
        let dialer = Dialer::new(config)?;
        // By the same list: whoever dials next begins with the server that was found, not with those that are silent.
        migrations::migrate_on(dialer.servers()).await?;
        let config = &dialer.config;
        let store = Self {
            // Pools of one: groups of a lane would wait for each other anyway, on their rooms' locks.
            lanes: (0..config.lanes()).map(|_| Pool::new("commit", Kind::Durable, 1)).collect(),
            reads: Pool::new("read", Kind::Reading, config.read_connections),
            notes: Pool::new("notes", Kind::Upkeep, 1),
            chores: Pool::new("chores", Kind::Upkeep, 1),
            // Its own, so that it says nothing of how long the lanes are.
            probes: Pool::new("probe", Kind::Durable, 1),
            trim_from: Mutex::default(),
            dialer,
        };
        // A connection that cannot read is found now, not by the first client.
        store.epoch().await?;
        store.warm().await?;
        // Whatever hands sessions around has given that connection's to one of the others by now.
        store.epoch().await?;
        Ok(store)
    }

    /// Opens the connection of each lane and has the server compile what it will be asked, by a group without items:
    /// whoever is ready answers its first publish as fast as any other. A lane that fails dials again when it is asked:
    /// what it met, a server that was a standby for a moment, mostly passes. That sessions are shared does not.
    async fn warm(&self) -> Result<(), StoreError> {
        let nothing = || publish::statement(0, i64::MAX, &[]);
        let answers = join_all(self.lanes.iter().map(|lane| lane.ask(&self.dialer, nothing()))).await;
        let useless = answers.into_iter().find_map(|answer| match answer {
            Err(StoreError::Misconfigured(why)) if why.contains(OWN_SESSION) => {
                Some(StoreError::Misconfigured(why))
            }
            Ok(_) | Err(_) => None,
        });
        useless.map_or(Ok(()), Err)
    }

    fn lane(&self, lane: u8) -> &Pool {
        &self.lanes[usize::from(lane) % self.lanes.len()]
    }

    fn trim_from(&self) -> MutexGuard<'_, String> {
        self.trim_from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for PgStore {
    async fn publish(
        &self,
        lane: u8,
        not_after_ms: i64,
        items: Vec<NewMessage>,
    ) -> Result<Committed, StoreError> {
        let answer =
            self.lane(lane).ask(&self.dialer, publish::statement(lane, not_after_ms, &items)).await?;
        publish::committed(&answer, items.len())
    }

    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Result<Pages, StoreError> {
        let statement = || read::pages_statement(ranges, bytes_max);
        read::pages(&self.reads.ask_again(&self.dialer, statement).await?, ranges)
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        read::heads(&self.reads.ask_again(&self.dialer, || read::heads_statement(rooms)).await?)
    }

    async fn rooms(&self, query: &RoomQuery) -> Result<RoomList, StoreError> {
        let statement = || listing::rooms_statement(query);
        listing::rooms(&self.reads.ask_again(&self.dialer, statement).await?, query)
    }

    async fn scheduled(&self, query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
        let statement = || listing::scheduled_statement(query);
        listing::scheduled(&self.reads.ask_again(&self.dialer, statement).await?, query)
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(self.reads.ask_again(&self.dialer, || sqlx::query(EPOCH)).await?.epoch)
    }

    async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        read::now(&self.reads.ask_again(&self.dialer, read::now_statement).await?).map(Some)
    }

    async fn probe_commit(&self, thorough: bool) -> Result<(), StoreError> {
        let statement = publish::probe(thorough);
        self.probes.ask_within(PROBE_PATIENCE, &self.dialer, statement).await.map(drop)
    }

    async fn locked(&self, lane: u8, rooms: &[RoomId]) -> Result<Vec<RoomId>, StoreError> {
        publish::locked(&self.lane(lane).ask(&self.dialer, publish::locked_statement(rooms)).await?)
    }

    async fn delay(
        &self,
        lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Result<Vec<DelayedOutcome>, StoreError> {
        let statement = delayed::statement(lane, not_after_ms, limit, &items);
        delayed::outcomes(&self.lane(lane).ask(&self.dialer, statement).await?, items.len())
    }

    async fn next_due(&self, lanes: &[u8]) -> Result<Option<Duration>, StoreError> {
        // Where they are fired too: what cannot be reached there cannot be fired.
        let pool = self.lane(lanes.first().copied().unwrap_or(0));
        delayed::next_due(&pool.ask_again(&self.dialer, || delayed::next(lanes)).await?)
    }

    /// On the connection of the lane: what it locks are the rooms that publishes of the lane lock.
    async fn fire_due(&self, lane: u8, limit: usize, locked: &LockedRooms) -> Result<Fired, StoreError> {
        delayed::fired(&self.lane(lane).ask(&self.dialer, delayed::fire(lane, limit, locked)).await?)
    }

    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let statement = delayed::forget_cancelled(older_than, limit);
        upkeep::dropped(&self.chores.ask(&self.dialer, statement).await?)
    }

    async fn noted(&self, notes: &[NoteId]) -> Result<(), StoreError> {
        self.notes.ask_again(&self.dialer, || upkeep::noted(notes)).await?;
        Ok(())
    }

    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Result<Vec<StaleNote>, StoreError> {
        let statement = || upkeep::stale(older_than, limit);
        upkeep::stale_notes(&self.chores.ask_again(&self.dialer, statement).await?)
    }

    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        upkeep::dropped(&self.chores.ask(&self.dialer, upkeep::drop_old(older_than, limit)).await?)
    }

    async fn trim(&self, policy: &Retention, limit: usize) -> Result<Trimmed, StoreError> {
        let from = self.trim_from().clone();
        let answer = self.chores.ask(&self.dialer, upkeep::trim(&from, policy, limit)).await?;
        let (next, messages) = upkeep::trimmed(&answer)?;
        // Only after a good answer: a step whose answer was lost is done again, which finds
        // nothing.
        *self.trim_from() = next;
        Ok(Trimmed { messages, more: usize::try_from(messages).is_ok_and(|n| n >= limit) })
    }

    /// On the connection of some lane: they commit for certain.
    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Result<Revocation, StoreError> {
        let statement = revocations::revoke(user, issued_until_s);
        revocations::revoked(&self.lane(lane_of(user.as_str())).ask(&self.dialer, statement).await?)
    }

    async fn revocations(&self, after: u64, limit: usize) -> Result<RevocationPage, StoreError> {
        let statement = || revocations::after(after, limit);
        revocations::page(&self.reads.ask_again(&self.dialer, statement).await?)
    }

    async fn revoked_up_to(&self, position: u64) -> Result<u32, StoreError> {
        let statement = || revocations::up_to(position);
        revocations::latest(&self.reads.ask_again(&self.dialer, statement).await?)
    }

    async fn revocations_of(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        let statement = || revocations::of(users);
        revocations::seconds(&self.reads.ask_again(&self.dialer, statement).await?, users.len())
    }

    async fn close(&self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let pools = self.lanes.iter().chain([&self.reads, &self.notes, &self.chores, &self.probes]);
        join_all(pools.map(|pool| pool.close(deadline))).await;
    }
}
