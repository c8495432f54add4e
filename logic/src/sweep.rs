//! Owed work: announces what was not handed over, forgets what repair has found by itself, applies
//! retention. Bounded work per call; whoever calls, and however often, the effect is the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sluice_proto::grpc::{Notice, RoomRun, SweepReply};
use sluice_queue::Queue;
use sluice_store::{NoteId, Retention, StaleNote, Store};

use crate::defaults::{
    NOTICE_BYTES_MAX, STALE_NOTE, SWEEP_CANCELLED_MAX, SWEEP_DROP_MAX, SWEEP_NOTES_MAX, SWEEP_TRIM_MAX,
};
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::notices::bare_run;

/// Answers `Sweep`.
pub struct Sweeper {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    retention: Retention,
    /// Outbox rows older than this are of no use: gateways have found the messages themselves.
    repair_bound: Duration,
    metrics: Metrics,
}

impl Sweeper {
    /// A sweeper over these parts.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        retention: Retention,
        repair_bound: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { store, queue, retention, repair_bound, metrics }
    }

    /// One bounded step of everything.
    ///
    /// # Errors
    /// The store; what was done before stays done.
    pub async fn sweep(&self) -> Result<SweepReply, CallError> {
        // Before the stale ones are read: what repair has found needs no announcement.
        let outbox_removed = self.store.drop_old_notes(self.repair_bound, SWEEP_DROP_MAX).await?;
        let stale = self.store.stale_notes(STALE_NOTE, SWEEP_NOTES_MAX).await?;
        let renoticed = if stale.is_empty() { 0 } else { self.announce(&stale).await? };
        let trimmed = if self.retention.age.is_some() || self.retention.count.is_some() {
            self.store.trim(&self.retention, SWEEP_TRIM_MAX).await?
        } else {
            sluice_store::Trimmed::default()
        };
        // As long as keys are remembered: by then no late copy of a call can be stored.
        let forgotten = self.store.forget_cancelled(self.retention.dedupe_min, SWEEP_CANCELLED_MAX).await?;
        self.metrics.trimmed.inc_by(trimmed.messages);
        let more_notes = stale.len() == SWEEP_NOTES_MAX && renoticed == stale.len() as u64;
        let more = trimmed.more
            || more_notes
            || outbox_removed == SWEEP_DROP_MAX as u64
            || forgotten == SWEEP_CANCELLED_MAX as u64;
        Ok(SweepReply { renoticed, outbox_removed, messages_trimmed: trimmed.messages, more })
    }

    /// Announces outbox rows, ranges only, and forgets those that were taken. Stops at the first that is
    /// not: the queue is down, and the next sweep comes.
    async fn announce(&self, stale: &[StaleNote]) -> Result<u64, CallError> {
        // Now, not when the row was written: gateways believe positions of the present history
        // only.
        let epoch = self.store.epoch().await?.0;
        let mut announced = 0;
        for ((lane, _), parts) in packed(stale) {
            let runs = parts.iter().flat_map(|note| runs(note)).collect();
            if let Err(error) = self.queue.publish(lane, Notice { epoch, runs }.encode_to_vec().into()).await
            {
                tracing::debug!(%error, "Outbox rows wait for the queue.");
                break;
            }
            let notes: Vec<NoteId> = parts.iter().map(|note| note.id).collect();
            // After the hand-over: a crash between the two announces twice, which does no harm.
            self.store.noted(&notes).await?;
            announced += notes.len() as u64;
        }
        self.metrics.renoticed.inc_by(announced);
        Ok(announced)
    }
}

fn runs(note: &StaleNote) -> impl Iterator<Item = RoomRun> + '_ {
    note.runs.iter().map(|run| bare_run(run.room.as_str(), run.first, run.last))
}

/// Rows by lane, oldest first, as many in one message as fit.
fn packed(stale: &[StaleNote]) -> BTreeMap<(u8, usize), Vec<&StaleNote>> {
    let mut bytes_of_lane: BTreeMap<u8, usize> = BTreeMap::new();
    let mut packed: BTreeMap<(u8, usize), Vec<&StaleNote>> = BTreeMap::new();
    for note in stale {
        let lane = note.runs.first().map_or(0, |run| run.room.lane());
        let sum = bytes_of_lane.entry(lane).or_default();
        // A row is at most 256 runs of a name and two numbers, 40 KiB: it may straddle the bound of half.
        let message = *sum / (NOTICE_BYTES_MAX / 2);
        *sum += runs(note).map(|run| run.encoded_len() + 4).sum::<usize>();
        packed.entry((lane, message)).or_default().push(note);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::ids::RoomId;
    use sluice_store::Run;

    fn note(id: i64, room: &str, runs: u64) -> StaleNote {
        let room = RoomId::parse(room).expect("valid");
        let runs = (1..=runs).map(|seq| Run { room: room.clone(), first: seq, last: seq }).collect();
        StaleNote { id: NoteId(id), at_ms: 0, runs }
    }

    #[test]
    fn rows_are_packed_by_lane_in_order_within_the_size_of_a_message() {
        let long = "x".repeat(128);
        let stale: Vec<_> =
            (0..40).map(|id| note(id, if id % 2 == 0 { &long } else { "news" }, 256)).collect();
        let packed = packed(&stale);
        for ((lane, _), notes) in &packed {
            let bytes: usize =
                notes.iter().flat_map(|note| runs(note)).map(|run| run.encoded_len() + 4).sum();
            assert!(bytes < NOTICE_BYTES_MAX, "{bytes}");
            assert!(notes.iter().all(|note| note.runs[0].room.lane() == *lane));
            assert!(notes.is_sorted_by_key(|note| note.id));
        }
        assert_eq!(packed.values().map(Vec::len).sum::<usize>(), 40);
        assert!(packed.len() > 2, "the long room needs more than one message");
    }
}
