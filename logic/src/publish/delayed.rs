//! What is to be published later, and what is not to be after all: judged like a publish, then kept by the store. A call
//! is one statement, and each of its items may be sent again. Nothing is published here.

use std::sync::Arc;

use sluice_proto::grpc::{self, DelayedItem, PublishResult};
use sluice_proto::wire::ErrorCode;
use sluice_service::clock::Clock;
use sluice_service::seeded::{self, Bug};
use sluice_store::{self as store, Class, DelayedOutcome, Store, WaitingLimit};
use tokio::time::Instant;

use super::validate::{self, InvalidItem};
use super::{plain, refused};
use crate::metrics::{DelayedLabel, Metrics, OutcomeLabel};

/// Under which a call is carried out.
#[derive(Debug, Clone, Copy)]
struct Terms<'a> {
    not_after_ms: i64,
    limit: &'a WaitingLimit,
}

/// Has the store keep messages, and take them back.
pub struct Delayer {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
}

impl Delayer {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock, metrics: Metrics) -> Self {
        Self { store, clock, metrics }
    }

    /// Answers every item, in order. No more wait than `limit` says.
    pub async fn delay(
        &self,
        items: Vec<DelayedItem>,
        not_after_ms: i64,
        limit: &WaitingLimit,
        deadline: Option<Instant>,
    ) -> Vec<PublishResult> {
        let mut results = vec![plain(grpc::Outcome::NotStored); items.len()];
        let mut valid = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            match validate::delayed(item) {
                Ok(item) if lies_about(&item) => results[place] = plain(grpc::Outcome::Cancelled),
                Ok(item) => valid.push((place, early(item))),
                Err(refusal) => results[place] = refused(refusal),
            }
        }
        // Looked at immediately before the store is asked (A11); the store looks again.
        let in_time =
            deadline.is_none_or(|deadline| Instant::now() < deadline) && self.clock.now_ms() <= not_after_ms;
        if in_time && !valid.is_empty() {
            self.keep(&valid, Terms { not_after_ms, limit }, &mut results).await;
        }
        results.iter().for_each(|result| self.count(result.outcome()));
        results
    }

    /// What waits and what was taken back have names of their own; the rest became what any publish may become.
    fn count(&self, outcome: grpc::Outcome) {
        let delayed = |label: DelayedLabel| self.metrics.delayed(label).inc();
        let publish = |label: OutcomeLabel| self.metrics.publish(label).inc();
        match outcome {
            grpc::Outcome::Scheduled => delayed(DelayedLabel::Scheduled),
            grpc::Outcome::Cancelled => delayed(DelayedLabel::Cancelled),
            grpc::Outcome::TooLate => delayed(DelayedLabel::TooLate),
            grpc::Outcome::Stored => publish(OutcomeLabel::Stored),
            grpc::Outcome::Duplicate => publish(OutcomeLabel::Duplicate),
            grpc::Outcome::Conflict => publish(OutcomeLabel::Conflict),
            grpc::Outcome::Refused => publish(OutcomeLabel::Refused),
            grpc::Outcome::NotStored => publish(OutcomeLabel::NotStored),
            grpc::Outcome::Unknown => publish(OutcomeLabel::Unknown),
        };
    }

    /// All of them together; when the store cannot hold one of them, each by itself.
    async fn keep(
        &self,
        items: &[(usize, store::DelayedItem)],
        terms: Terms<'_>,
        results: &mut [PublishResult],
    ) {
        if self.attempt(items, terms, results).await != Err(Class::Reject) {
            return;
        }
        for item in items {
            match self.attempt(std::slice::from_ref(item), terms, results).await {
                Ok(()) => {}
                Err(Class::Reject) => results[item.0] = poison(),
                // A later item of the same key must not overtake this one (A7).
                Err(Class::Retry | Class::Unknown | Class::TooLate) => return,
            }
        }
    }

    async fn attempt(
        &self,
        items: &[(usize, store::DelayedItem)],
        terms: Terms<'_>,
        results: &mut [PublishResult],
    ) -> Result<(), Class> {
        let lane = lane_of(&items[0].1);
        let group = items.iter().map(|(_, item)| item.clone()).collect();
        match self.store.delay(lane, terms.not_after_ms, terms.limit, group).await {
            Ok(outcomes) if outcomes.len() == items.len() => {
                for ((place, item), outcome) in items.iter().zip(outcomes) {
                    if outcome == DelayedOutcome::TooMany {
                        self.metrics.delayed(DelayedLabel::TooMany).inc();
                    }
                    results[*place] = answer(item, outcome);
                }
                Ok(())
            }
            Ok(_) => {
                items.iter().for_each(|(place, _)| results[*place] = plain(grpc::Outcome::Unknown));
                Err(Class::Unknown)
            }
            Err(error) => {
                let class = error.class();
                self.metrics.store_failed(class).inc();
                tracing::debug!(%error, items = items.len(), lane, "Delayed messages were not kept; their gateways try again.");
                if class == Class::Unknown {
                    items.iter().for_each(|(place, _)| results[*place] = plain(grpc::Outcome::Unknown));
                }
                Err(class)
            }
        }
    }
}

fn answer(item: &store::DelayedItem, outcome: DelayedOutcome) -> PublishResult {
    match outcome {
        DelayedOutcome::Waits { due_ms } => {
            let due_ms = if seeded::is(Bug::FiresEarly) { due_ms + EARLY_MS } else { due_ms };
            PublishResult { due_ms, ..plain(grpc::Outcome::Scheduled) }
        }
        DelayedOutcome::Published { seq } => PublishResult { seq, ..plain(grpc::Outcome::Duplicate) },
        DelayedOutcome::Conflict => plain(grpc::Outcome::Conflict),
        DelayedOutcome::Cancelled if matches!(item, store::DelayedItem::Cancel { .. }) => {
            plain(grpc::Outcome::Cancelled)
        }
        DelayedOutcome::Cancelled => {
            let message = "this key was cancelled; choose another".into();
            refused(InvalidItem { code: ErrorCode::Conflict, message })
        }
        DelayedOutcome::TooMany => {
            let message =
                "too many of your delayed messages wait: cancel some, or wait until some are published";
            refused(InvalidItem { code: ErrorCode::TooManyScheduled, message: message.into() })
        }
        DelayedOutcome::NothingWaits => plain(grpc::Outcome::TooLate),
    }
}

fn lane_of(item: &store::DelayedItem) -> u8 {
    match item {
        store::DelayedItem::Schedule { message, .. } => message.room.lane(),
        store::DelayedItem::Cancel { room, .. } => room.lane(),
    }
}

fn poison() -> PublishResult {
    let message = "the store cannot hold this message".into();
    refused(InvalidItem { code: ErrorCode::BadRequest, message })
}

/// How much too early a seeded bug publishes.
const EARLY_MS: i64 = 1_500;

/// A seeded bug: what is kept is due before what is answered.
fn early(item: store::DelayedItem) -> store::DelayedItem {
    match item {
        store::DelayedItem::Schedule { message, due } if seeded::is(Bug::FiresEarly) => {
            let due = match due {
                store::Due::At(ms) => store::Due::At(ms - EARLY_MS),
                store::Due::In(ms) => store::Due::In(ms - EARLY_MS),
            };
            store::DelayedItem::Schedule { message, due }
        }
        item @ (store::DelayedItem::Schedule { .. } | store::DelayedItem::Cancel { .. }) => item,
    }
}

/// A seeded bug: a cancel is answered, and nothing is cancelled.
fn lies_about(item: &store::DelayedItem) -> bool {
    seeded::is(Bug::CancelLies) && matches!(item, store::DelayedItem::Cancel { .. })
}
