//! Who is connected and in which rooms, told to logic: changes in batches, merged by key while logic or
//! Redis is away; everything at once (a full set) when Redis forgot, when this instance has a new id, and
//! every ten minutes. Never waits with a change while nothing is in flight.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::grpc::{ChangeKind, FullSet, StatusChange, StatusRequest};
use sluice_proto::ids::{InstanceId, RoomId, SessionId, UserId};
use sluice_service::batcher::{Bounds, Merged};
use sluice_service::seeded::{self, Bug};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::defaults::{
    CALL_WITHIN, FULL_SET_EVERY, STATUS_AGAIN, STATUS_BYTES_MAX, STATUS_EVERY, STATUS_ITEMS_MAX,
    STATUS_QUEUE_MAX,
};
use crate::shard::handle::Shards;
use crate::shard::inbox::Order;
use crate::shard::shared::Shared;

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
pub enum Report {
    /// Something changed.
    Changes(Vec<StatusChange>),
    /// A part of everything this shard has, for the full set of this generation.
    FullSetPart(u64, Vec<StatusChange>),
    /// That was everything, for the full set of this generation.
    FullSetEnd(u64),
    /// Changes were forgotten, as there were too many: only a full set can tell.
    Lost,
    /// The end of what waited, as was asked.
    End,
}

/// What a change is about: the newest of each is what holds. Who is in a room is known by the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ChangeKey {
    connection: String,
    user: String,
    room: String,
}

impl ChangeKey {
    fn of(change: &StatusChange) -> Self {
        let user = if change.room.is_empty() { change.user.clone() } else { String::new() };
        Self { connection: change.connection.clone(), user, room: change.room.clone() }
    }
}

/// The newer one counts. What came and went is told as gone: whether an older report, one that seemed to
/// fail or a part of a full set has told that it came, nobody knows here, and saying so twice is harmless.
fn merge(_old: StatusChange, new: StatusChange) -> Option<StatusChange> {
    Some(new)
}

/// The changes not told yet. Pure.
#[derive(Debug)]
struct PendingChanges {
    queue: Merged<ChangeKey, StatusChange>,
    /// Too many changes: a full set has to tell.
    lost: bool,
}

impl PendingChanges {
    fn new() -> Self {
        let bounds = Bounds {
            items_max: STATUS_ITEMS_MAX,
            bytes_max: STATUS_BYTES_MAX,
            queue_items_max: STATUS_QUEUE_MAX,
            queue_bytes_max: usize::MAX,
        };
        let cost =
            |change: &StatusChange| 32 + change.connection.len() + change.user.len() + change.room.len();
        Self { queue: Merged::new(bounds, cost), lost: false }
    }

    fn add(&mut self, changes: Vec<StatusChange>) {
        for change in changes {
            self.lost |= self.queue.push(ChangeKey::of(&change), change, merge).is_err();
        }
    }

    fn take(&mut self) -> Option<Vec<(ChangeKey, StatusChange)>> {
        self.queue.take()
    }

    fn failed(&mut self, batch: Vec<(ChangeKey, StatusChange)>) {
        self.queue.failed(batch, merge);
    }
}

/// The task that reports.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    shards: Shards,
    inbox: mpsc::Receiver<Report>,
    me: watch::Receiver<InstanceId>,
    pending: PendingChanges,
    generation: u64,
    /// A full set is being told; shards that have not told all of theirs.
    shards_left: Option<usize>,
    full_at: Instant,
    /// The marker at the last full set; 0 = none seen yet.
    marker: u64,
    report_at: Instant,
    until: FlushLimit,
}

/// How much longer the reporter may go on.
#[derive(Debug, Clone)]
pub struct FlushLimit {
    /// When cancelled, nothing new comes: what waits is told, in time.
    pub flush: CancellationToken,
    /// How long that may take.
    pub within: Duration,
}

impl Reporter {
    /// A reporter that hears shards through `inbox`.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        shards: Shards,
        inbox: mpsc::Receiver<Report>,
        me: watch::Receiver<InstanceId>,
        until: FlushLimit,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            shards,
            inbox,
            me,
            pending: PendingChanges::new(),
            generation: u64::try_from(sluice_service::clock::Clock::system().now_ms()).unwrap_or(0),
            shards_left: None,
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
            let idle = self.pending.queue.is_empty();
            let next = if idle { self.report_at } else { again_at };
            let (shards, shared) = (self.shards.clone(), Arc::clone(&self.shared));
            tokio::select! {
                biased;
                () = flush.cancelled() => break,
                changed = self.me.changed(), if self.me.has_changed().is_ok() => {
                    if changed.is_ok() {
                        // Under a new id nothing of what was told holds.
                        self.pending.queue.clear();
                        self.shards_left = None;
                        self.begin_full_set(&shards).await;
                    }
                }
                () = shared.calls.marker().changed() => {
                    let seen = shared.calls.marker().get();
                    let former = std::mem::replace(&mut self.marker, seen);
                    if former != 0 && former != seen && !seeded::is(Bug::RedisNotHealed) {
                        tracing::info!("Redis started anew or lost what it knew: shards_left it everything again.");
                        self.shards_left = None;
                        self.begin_full_set(&shards).await;
                    }
                }
                Some(told) = self.inbox.recv() => self.on_report(told).await,
                () = sleep_until(self.full_at) => self.begin_full_set(&shards).await,
                () = sleep_until(next) => {
                    self.report_at = Instant::now() + STATUS_EVERY;
                    if !self.report_some(CALL_WITHIN).await {
                        again_at = Instant::now() + STATUS_AGAIN;
                    }
                }
            }
            if std::mem::take(&mut self.pending.lost) {
                self.begin_full_set(&shards).await;
            }
        }
        self.flush().await;
    }

    async fn on_report(&mut self, told: Report) {
        match told {
            Report::Changes(changes) => self.pending.add(changes),
            Report::FullSetPart(generation, changes) if self.full_set_under_way(generation) => {
                if !self.tell_part(changes, false).await {
                    self.end_full_set().await;
                } else if !self.pending.queue.is_empty() {
                    // A large set is no reason for changes to wait.
                    self.report_some(CALL_WITHIN).await;
                }
            }
            Report::FullSetEnd(generation) if self.full_set_under_way(generation) => {
                self.shards_left = self.shards_left.map(|left| left.saturating_sub(1));
                if self.shards_left == Some(0) {
                    self.tell_part(Vec::new(), true).await;
                    self.end_full_set().await;
                }
            }
            Report::Lost => self.pending.lost = true,
            // Of a full set that was given up.
            Report::FullSetPart(..) | Report::FullSetEnd(_) => {}
            Report::End => debug_assert!(false, "asked for in the flush only"),
        }
    }

    fn full_set_under_way(&self, generation: u64) -> bool {
        self.shards_left.is_some() && self.generation == generation
    }

    async fn begin_full_set(&mut self, shards: &Shards) {
        self.full_at = Instant::now() + FULL_SET_EVERY;
        if self.shards_left.is_some() {
            // It is under way: the next one comes soon after.
            self.full_at = Instant::now() + STATUS_EVERY;
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        // The generation begins before anything is collected: what is announced from now on, by whatever
        // call, belongs to it, and what was announced before is there to be collected.
        if self.tell_part(Vec::new(), false).await {
            self.shards_left = Some(shards.len());
            shards.send_all(|| Order::BeginFullSet { generation }).await;
        }
    }

    async fn end_full_set(&mut self) {
        self.shards_left = None;
        self.shards.send_all(|| Order::FullSetEnded).await;
    }

    /// A part of a full set; if it cannot be told now the whole set is repeated soon.
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
        let Some(batch) = self.pending.take() else {
            return self.report(Vec::new(), None, within).await;
        };
        let changes = batch.iter().map(|(_, change)| change.clone()).collect();
        let told = self.report(changes, None, within).await;
        if told {
            self.pending.queue.done();
        } else {
            self.pending.failed(batch);
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
        let draining = self.shared.upgrades.is_closed();
        if draining && seeded::is(Bug::ExitWithoutStatusFlush) {
            return true;
        }
        let instance = self.me.borrow().to_string();
        let request = StatusRequest { instance, draining, changes, full };
        self.shared.calls.report(request, within).await.is_ok_and(|reply| reply.stored)
    }

    /// What waits is told once more, batch after batch, while there is time.
    async fn flush(mut self) {
        let by = Instant::now() + self.until.within;
        // A shard that has died does not answer: that must not take the time of the others' changes.
        let heard_by = Instant::now() + self.until.within / 2;
        drop(timeout_at(heard_by, self.collect_remaining()).await);
        while !self.pending.queue.is_empty() {
            let left = by.saturating_duration_since(Instant::now());
            if !matches!(timeout_at(by, self.report_some(left)).await, Ok(true)) {
                tracing::info!(
                    changes = self.pending.queue.len(),
                    "Status changes could not be told in time; they are reaped."
                );
                return;
            }
        }
    }

    /// Takes over what still waits in the shards.
    async fn collect_remaining(&mut self) {
        self.shards.send_all(|| Order::FlushReports).await;
        let mut left = self.shards.len();
        while left > 0 {
            match self.inbox.recv().await {
                Some(Report::Changes(changes)) => self.pending.add(changes),
                Some(Report::End) => left -= 1,
                Some(Report::FullSetPart(..) | Report::FullSetEnd(_) | Report::Lost) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn room(n: u8) -> RoomId {
        RoomId::parse(&format!("room{n}")).unwrap()
    }

    /// Who is in which room: of each connection its user.
    type There = BTreeMap<(String, String), String>;

    fn apply(there: &mut There, change: &StatusChange) {
        let key = (change.connection.clone(), change.room.clone());
        match change.kind() {
            ChangeKind::Joined => drop(there.insert(key, change.user.clone())),
            ChangeKind::Left => drop(there.remove(&key)),
            ChangeKind::None
            | ChangeKind::Connected
            | ChangeKind::Disconnected
            | ChangeKind::InterestAdded
            | ChangeKind::InterestRemoved => {}
        }
    }

    fn told(pending: &mut PendingChanges, redis: &mut There, arrives: bool, answered: bool) {
        let Some(batch) = pending.take() else { return };
        if arrives {
            batch.iter().for_each(|(_, change)| apply(redis, change));
        }
        if arrives && answered { pending.queue.done() } else { pending.failed(batch) }
    }

    #[test]
    fn who_left_is_told_so_whatever_came_between() {
        let user = UserId::parse("ann").unwrap();
        let about = About { session: SessionId(1), user: &user, since_ms: 5 };
        let (mut pending, mut redis) = (PendingChanges::new(), There::new());
        pending.add(vec![joined(&about, &room(1))]);
        told(&mut pending, &mut redis, true, true);
        assert_eq!(redis.len(), 1);
        pending.add(vec![
            left(&about, &room(1), false),
            joined(&about, &room(1)),
            left(&about, &room(1), false),
        ]);
        told(&mut pending, &mut redis, true, true);
        assert!(redis.is_empty());
    }

    proptest! {
        /// Connections come to and leave rooms, also as another user; reports are lost, or only their
        /// answers are; parts of full sets pass by: in the end what was told is what is.
        #[test]
        fn in_the_end_what_was_told_is_what_is(
            steps in prop::collection::vec((0..9_u8, 0..2_u8, 0..2_u8, 0..2_u8), 0..80),
        ) {
            let (mut pending, mut redis, mut real) = (PendingChanges::new(), There::new(), There::new());
            for (step, connection, user, number) in steps {
                let user = UserId::parse(&format!("user{user}")).unwrap();
                let about = About { session: SessionId(u64::from(connection).into()), user: &user, since_ms: 1 };
                let change = match step {
                    0..=2 => joined(&about, &room(number)),
                    3 | 4 => left(&about, &room(number), false),
                    5 => {
                        // A part holds what is true now and overtakes what waits in the pending.
                        let all: BTreeSet<_> = real.keys().cloned().collect();
                        for key in all {
                            let user = real[&key].clone();
                            redis.insert(key, user);
                        }
                        continue;
                    }
                    6 => { told(&mut pending, &mut redis, false, false); continue }
                    7 => { told(&mut pending, &mut redis, true, false); continue }
                    _ => { told(&mut pending, &mut redis, true, true); continue }
                };
                apply(&mut real, &change);
                pending.add(vec![change]);
            }
            while !pending.queue.is_empty() {
                told(&mut pending, &mut redis, true, true);
            }
            prop_assert_eq!(redis, real);
        }
    }
}
