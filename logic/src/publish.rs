//! The publish path: judge the items, commit them in their lane, answer each.
//!
//! One batcher per lane: while one of its groups commits, calls gather for
//! the next. A call is never split over two groups. Nothing here waits for the fan-out.

mod delayed;
#[cfg(feature = "seeded-bugs")]
mod early;
pub mod group;
pub mod validate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use sluice_lifecycle::Scope;
use sluice_proto::ROOM_LOCKED;
use sluice_proto::grpc::{
    self, DelayedItem, ItemTrace, PublishItem, PublishReply, PublishRequest, PublishResult,
};
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, LANES};
use sluice_proto::wire::ErrorCode;
use sluice_service::batcher::{Batcher, Bounds, SubmitError};
use sluice_service::clock::Clock;
use sluice_store::{Class, Committed, NewMessage, Store, StoreError, WaitingLimit};
use sluice_trace::{Kind, Parent, ROOM, Spans, Tracer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::defaults::{ITEM_COST_MIN, LANE_BYTES_MAX, LANE_CALLS_MAX};
use crate::metrics::{Metrics, OutcomeLabel};
use crate::notices::Notices;
use crate::probe::Probe;
use delayed::Delayer;
use group::{CallOutcomes, CommitGroup, CommitObserver, ItemOutcome, PublishCall};
use validate::{InvalidCall, InvalidItem};

/// Commits publishes, lane by lane.
pub struct Publisher {
    lanes: Vec<Batcher<PublishCall, CallOutcomes>>,
    /// Cancelled when every lane is through.
    stop: CancellationToken,
    metrics: Metrics,
    in_hand: AtomicU64,
    notices: Arc<Notices>,
    delayer: Delayer,
    tracer: Tracer,
}

impl Publisher {
    /// Starts the lanes as tasks of `scope`; they end by [`Publisher::close`].
    pub fn start(
        scope: &Scope,
        store: Arc<dyn Store>,
        notices: Arc<Notices>,
        clock: Clock,
        metrics: Metrics,
        probe: Probe,
    ) -> Self {
        // Items of a group are bounded through their cost in bytes: `ITEM_COST_MIN` each.
        let bounds = Bounds {
            items_max: BATCH_ITEMS_MAX,
            bytes_max: BATCH_BYTES_MAX,
            queue_items_max: LANE_CALLS_MAX,
            queue_bytes_max: LANE_BYTES_MAX,
        };
        let stop = CancellationToken::new();
        let delayer = Delayer::new(Arc::clone(&store), clock.clone(), metrics.clone());
        let lane = |lane: u8| {
            let parts = Arc::new(CommitLane {
                lane,
                store: Arc::clone(&store),
                notices: Arc::clone(&notices),
                clock: clock.clone(),
                metrics: metrics.clone(),
                probe: probe.clone(),
            });
            let run = move |calls: Vec<PublishCall>| CommitLane::commit(Arc::clone(&parts), calls);
            let (batcher, drive) = Batcher::new("publish", bounds, cost, stop.clone(), run);
            scope.spawn("publish", drive);
            batcher
        };
        Self {
            lanes: (0..LANES).map(lane).collect(),
            stop: stop.clone(),
            metrics: metrics.clone(),
            in_hand: AtomicU64::new(0),
            notices,
            delayer,
            tracer: Tracer::default(),
        }
    }

    /// Traces what its callers trace.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Answers every item of a call. `deadline`: when its caller stops waiting.
    ///
    /// # Errors
    /// Only when the call as a whole is malformed; then nothing of it was looked at.
    pub async fn publish(
        &self,
        request: PublishRequest,
        deadline: Option<Instant>,
    ) -> Result<PublishReply, InvalidCall> {
        let limit = WaitingLimit::per_sender(request.scheduled_max);
        self.publish_within(&limit, request, deadline).await
    }

    /// The same for a caller that is no gateway: of what is to be published later no more waits than `limit` says.
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
    pub async fn publish_within(
        &self,
        limit: &WaitingLimit,
        request: PublishRequest,
        deadline: Option<Instant>,
    ) -> Result<PublishReply, InvalidCall> {
        // As a whole first: a call above the bounds would have to be split (A6).
        validate::call(&request)?;
        let not_after_ms = request.not_after_ms;
        // No order between the two is promised: what is for later has its place when it is due.
        let delayed = self.delay(request.delayed, not_after_ms, limit, deadline);
        let (now, traces) = (request.items, request.traces);
        let (reply, delayed) = tokio::join!(self.publish_now(now, &traces, not_after_ms, deadline), delayed);
        Ok(PublishReply { delayed, ..reply })
    }

    async fn delay(
        &self,
        items: Vec<DelayedItem>,
        not_after_ms: i64,
        limit: &WaitingLimit,
        deadline: Option<Instant>,
    ) -> Vec<PublishResult> {
        let _in_hand = InHand::new(&self.in_hand, items.len());
        self.delayer.delay(items, not_after_ms, limit, deadline).await
    }

    async fn publish_now(
        &self,
        request: Vec<PublishItem>,
        traces: &[ItemTrace],
        not_after_ms: i64,
        deadline: Option<Instant>,
    ) -> PublishReply {
        let mut items = Vec::with_capacity(request.len());
        let mut refusals = Vec::with_capacity(request.len());
        // In the order of their items, nearly always none.
        let (mut spans, mut traces) = (Spans::default(), traces.iter().peekable());
        for (place, item) in request.into_iter().enumerate() {
            let trace = traces.next_if(|trace| trace.item as usize == place);
            match validate::item(item) {
                Ok(message) => {
                    if let Some(trace) = trace {
                        let parent = Parent::read(&trace.traceparent);
                        let span = self.tracer.child("logic publish", Kind::Server, parent);
                        span.text(ROOM, message.room.as_str());
                        spans.push(items.len() as u64, span);
                    }
                    items.push(message);
                    refusals.push(None);
                }
                // Its place is kept, so that answers come in the order of the items.
                Err(refusal) => refusals.push(Some(refusal)),
            }
        }
        let answer = self.commit(PublishCall { items, deadline, not_after_ms, spans }).await;
        let epoch = answer.epoch.map_or(0, |epoch| epoch.0);
        let mut outcomes = answer.outcomes.into_iter();
        let results = refusals.into_iter().map(|refusal| match refusal {
            Some(refusal) => self.counted(OutcomeLabel::Refused, refused(refusal)),
            None => self.result(outcomes.next().unwrap_or(ItemOutcome::Unknown)),
        });
        PublishReply { results: results.collect(), epoch, delayed: Vec::new() }
    }

    /// Refuses new calls and waits until the accepted ones are through. Harmless when repeated.
    pub async fn close(&self) {
        join_all(self.lanes.iter().map(Batcher::close)).await;
        self.stop.cancel();
    }

    /// Calls waiting in all lanes.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(Batcher::waiting).sum()
    }

    /// Publishes whose commit is under way.
    #[must_use]
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::Relaxed)
    }

    /// Committed groups that the queue has not taken yet.
    #[must_use]
    pub fn notices_in_hand(&self) -> u64 {
        self.notices.in_hand()
    }

    async fn commit(&self, call: PublishCall) -> CallOutcomes {
        let all = |outcome, items| CallOutcomes { epoch: None, outcomes: vec![outcome; items] };
        let Some(first) = call.items.first() else { return all(ItemOutcome::NotStored, 0) };
        let (lane, items) = (usize::from(first.room.lane()), call.items.len());
        let _in_hand = InHand::new(&self.in_hand, items);
        match self.lanes[lane].submit(call).await {
            Ok(answer) => answer,
            // Never queued, so certainly not stored: the gateway tries another logic.
            Err(SubmitError::Closed) => all(ItemOutcome::NotStored, items),
            // It may have run: the gateway asks again under the same keys.
            Err(SubmitError::Lost) => all(ItemOutcome::Unknown, items),
        }
    }

    fn result(&self, outcome: ItemOutcome) -> PublishResult {
        let at = |outcome: grpc::Outcome, seq, at_ms| PublishResult { seq, at_ms, ..plain(outcome) };
        let (label, result) = match outcome {
            ItemOutcome::Stored { seq, at_ms } => {
                (OutcomeLabel::Stored, at(grpc::Outcome::Stored, seq, at_ms))
            }
            ItemOutcome::Duplicate { seq } => (OutcomeLabel::Duplicate, at(grpc::Outcome::Duplicate, seq, 0)),
            // Not `ok`: whoever publishes at once is told a position by it, and there is none yet.
            ItemOutcome::Waits { due_ms } => {
                let message = format!(
                    "this key is that of a delayed message, due at {due_ms}: cancel that, or choose another key"
                );
                (OutcomeLabel::Conflict, refused(InvalidItem { code: ErrorCode::Conflict, message }))
            }
            // Where the other message is, is nobody's business.
            ItemOutcome::Conflict => (OutcomeLabel::Conflict, plain(grpc::Outcome::Conflict)),
            ItemOutcome::Poison => {
                let message = "the store cannot hold this message".into();
                (OutcomeLabel::Refused, refused(InvalidItem { code: ErrorCode::BadRequest, message }))
            }
            ItemOutcome::NotStored => (OutcomeLabel::NotStored, plain(grpc::Outcome::NotStored)),
            ItemOutcome::Locked => {
                let code = ROOM_LOCKED.to_owned();
                (OutcomeLabel::NotStored, PublishResult { code, ..plain(grpc::Outcome::NotStored) })
            }
            ItemOutcome::Unknown => (OutcomeLabel::Unknown, plain(grpc::Outcome::Unknown)),
        };
        self.counted(label, result)
    }

    fn counted(&self, label: OutcomeLabel, result: PublishResult) -> PublishResult {
        self.metrics.publish(label).inc();
        result
    }
}

/// Counts items until their caller has an answer, or has left.
struct InHand<'a> {
    all: &'a AtomicU64,
    items: u64,
}

impl<'a> InHand<'a> {
    fn new(all: &'a AtomicU64, items: usize) -> Self {
        let items = items as u64;
        all.fetch_add(items, Ordering::Relaxed);
        Self { all, items }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.items, Ordering::Relaxed);
    }
}

/// What a call counts in its lane's bounds: bytes, or its items at their least weight.
fn cost(call: &PublishCall) -> usize {
    let bytes = call.items.iter().map(|item| item.data.len()).sum::<usize>();
    // Many tiny items cost rows, not bytes.
    bytes.max(call.items.len() * ITEM_COST_MIN)
}

fn plain(outcome: grpc::Outcome) -> PublishResult {
    PublishResult { outcome: outcome.into(), ..Default::default() }
}

fn refused(refusal: InvalidItem) -> PublishResult {
    PublishResult {
        outcome: grpc::Outcome::Refused.into(),
        code: refusal.code.as_str().into(),
        message: refusal.message,
        ..Default::default()
    }
}

/// What the groups of one lane share.
struct CommitLane {
    lane: u8,
    store: Arc<dyn Store>,
    notices: Arc<Notices>,
    clock: Clock,
    metrics: Metrics,
    probe: Probe,
}

impl CommitLane {
    async fn commit(self: Arc<Self>, calls: Vec<PublishCall>) -> Vec<CallOutcomes> {
        #[cfg(feature = "seeded-bugs")]
        let calls = match early::commit(&self, calls).await {
            Ok(answers) => return answers,
            Err(calls) => calls,
        };
        let started = Instant::now();
        let answers = CommitGroup::new(&*self.store, &*self, &self.clock, self.lane, calls).run().await;
        self.metrics.group_seconds.observe(started.elapsed().as_secs_f64());
        answers
    }
}

impl CommitObserver for CommitLane {
    fn committed(&self, items: &[&NewMessage], committed: &Committed, spans: &Spans) {
        self.metrics.group_items.observe(f64::from(u32::try_from(items.len()).unwrap_or(u32::MAX)));
        self.probe.committed();
        self.notices.offer(self.lane, items, committed, spans);
    }

    fn failed(&self, error: &StoreError, items: usize) {
        self.metrics.store_failed(error.class()).inc();
        self.probe.failed(error);
        if matches!(error.class(), Class::Retry | Class::Unknown) {
            self.metrics.store_refused(error.trouble()).inc();
        }
        match error.class() {
            Class::Reject => {
                tracing::warn!(%error, items, lane = self.lane, "The store rejects a group; its items are tried singly.");
            }
            Class::Unknown => {
                tracing::warn!(%error, items, lane = self.lane, "Whether a group is stored is unknown; its gateways ask again.");
            }
            // Whether the store is there is said by whoever probes it.
            Class::Retry | Class::TooLate => {
                tracing::debug!(%error, items, lane = self.lane, "A group was not stored; its gateways try again.");
            }
        }
    }
}
