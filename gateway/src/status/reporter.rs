//! The task that tells logic what changed. Never tells a part of a full set after something newer.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::grpc::{FullSet, StatusChange, StatusRequest};
use sluice_proto::ids::InstanceId;
use sluice_service::seeded::{self, Bug};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Report;
use super::pending::PendingChanges;
use crate::defaults::{CALL_WITHIN, FULL_SET_EVERY, STALE_AFTER, STATUS_AGAIN, STATUS_EVERY};
use crate::shard::handle::Shards;
use crate::shard::inbox::Order;
use crate::shard::shared::Shared;

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
    /// Redis forgot: when whoever watches a room is told to ask again.
    stale_at: Option<Instant>,
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
            stale_at: None,
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
            // With nothing to tell a report still asks for the marker, only less often.
            let idle = self.pending.queue.is_empty();
            let next = if idle { self.report_at } else { again_at };
            let (shards, shared) = (self.shards.clone(), Arc::clone(&self.shared));
            tokio::select! {
                biased;
                () = flush.cancelled() => break,
                // Without the condition the arm of a registry that has ended would be ready for ever.
                changed = self.me.changed(), if self.me.has_changed().is_ok() => {
                    if changed.is_ok() {
                        // Under a new id nothing of what was told holds.
                        // Everything is told anew by the full set; under the old id it would be reaped as another's (C2).
                        self.pending.clear();
                        self.shards_left = None;
                        self.begin_full_set(&shards).await;
                    }
                }
                () = shared.calls.marker().changed() => {
                    let seen = shared.calls.marker().get();
                    let former = std::mem::replace(&mut self.marker, seen);
                    // Not the first one seen: what was told until then is in there.
                    if former != 0 && former != seen && !seeded::is(Bug::RedisNotHealed) {
                        tracing::info!("Redis started anew or lost what it knew: it is told everything again.");
                        self.shards_left = None;
                        self.stale_at = Some(Instant::now() + STALE_AFTER);
                        self.begin_full_set(&shards).await;
                    }
                }
                Some(told) = self.inbox.recv() => self.on_report(told).await,
                () = sleep_until(self.stale_at.unwrap_or(self.full_at)), if self.stale_at.is_some() => {
                    self.stale_at = None;
                    shards.send_all(|| Order::Stale).await;
                }
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
                // Given up as a whole: a set with a hole in it removes what belongs into the hole.
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
            Report::Mark(told) => self.pending.mark(told),
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
        // Two at once would be told as one generation, and parts of the first be removed by the second.
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
            // A set with a missing part removes what that part held: repeat it soon.
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
            self.pending.done(batch.len());
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
        // Said in every report: the last logic stays while a draining gateway needs it.
        let draining = self.shared.upgrades.is_closed();
        if draining && seeded::is(Bug::ExitWithoutStatusFlush) {
            return true;
        }
        let instance = self.me.borrow().to_string();
        let request = StatusRequest { instance, draining, changes, full, gone: false };
        self.shared.calls.report(request, within).await.is_ok_and(|reply| reply.stored)
    }

    /// Says goodbye for the whole instance, in one call: all that waits is told by that too. Where that does not
    /// succeed, change after change while there is time.
    async fn flush(mut self) {
        let calls = &self.shared.calls;
        // What waits in the shards was never told either: nobody has to hear that it has gone.
        if !calls.left_traces() {
            return;
        }
        if calls.channels().all().is_empty() {
            tracing::info!(
                "No logic is known that could be told that this gateway goes; what it has is reaped."
            );
            return;
        }
        let by = Instant::now() + self.until.within;
        if self.goodbye(self.until.within / 2).await {
            return;
        }
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

    /// C10. False also when the logic that answered is of a version that does not know it.
    async fn goodbye(&self, within: Duration) -> bool {
        if seeded::is(Bug::ExitWithoutStatusFlush) {
            return true;
        }
        let instance = self.me.borrow().to_string();
        let request = StatusRequest { instance, draining: true, gone: true, ..StatusRequest::default() };
        self.shared.calls.report(request, within).await.is_ok_and(|reply| reply.gone)
    }

    /// Takes over what still waits in the shards.
    async fn collect_remaining(&mut self) {
        self.shards.send_all(|| Order::FlushReports).await;
        let mut left = self.shards.len();
        while left > 0 {
            match self.inbox.recv().await {
                Some(Report::Changes(changes)) => self.pending.add(changes),
                Some(Report::End) => left -= 1,
                // Nobody asks any more who is there.
                Some(Report::FullSetPart(..) | Report::FullSetEnd(_) | Report::Lost | Report::Mark(_)) => {}
                None => return,
            }
        }
    }
}
