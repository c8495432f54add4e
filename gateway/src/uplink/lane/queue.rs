//! What waits in a lane: each sender in turn gives one, so that one who publishes as fast as it is read does not stand
//! before all others. What one sends keeps its order, also over several connections. Pure.

use sluice_proto::ids::UserId;
use sluice_proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};

use super::LaneLimits;
use crate::defaults::{SHARED_BATCH_ITEMS_EACH, SHARED_BATCH_ITEMS_MIN};
use crate::fair_queue::FairQueue;
use crate::uplink::Publish;

/// Publishes by sender, each with what it counts in byte bounds.
#[derive(Debug)]
pub(super) struct LaneQueue {
    // By sender and not by connection: who comes back sends again by a new one, and must not overtake itself.
    by_sender: FairQueue<UserId, (Publish, usize)>,
    bytes: usize,
}

impl LaneQueue {
    pub(super) fn new() -> Self {
        Self { by_sender: FairQueue::new(BATCH_ITEMS_MAX), bytes: 0 }
    }

    /// Appends to what waits of its sender. An empty queue takes any publish.
    ///
    /// # Errors
    /// Gives it back when the bounds would be passed.
    #[expect(
        clippy::result_large_err,
        reason = "it goes back as it came: a box would cost each publish an allocation"
    )]
    pub(super) fn push(&mut self, publish: Publish, limits: &LaneLimits) -> Result<(), Publish> {
        let cost = publish.cost();
        let bytes = self.bytes.saturating_add(cost);
        let has_room = self.len() < limits.queue_items_max && bytes <= limits.queue_bytes_max;
        if !self.by_sender.is_empty() && !has_room {
            return Err(publish);
        }
        self.bytes = bytes;
        self.by_sender.push(publish.sender.clone(), (publish, cost));
        Ok(())
    }

    /// The next batch, empty when nothing waits.
    pub(super) fn take(&mut self) -> Vec<Publish> {
        let items_max = batch_items_max(self.by_sender.askers());
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        while batch.len() < items_max
            && let Some((_, cost)) = self.by_sender.peek()
        {
            bytes += cost;
            // One that is above the bound goes alone, or it would stand there for ever.
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            batch.extend(self.pop());
        }
        batch
    }

    /// The next one: of the sender whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Publish> {
        let (publish, cost) = self.by_sender.pop()?;
        self.bytes -= cost;
        Some(publish)
    }

    pub(super) const fn len(&self) -> usize {
        self.by_sender.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Items of a batch when so many senders wait. Who comes next waits for all of it: where it is shared, a few of each are
/// taken, so that a few who never stop make no large one, and many who all have much do. Who is alone keeps nobody waiting.
fn batch_items_max(senders: usize) -> usize {
    if senders <= 1 {
        return BATCH_ITEMS_MAX;
    }
    senders.saturating_mul(SHARED_BATCH_ITEMS_EACH).clamp(SHARED_BATCH_ITEMS_MIN, BATCH_ITEMS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_large_for_one_sender_or_for_many() {
        let sizes = [1, 2, 8, 9, 64, 1_000].map(batch_items_max);
        assert_eq!(sizes, [256, 32, 32, 36, 256, 256]);
    }
}
