//! Natural batching: while one batch is in flight, collect; when it returns, send what has gathered.
//!
//! No waiting when idle, large batches under load, no timer. [`BatchQueue`] and [`Merged`] are the rule without
//! any I/O, for use inside state machines; [`Batcher`] drives a [`BatchQueue`] for an async function. Every one
//! is bounded in items and bytes and never has two batches in flight, so order is kept.

mod driver;
mod merged;
mod queue;

pub use driver::{Batcher, SubmitError};
pub use merged::Merged;
pub use queue::BatchQueue;

/// How much a batch and its queue may hold.
///
/// A single item above a byte limit still passes, alone: refusing it for ever would stop the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items of one batch, at least 1.
    pub items_max: usize,
    /// Bytes of one batch, as counted by the owner.
    pub bytes_max: usize,
    /// Items that may wait, besides the batch in flight; at least 1.
    pub queue_items_max: usize,
    /// Bytes that may wait, besides the batch in flight.
    pub queue_bytes_max: usize,
}

impl Bounds {
    /// Whether `bytes` more fit beside what waits.
    fn admits(&self, items: usize, held: usize, bytes: usize) -> bool {
        // An item above the bounds passes alone, or it would never pass.
        items == 0
            || (items < self.queue_items_max
                && held.checked_add(bytes).is_some_and(|sum| sum <= self.queue_bytes_max))
    }
}

/// The item did not fit and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full<T>(pub T);

/// Counts how much of what waits goes into the next batch.
struct Cut {
    items: usize,
    bytes: usize,
}

/// The longest prefix of `costs` that keeps the batch bounds, at least one item if there is any.
fn cut(bounds: &Bounds, costs: impl Iterator<Item = usize>) -> Cut {
    let mut cut = Cut { items: 0, bytes: 0 };
    for cost in costs {
        let bytes = cut.bytes.saturating_add(cost);
        if cut.items > 0 && (cut.items >= bounds.items_max || bytes > bounds.bytes_max) {
            break;
        }
        cut = Cut { items: cut.items + 1, bytes };
    }
    cut
}
