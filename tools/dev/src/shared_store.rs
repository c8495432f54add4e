//! A store that outlives who uses it: a logic that stops closes its own view of it, not the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice_proto::ids::{Epoch, RoomId, UserId};
use sluice_proto::revocation::Revocation;
use sluice_store::{
    Committed, DelayedItem, DelayedOutcome, Fired, Heads, LockedRooms, NewMessage, NoteId, Pages, Range,
    Retention, RevocationPage, RoomList, RoomQuery, ScheduledList, ScheduledQuery, StaleNote, Store,
    StoreError, Trimmed, WaitingLimit,
};

pub(crate) struct SharedStore(pub(crate) Arc<dyn Store>);

type Answer<T> = Result<T, StoreError>;

#[async_trait]
impl Store for SharedStore {
    async fn publish(&self, lane: u8, not_after_ms: i64, items: Vec<NewMessage>) -> Answer<Committed> {
        self.0.publish(lane, not_after_ms, items).await
    }

    async fn read(&self, ranges: &[Range], bytes_max: usize) -> Answer<Pages> {
        self.0.read(ranges, bytes_max).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Answer<Heads> {
        self.0.heads(rooms).await
    }

    async fn rooms(&self, query: &RoomQuery) -> Answer<RoomList> {
        self.0.rooms(query).await
    }

    async fn scheduled(&self, query: &ScheduledQuery) -> Answer<ScheduledList> {
        self.0.scheduled(query).await
    }

    async fn epoch(&self) -> Answer<Epoch> {
        self.0.epoch().await
    }

    async fn probe_commit(&self, thorough: bool) -> Answer<()> {
        self.0.probe_commit(thorough).await
    }

    async fn locked(&self, lane: u8, rooms: &[RoomId]) -> Answer<Vec<RoomId>> {
        self.0.locked(lane, rooms).await
    }

    async fn delay(
        &self,
        lane: u8,
        not_after_ms: i64,
        limit: &WaitingLimit,
        items: Vec<DelayedItem>,
    ) -> Answer<Vec<DelayedOutcome>> {
        self.0.delay(lane, not_after_ms, limit, items).await
    }

    async fn next_due(&self, lanes: &[u8]) -> Answer<Option<Duration>> {
        self.0.next_due(lanes).await
    }

    async fn fire_due(&self, lane: u8, limit: usize, locked: &LockedRooms) -> Answer<Fired> {
        self.0.fire_due(lane, limit, locked).await
    }

    async fn forget_cancelled(&self, older_than: Duration, limit: usize) -> Answer<u64> {
        self.0.forget_cancelled(older_than, limit).await
    }

    async fn noted(&self, notes: &[NoteId]) -> Answer<()> {
        self.0.noted(notes).await
    }

    async fn stale_notes(&self, older_than: Duration, limit: usize) -> Answer<Vec<StaleNote>> {
        self.0.stale_notes(older_than, limit).await
    }

    async fn drop_old_notes(&self, older_than: Duration, limit: usize) -> Answer<u64> {
        self.0.drop_old_notes(older_than, limit).await
    }

    async fn trim(&self, policy: &Retention, limit: usize) -> Answer<Trimmed> {
        self.0.trim(policy, limit).await
    }

    async fn revoke(&self, user: &UserId, issued_until_s: Option<u32>) -> Answer<Revocation> {
        self.0.revoke(user, issued_until_s).await
    }

    async fn revocations(&self, after: u64, limit: usize) -> Answer<RevocationPage> {
        self.0.revocations(after, limit).await
    }

    async fn revoked_up_to(&self, position: u64) -> Answer<u32> {
        self.0.revoked_up_to(position).await
    }

    async fn revocations_of(&self, users: &[UserId]) -> Answer<Vec<Option<u32>>> {
        self.0.revocations_of(users).await
    }

    /// The store is closed when the last service is gone.
    async fn close(&self) {}
}
