//! Who is connected and in which rooms, told to logic: changes in batches, merged by key while logic or
//! Redis is away; everything at once (a full set) when Redis forgot, when this instance has a new id, and
//! every ten minutes. Never waits with a change while nothing is in flight.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::grpc::{ChangeKind, FullSet, StatusChange, StatusRequest};
use sluice_proto::ids::{InstanceId, RoomId, SessionId, UserId};
use sluice_service::batcher::{Bounds, Merged};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::defaults::{
    CALL_WITHIN, FULL_SET_EVERY, STATUS_AGAIN, STATUS_BYTES_MAX, STATUS_EVERY, STATUS_ITEMS_MAX,
    STATUS_QUEUE_MAX,
};
use crate::shard::handle::{Order, Shards};
use crate::shard::surroundings::Shared;

/// A connection as presence knows it.
#[derive(Debug)]
pub struct About<'a> {
    /// Names the connection.
    pub session: SessionId,
    /// Who it is.
    pub user: &'a UserId,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
}

impl About<'_> {
    fn change(&self, kind: ChangeKind, room: &str, goodbye: bool) -> StatusChange {
        StatusChange {
            kind: kind.into(),
            connection: self.session.to_string(),
            user: self.user.to_string(),
            room: room.to_owned(),
            since_ms: self.since_ms,
            goodbye,
        }
    }
}

/// It is there.
#[must_use]
pub fn connected(about: &About<'_>) -> StatusChange {
    about.change(ChangeKind::Connected, "", false)
}

/// It has left; `goodbye` = for good, the client said so.
#[must_use]
pub fn disconnected(about: &About<'_>, goodbye: bool) -> StatusChange {
    about.change(ChangeKind::Disconnected, "", goodbye)
}

/// The connection goes on as somebody else.
#[must_use]
pub fn disconnected_by_change(about: &About<'_>) -> StatusChange {
    disconnected(about, true)
}

/// It subscribed to a room.
#[must_use]
pub fn joined(about: &About<'_>, room: &RoomId) -> StatusChange {
    about.change(ChangeKind::Joined, room.as_str(), false)
}

/// It left a room.
#[must_use]
pub fn left(about: &About<'_>, room: &RoomId, goodbye: bool) -> StatusChange {
    about.change(ChangeKind::Left, room.as_str(), goodbye)
}

/// This gateway wants a room's messages.
#[must_use]
pub fn interested(room: &RoomId) -> StatusChange {
    StatusChange {
        kind: ChangeKind::InterestAdded.into(),
        room: room.as_str().to_owned(),
        ..StatusChange::default()
    }
}

/// This gateway no longer wants a room's messages.
#[must_use]
pub fn uninterested(room: &RoomId) -> StatusChange {
    StatusChange {
        kind: ChangeKind::InterestRemoved.into(),
        room: room.as_str().to_owned(),
        ..StatusChange::default()
    }
}

/// From a shard, in its order.
#[derive(Debug)]
pub enum Told {
    /// Something changed.
    Changes(Vec<StatusChange>),
    /// A part of everything this shard has.
    Part(Vec<StatusChange>),
    /// That was everything.
    Whole,
    /// Changes were forgotten, as there were too many: only a full set can tell.
    Lost,
}

/// What distinguishes changes: a newer one of the same key makes the older one void.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    connection: String,
    user: String,
    room: String,
}

/// A change that waits, and whether logic may have seen it in a report that failed.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    change: StatusChange,
    maybe_told: bool,
}

fn is_removal(change: &StatusChange) -> bool {
    match change.kind() {
        ChangeKind::Disconnected | ChangeKind::Left | ChangeKind::InterestRemoved => true,
        ChangeKind::None | ChangeKind::Connected | ChangeKind::Joined | ChangeKind::InterestAdded => false,
    }
}

/// The newer one counts; what came and went before logic heard of it is not told.
fn merge(old: Waiting, new: Waiting) -> Option<Waiting> {
    let never_told = !old.maybe_told && !is_removal(&old.change);
    if never_told && is_removal(&new.change) {
        return None;
    }
    Some(Waiting { maybe_told: old.maybe_told || new.maybe_told, change: new.change })
}

/// The book of changes not told yet. Pure.
#[derive(Debug)]
struct Book {
    queue: Merged<Key, Waiting>,
    /// Too many changes: a full set has to tell.
    lost: bool,
}

impl Book {
    fn new() -> Self {
        let bounds = Bounds {
            items_max: STATUS_ITEMS_MAX,
            bytes_max: STATUS_BYTES_MAX,
            queue_items_max: STATUS_QUEUE_MAX,
            queue_bytes_max: usize::MAX,
        };
        let cost = |waiting: &Waiting| {
            let change = &waiting.change;
            32 + change.connection.len() + change.user.len() + change.room.len()
        };
        Self { queue: Merged::new(bounds, cost), lost: false }
    }

    fn add(&mut self, changes: Vec<StatusChange>) {
        for change in changes {
            let key = Key {
                connection: change.connection.clone(),
                user: change.user.clone(),
                room: change.room.clone(),
            };
            self.lost |= self.queue.push(key, Waiting { change, maybe_told: false }, merge).is_err();
        }
    }

    fn take(&mut self) -> Option<Vec<(Key, Waiting)>> {
        self.queue.take()
    }

    fn failed(&mut self, mut batch: Vec<(Key, Waiting)>) {
        batch.iter_mut().for_each(|(_, waiting)| waiting.maybe_told = true);
        self.queue.failed(batch, merge);
    }
}

/// The task that reports.
#[derive(Debug)]
pub struct Reporter {
    around: Shared,
    shards: Shards,
    inbox: mpsc::Receiver<Told>,
    me: watch::Receiver<InstanceId>,
    book: Book,
    generation: u64,
    /// A full set is being told; shards that have not told all of theirs.
    telling: Option<usize>,
    full_at: Instant,
    /// The marker at the last full set; 0 = none seen yet.
    marker: u64,
    report_at: Instant,
    until: Until,
}

/// How much longer the reporter may go on.
#[derive(Debug, Clone)]
pub struct Until {
    /// When cancelled, nothing new comes: what waits is told, in time.
    pub flush: CancellationToken,
    /// How long that may take.
    pub within: Duration,
}

impl Reporter {
    /// A reporter that hears shards through `inbox`.
    #[must_use]
    pub fn new(
        around: Shared,
        shards: Shards,
        inbox: mpsc::Receiver<Told>,
        me: watch::Receiver<InstanceId>,
        until: Until,
    ) -> Self {
        let now = Instant::now();
        Self {
            around,
            shards,
            inbox,
            me,
            book: Book::new(),
            generation: u64::try_from(sluice_service::clock::Clock::system().now_ms()).unwrap_or(0),
            telling: None,
            full_at: now + FULL_SET_EVERY,
            marker: 0,
            report_at: now + STATUS_EVERY,
            until,
        }
    }

    /// Reports until told to flush, then what is left.
    pub async fn run(mut self) {
        let mut again_at = Instant::now();
        let flush = self.until.flush.clone();
        loop {
            let idle = self.book.queue.is_empty();
            let next = if idle { self.report_at } else { again_at };
            let (shards, around) = (self.shards.clone(), Arc::clone(&self.around));
            tokio::select! {
                biased;
                () = flush.cancelled() => break,
                changed = self.me.changed(), if self.me.has_changed().is_ok() => {
                    if changed.is_ok() {
                        // Under a new id nothing of what was told holds.
                        self.book.queue.clear();
                        self.begin_full_set(&shards).await;
                    }
                }
                () = around.calls.marker().changed() => {
                    let seen = around.calls.marker().get();
                    let former = std::mem::replace(&mut self.marker, seen);
                    if former != 0 && former != seen {
                        tracing::info!("Redis has forgotten what it knew: telling it everything again.");
                        self.begin_full_set(&shards).await;
                    }
                }
                Some(told) = self.inbox.recv() => self.hear(told).await,
                () = sleep_until(self.full_at) => self.begin_full_set(&shards).await,
                () = sleep_until(next) => {
                    self.report_at = Instant::now() + STATUS_EVERY;
                    if !self.report_some(CALL_WITHIN).await {
                        again_at = Instant::now() + STATUS_AGAIN;
                    }
                }
            }
            if std::mem::take(&mut self.book.lost) {
                self.begin_full_set(&shards).await;
            }
        }
        self.flush().await;
    }

    async fn hear(&mut self, told: Told) {
        match told {
            Told::Changes(changes) => self.book.add(changes),
            Told::Part(changes) => {
                self.tell_part(changes, false).await;
            }
            Told::Whole => {
                let left = self.telling.map_or(0, |left| left.saturating_sub(1));
                self.telling = (left > 0).then_some(left);
                if left == 0 && self.tell_part(Vec::new(), true).await {
                    self.shards.tell_all(|| Order::FullSetTold).await;
                }
            }
            Told::Lost => self.book.lost = true,
        }
    }

    async fn begin_full_set(&mut self, shards: &Shards) {
        self.full_at = Instant::now() + FULL_SET_EVERY;
        if self.telling.is_some() {
            // It is under way: the next one comes soon after.
            self.full_at = Instant::now() + STATUS_EVERY;
            return;
        }
        self.generation += 1;
        self.telling = Some(shards.len());
        shards.tell_all(|| Order::TellAll).await;
    }

    /// A part of a full set; if it cannot be told now the whole set is repeated later.
    async fn tell_part(&mut self, changes: Vec<StatusChange>, last: bool) -> bool {
        let full = Some(FullSet { generation: self.generation, last });
        let told = self.report(changes, full, CALL_WITHIN).await;
        if !told {
            self.full_at = self.full_at.min(Instant::now() + STATUS_EVERY);
        }
        told
    }

    /// One batch of changes, or an empty report that brings the marker.
    async fn report_some(&mut self, within: Duration) -> bool {
        let Some(batch) = self.book.take() else {
            return self.report(Vec::new(), None, within).await;
        };
        let changes: Vec<StatusChange> = batch.iter().map(|(_, waiting)| waiting.change.clone()).collect();
        // While a full set is told, what is added belongs to it, or its end would remove it.
        let told = if self.telling.is_some() {
            let (removed, added): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_removal);
            let full = Some(FullSet { generation: self.generation, last: false });
            let told = added.is_empty() || self.report(added, full, within).await;
            told && (removed.is_empty() || self.report(removed, None, within).await)
        } else {
            self.report(changes, None, within).await
        };
        if told {
            self.book.queue.done();
        } else {
            self.book.failed(batch);
        }
        told
    }

    async fn report(&self, changes: Vec<StatusChange>, full: Option<FullSet>, within: Duration) -> bool {
        let flush = self.until.flush.clone();
        if flush.is_cancelled() {
            return self.call(changes, full, within).await;
        }
        // A report under way must not take the time of the flush: it counts as failed and is repeated.
        tokio::select! {
            biased;
            () = flush.cancelled() => false,
            told = self.call(changes, full, within) => told,
        }
    }

    async fn call(&self, changes: Vec<StatusChange>, full: Option<FullSet>, within: Duration) -> bool {
        let draining = self.around.entrance.is_closed();
        let instance = self.me.borrow().to_string();
        let request = StatusRequest { instance, draining, changes, full };
        self.around.calls.report(request, within).await.is_ok_and(|reply| reply.stored)
    }

    /// What waits is told once more, batch after batch, while there is time.
    async fn flush(mut self) {
        let by = Instant::now() + self.until.within;
        while let Ok(told) = self.inbox.try_recv() {
            if let Told::Changes(changes) = told {
                self.book.add(changes);
            }
        }
        self.telling = None;
        while !self.book.queue.is_empty() {
            let left = by.saturating_duration_since(Instant::now());
            if !matches!(timeout_at(by, self.report_some(left)).await, Ok(true)) {
                tracing::info!(
                    changes = self.book.queue.len(),
                    "Status changes could not be told in time; they are reaped."
                );
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(book: &mut Book) -> Vec<(ChangeKind, String)> {
        let batch = book.take().unwrap_or_default();
        book.queue.done();
        batch.into_iter().map(|(_, waiting)| (waiting.change.kind(), waiting.change.room)).collect()
    }

    #[test]
    fn what_came_and_went_is_not_told_unless_it_may_have_been() {
        let user = UserId::parse("ann").unwrap();
        let room = RoomId::parse("news").unwrap();
        let about = About { session: SessionId(1), user: &user, since_ms: 5 };
        let mut book = Book::new();
        book.add(vec![connected(&about), joined(&about, &room), left(&about, &room, false)]);
        assert_eq!(changes(&mut book), [(ChangeKind::Connected, String::new())]);

        book.add(vec![joined(&about, &room)]);
        let batch = book.take().unwrap();
        book.failed(batch);
        book.add(vec![left(&about, &room, false)]);
        assert_eq!(changes(&mut book), [(ChangeKind::Left, "news".to_owned())]);

        book.add(vec![left(&about, &room, false), joined(&about, &room)]);
        assert_eq!(changes(&mut book), [(ChangeKind::Joined, "news".to_owned())]);
    }
}
