//! One lane: collects publishes, has at most one batch with logic, retries it in place.
//!
//! Pure: the caller makes the calls and owns the clock. The order of a sender hangs on four rules here:
//! senders take turns, but what waits of one goes in the order it came; nothing later of the lane goes out
//! before the batch in flight is resolved; a retry is the same batch less what has its answer; the fence
//! is looked at when a batch is formed, also for connections that are closed already.

mod exchange;
mod queue;

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use sluice_proto::ROOM_LOCKED;
use sluice_proto::grpc::{self, PublishReply, PublishRequest, PublishResult};
use sluice_proto::ids::Key;
use sluice_proto::wire::ErrorCode;

use self::queue::LaneQueue;
use super::{Answered, Outcome, Publish};
use crate::rules::{Faithful, Rule, Rules};

/// Bounds and times of a lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Publishes that may wait.
    pub queue_items_max: usize,
    /// Bytes that may wait.
    pub queue_bytes_max: usize,
    /// From the first try of a batch until its unanswered items are given up together.
    pub horizon: Duration,
    /// The same from when logic says that somebody keeps a room of the batch locked: the other rooms of the lane wait.
    pub locked_horizon: Duration,
    /// Deadline of one call.
    pub try_for: Duration,
    /// Wait after the first failed try; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait between tries.
    pub backoff_max: Duration,
    /// Delayed messages of one sender that may wait, for logic to see to; 0: any number.
    pub scheduled_max: u32,
}

/// Why a call brought no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailed {
    /// The request certainly did not reach a logic (no instance, connection refused).
    NotSent,
    /// It may have been executed.
    Unknown,
}

/// A call to make now.
#[derive(Debug)]
pub struct BatchCall {
    /// Goes back with the reply: one to another call is dropped.
    pub number: u64,
    /// The request to send.
    pub request: PublishRequest,
    /// The call's deadline, counted from now.
    pub within: Duration,
}

#[derive(Debug)]
struct FlightItem {
    publish: Publish,
    /// A former try of this item may have stored it.
    unknown: bool,
}

#[derive(Debug)]
struct Flight {
    items: Vec<FlightItem>,
    not_after_ms: i64,
    give_up_at: Instant,
    /// When it is given up for a room that is locked, since that was said first.
    locked_until: Option<Instant>,
    /// `None` while a call is under way.
    next_try_at: Option<Instant>,
    backoff: Duration,
}

/// The machine of one lane. `R` is [`Faithful`] but in tests.
#[derive(Debug)]
pub struct Lane<R = Faithful> {
    limits: LaneLimits,
    queue: LaneQueue,
    flight: Option<Flight>,
    /// Calls made so far; the number of the one under way.
    calls: u64,
    rules: PhantomData<R>,
}

impl Lane<Faithful> {
    /// An empty lane.
    #[must_use]
    pub fn new(limits: LaneLimits) -> Self {
        Self::with_rules(limits)
    }
}

impl<R: Rules> Lane<R> {
    /// As [`Lane::new`], for tests that leave out a rule.
    #[must_use]
    pub fn with_rules(limits: LaneLimits) -> Self {
        Self { limits, queue: LaneQueue::new(), flight: None, calls: 0, rules: PhantomData }
    }

    /// Takes a publish, or answers it if its connection is fenced.
    ///
    /// # Errors
    /// Gives the publish back when the lane is full: keep it and stop reading that socket.
    #[expect(
        clippy::result_large_err,
        reason = "it goes back as it came: a box would cost each publish an allocation"
    )]
    pub fn push(&mut self, publish: Publish, answers: &mut Vec<Answered>) -> Result<(), Publish> {
        if R::keeps(Rule::Fence) && publish.link.fenced() {
            answers.push(Answered { publish, outcome: Outcome::NotSent });
            return Ok(());
        }
        self.queue.push(publish, &self.limits)
    }

    /// The call to make now, if any: a new batch, or the one in flight again.
    pub fn next(&mut self, now: Instant, wall_ms: i64, answers: &mut Vec<Answered>) -> Option<BatchCall> {
        // Nothing later of the lane goes out before the batch in flight is resolved: else a sender is overtaken.
        if self.flight.is_none() {
            self.form(now, wall_ms, answers);
        }
        let flight = self.flight.as_mut()?;
        if flight.next_try_at.is_none_or(|at| at > now) {
            return None;
        }
        // From here on a reply is awaited; a second call beside it could be stored after the next batch.
        flight.next_try_at = None;
        let within = self.limits.try_for.min(flight.give_up_at.saturating_duration_since(now));
        self.calls += 1;
        Some(BatchCall { number: self.calls, request: flight.request(self.limits.scheduled_max), within })
    }

    /// When [`Lane::next`] is worth asking again without any other event.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.flight.as_ref().and_then(|flight| flight.next_try_at)
    }

    /// Takes what waits as the next batch; what is fenced or too old is answered instead.
    fn form(&mut self, now: Instant, wall_ms: i64, answers: &mut Vec<Answered>) {
        let look = R::keeps(Rule::Fence) && R::keeps(Rule::FenceAtForming);
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return;
            }
            let mut items = Vec::with_capacity(batch.len());
            for publish in batch {
                if publish.not_after_ms <= wall_ms {
                    // Retention may have forgotten its key: it is answered `retry:true`, and that is the fence (A5, A11).
                    publish.link.fence();
                }
                if publish.not_after_ms <= wall_ms || (look && publish.link.fenced()) {
                    answers.push(Answered { publish, outcome: Outcome::NotSent });
                } else {
                    items.push(FlightItem { publish, unknown: false });
                }
            }
            // All of it was answered without a call: look at the next, or the lane would sleep on a full queue.
            if items.is_empty() {
                continue;
            }
            // The earliest of all: none of the batch may be stored past its own (A11).
            let not_after_ms = items.iter().map(|item| item.publish.not_after_ms).min().unwrap_or(wall_ms);
            self.flight = Some(Flight {
                items,
                not_after_ms,
                give_up_at: now + self.limits.horizon,
                locked_until: None,
                next_try_at: Some(now),
                backoff: self.limits.backoff_min,
            });
            return;
        }
    }

    /// The reply to call `number`, or why there is none.
    pub fn replied(
        &mut self,
        number: u64,
        reply: Result<PublishReply, CallFailed>,
        now: Instant,
        answers: &mut Vec<Answered>,
    ) {
        let under_way = self.flight.as_ref().is_some_and(|flight| flight.next_try_at.is_none());
        // A late reply to a try that was given up: the batch has gone on without it.
        if number != self.calls || !under_way {
            return;
        }
        let Some(mut flight) = self.flight.take() else { return };
        let results = match reply {
            // A reply of another shape says nothing about any item.
            Ok(reply) => exchange::results(reply, flight.publishes()).unwrap_or_else(|| flight.all_unknown()),
            Err(CallFailed::Unknown) => flight.all_unknown(),
            Err(CallFailed::NotSent) => {
                let outcome = grpc::Outcome::NotStored.into();
                vec![PublishResult { outcome, ..PublishResult::default() }; flight.items.len()]
            }
        };
        if results.iter().any(|result| result.code == ROOM_LOCKED) {
            // Counted from the first time, or each try would put it off.
            let until = *flight.locked_until.get_or_insert(now + self.limits.locked_horizon);
            flight.give_up_at = flight.give_up_at.min(until);
        }
        let items = std::mem::take(&mut flight.items);
        for (mut item, result) in items.into_iter().zip(results) {
            match judge(&mut item, result) {
                Some(outcome) => answer(item.publish, outcome, answers),
                None => flight.items.push(item),
            }
        }
        if flight.items.is_empty() {
            return;
        }
        // Given up before the wait, not after: the client hears it in time for its own retry.
        if now + flight.backoff >= flight.give_up_at {
            give_up(flight, answers);
        } else {
            self.retry_later(flight, now);
        }
    }

    fn retry_later(&mut self, mut flight: Flight, now: Instant) {
        if !R::keeps(Rule::RetryWithSameKeys) {
            for (item, n) in flight.items.iter_mut().zip(self.calls << 32..) {
                item.publish.key = Key::mint(item.publish.link.session, n);
            }
        }
        if !R::keeps(Rule::RetryInPlace) {
            for item in flight.items {
                drop(self.queue.push(item.publish, &self.limits));
            }
            return;
        }
        flight.next_try_at = Some(now + flight.backoff);
        flight.backoff = (flight.backoff * 2).min(self.limits.backoff_max);
        self.flight = Some(flight);
    }

    /// Answers everything: the batch in flight as it stands, what waits as not sent. A reply that still
    /// comes is not waited for.
    pub fn give_up(&mut self, answers: &mut Vec<Answered>) {
        if let Some(mut flight) = self.flight.take() {
            // A call is under way: it may be stored although nobody waits for its reply.
            if flight.next_try_at.is_none() {
                flight.items.iter_mut().for_each(|item| item.unknown = true);
            }
            give_up(flight, answers);
        }
        while let Some(publish) = self.queue.pop() {
            // Later publishes of this connection must not be stored before these are sent again (A5).
            publish.link.fence();
            answers.push(Answered { publish, outcome: Outcome::NotSent });
        }
    }

    /// Publishes waiting and in flight.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len() + self.flight.as_ref().map_or(0, |flight| flight.items.len())
    }

    /// How many bytes wait.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }
}

impl Flight {
    fn publishes(&self) -> impl Iterator<Item = &Publish> + Clone {
        self.items.iter().map(|item| &item.publish)
    }

    fn request(&self, scheduled_max: u32) -> PublishRequest {
        exchange::request(self.publishes(), self.not_after_ms, scheduled_max)
    }

    fn all_unknown(&self) -> Vec<PublishResult> {
        vec![PublishResult::default(); self.items.len()]
    }
}

/// The final outcome of an item, or `None` if it has to be tried again.
fn judge(item: &mut FlightItem, result: PublishResult) -> Option<Outcome> {
    match result.outcome() {
        grpc::Outcome::Stored => Some(Outcome::Stored { seq: result.seq, at_ms: result.at_ms }),
        grpc::Outcome::Duplicate => Some(Outcome::Duplicate { seq: result.seq }),
        grpc::Outcome::Conflict => Some(Outcome::Conflict),
        grpc::Outcome::Scheduled => Some(Outcome::Scheduled { due_ms: result.due_ms }),
        grpc::Outcome::Cancelled => Some(Outcome::Cancelled),
        grpc::Outcome::TooLate => Some(Outcome::TooLate),
        // The refusal speaks for this try; a former one may have stored it.
        grpc::Outcome::Refused if item.unknown => Some(Outcome::Unknown),
        grpc::Outcome::Refused => {
            let code = serde_json::from_value(result.code.into()).unwrap_or(ErrorCode::BadRequest);
            Some(Outcome::Refused { code, message: result.message })
        }
        grpc::Outcome::Unknown => {
            item.unknown = true;
            None
        }
        grpc::Outcome::NotStored => None,
    }
}

/// Gives up all items of a batch together, so that none is passed by a later one.
fn give_up(flight: Flight, answers: &mut Vec<Answered>) {
    for item in flight.items {
        let outcome = if item.unknown { Outcome::Unknown } else { Outcome::NotSent };
        answer(item.publish, outcome, answers);
    }
}

/// Whoever decides the first `retry:true` sets the fence in the same step.
fn answer(publish: Publish, outcome: Outcome, answers: &mut Vec<Answered>) {
    if outcome.is_retry() {
        publish.link.fence();
    }
    answers.push(Answered { publish, outcome });
}

#[cfg(test)]
mod tests;
