//! A batch as logic is asked about it, and the reply in the order of the batch. Pure.

use sluice_proto::grpc::delayed_item::When;
use sluice_proto::grpc::{
    self, DelayedItem, ItemTrace, PublishItem, PublishReply, PublishRequest, PublishResult,
};

use crate::uplink::{Later, Publish};

/// What is to be published at once goes beside what is not: each part in the order of the batch.
pub(super) fn request<'a>(
    publishes: impl Iterator<Item = &'a Publish>,
    not_after_ms: i64,
    scheduled_max: u32,
) -> PublishRequest {
    let mut request = PublishRequest { not_after_ms, scheduled_max, ..PublishRequest::default() };
    for publish in publishes {
        let item = item(publish);
        match when(publish) {
            None => {
                if let Some(traceparent) = publish.span.traceparent() {
                    let item = u32::try_from(request.items.len()).unwrap_or(u32::MAX);
                    request.traces.push(ItemTrace { item, traceparent });
                }
                request.items.push(item);
            }
            Some(when) => request.delayed.push(DelayedItem { item: Some(item), when: Some(when) }),
        }
    }
    request
}

fn item(publish: &Publish) -> PublishItem {
    PublishItem {
        room: publish.room.as_str().to_owned(),
        sender: publish.sender.as_str().to_owned(),
        key: publish.key.as_str().to_owned(),
        data: publish.data.clone(),
    }
}

/// `None`: at once.
fn when(publish: &Publish) -> Option<When> {
    Some(match **publish.later.as_ref()? {
        Later::In(delay_ms) => When::DelayMs(delay_ms),
        Later::At(due_ms) => When::DueMs(due_ms),
        Later::Cancel => When::Cancel(true),
    })
}

/// One result for each publish of the batch, in its order; `None`: the reply is of another shape.
pub(super) fn results<'a>(
    reply: PublishReply,
    publishes: impl Iterator<Item = &'a Publish> + Clone,
) -> Option<Vec<PublishResult>> {
    let is_delayed = |publish: &Publish| publish.later.is_some();
    let delayed = publishes.clone().filter(|publish| is_delayed(publish)).count();
    let at_once = publishes.clone().count() - delayed;
    let (mut now, mut later) = (reply.results, reply.delayed);
    if later.is_empty() {
        // A logic of the version before has not looked at them: another one may.
        let outcome = grpc::Outcome::NotStored.into();
        later = vec![PublishResult { outcome, ..PublishResult::default() }; delayed];
    }
    if now.len() != at_once || later.len() != delayed {
        return None;
    }
    let (mut now, mut later) = (now.drain(..), later.drain(..));
    publishes.map(|publish| if is_delayed(publish) { later.next() } else { now.next() }).collect()
}
