//! Hands committed groups to the fan-out queue. Never waits and never fails a publish: what does not fit
//! is dropped and counted, its outbox row stays, and the sweep announces it again.

mod presence;
mod traces;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use prost::Message as _;
use sluice_lifecycle::Scope;
use sluice_proto::grpc::{self, Notice, RoomRun};
use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::limits::{LANES, NOTICE_INLINE_BYTES_MAX};
use sluice_queue::Queue;
use sluice_service::batcher::{Batcher, Bounds};
use sluice_store::{Committed, NewMessage, NoteId, Outcome, Run, Store};
use sluice_trace::Spans;
use tokio_util::sync::CancellationToken;

use crate::defaults::{
    NOTED_BATCH_MAX, NOTED_EVERY, NOTED_QUEUED_MAX, NOTICE_BYTES_MAX, NOTICE_GROUPS_MAX,
    NOTICES_QUEUED_BYTES_MAX, NOTICES_QUEUED_MAX,
};
use crate::metrics::Metrics;

/// The notice of one group, encoded. Notices of one epoch may be joined end to end: that is how Protobuf
/// merges repeated fields.
struct Outgoing {
    epoch: Epoch,
    bytes: Bytes,
    note: Option<NoteId>,
    /// Of the messages that are traced, until it is handed over.
    spans: Spans,
}

/// Why a notice is not on its way.
const LEFT: &str = "not handed over: a sweep announces the message again, without its trace";

/// The hand-over: one batcher per lane, and one that forgets outbox rows afterwards.
pub struct Notices {
    lanes: Vec<Batcher<Outgoing, ()>>,
    noted: Batcher<NoteId, ()>,
    /// Cancelled when everything is handed over.
    handed_over: CancellationToken,
    /// Cancelled when nothing more is to be forgotten.
    done: CancellationToken,
    /// Groups that were offered and neither handed over nor dropped yet.
    in_hand: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Notices {
    /// Starts the batchers; as tasks of `scope`; they end by [`Notices::close`].
    pub fn start(scope: &Scope, queue: Arc<dyn Queue>, store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let (handed_over, done) = (CancellationToken::new(), CancellationToken::new());
        // A token of its own, not the scope's: rows are forgotten after the last notices are handed
        // over.
        let noted = start_noted(scope, store, done.clone());
        let bounds = Bounds {
            items_max: NOTICE_GROUPS_MAX,
            bytes_max: NOTICE_BYTES_MAX,
            queue_items_max: NOTICES_QUEUED_MAX,
            queue_bytes_max: NOTICES_QUEUED_BYTES_MAX,
        };
        let in_hand = Arc::new(AtomicU64::new(0));
        let lane = |lane: u8| {
            let (queue, noted, metrics) = (Arc::clone(&queue), noted.clone(), metrics.clone());
            let in_hand = Arc::clone(&in_hand);
            let run = move |batch: Vec<Outgoing>| {
                let (groups, in_hand) = (batch.len() as u64, Arc::clone(&in_hand));
                let published = publish(Arc::clone(&queue), noted.clone(), metrics.clone(), lane, batch);
                published.inspect(move |_| {
                    in_hand.fetch_sub(groups, Ordering::Relaxed);
                })
            };
            let (batcher, drive) =
                Batcher::new("notices", bounds, |out: &Outgoing| out.bytes.len(), handed_over.clone(), run);
            scope.spawn("notices", drive);
            batcher
        };
        let lanes = (0..LANES).map(lane).collect();
        Self { lanes, noted, handed_over, done, in_hand, metrics }
    }

    /// Hands over a committed group, or drops it. `spans` are those of the traced items, by their place.
    pub fn offer(&self, lane: u8, items: &[&NewMessage], committed: &Committed, spans: &Spans) {
        let mut runs = runs(items, committed);
        if runs.is_empty() {
            return;
        }
        let spans = traces::of(spans, items, committed, &mut runs);
        self.hand_over((lane, committed.epoch), runs, committed.note, spans);
    }

    /// Hands over what was committed in other ways, without the messages, or drops it.
    pub fn offer_runs(&self, lane: u8, epoch: Epoch, runs: &[Run], note: Option<NoteId>) {
        if !runs.is_empty() {
            let runs = runs.iter().map(|run| bare_run(run.room.as_str(), run.first, run.last)).collect();
            self.hand_over((lane, epoch), runs, note, Spans::default());
        }
    }

    fn hand_over(&self, (lane, epoch): (u8, Epoch), runs: Vec<RoomRun>, note: Option<NoteId>, spans: Spans) {
        let bytes = Notice { epoch: epoch.0, runs }.encode_to_vec().into();
        let out = Outgoing { epoch, bytes, note, spans };
        // Never waits: a queue that is away must not delay a commit (C6).
        // Before the offer, as it may be handed over before this goes on.
        self.in_hand.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.lanes[usize::from(lane % LANES)].offer(out) {
            self.in_hand.fetch_sub(1, Ordering::Relaxed);
            self.metrics.notices_dropped.inc();
            refused.0.spans.fail(LEFT);
        }
    }

    /// Groups that NATS has not taken yet.
    #[must_use]
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::Relaxed)
    }

    /// Sends what waits, then forgets what was sent. Harmless when repeated.
    pub async fn close(&self) {
        // In this order: the lanes still tell `noted` what was handed over.
        futures::future::join_all(self.lanes.iter().map(Batcher::close)).await;
        self.handed_over.cancel();
        self.done.cancel();
        self.noted.close().await;
    }
}

/// Deletes outbox rows lazily: as many as gather in [`NOTED_EVERY`] with one statement.
fn start_noted(scope: &Scope, store: Arc<dyn Store>, done: CancellationToken) -> Batcher<NoteId, ()> {
    let bounds = Bounds {
        items_max: NOTED_BATCH_MAX,
        bytes_max: usize::MAX,
        queue_items_max: NOTED_QUEUED_MAX,
        queue_bytes_max: usize::MAX,
    };
    let hurry = done.clone();
    let run = move |notes: Vec<NoteId>| {
        let (store, hurry) = (Arc::clone(&store), hurry.clone());
        async move {
            if let Err(error) = store.noted(&notes).await {
                tracing::debug!(%error, notes = notes.len(), "Outbox rows stay and will be announced again.");
            }
            // The rest gathers meanwhile.
            let _ = tokio::time::timeout(NOTED_EVERY, hurry.cancelled()).await;
            vec![(); notes.len()]
        }
    };
    let (batcher, drive) = Batcher::new("outbox", bounds, |_| 1, done, run);
    scope.spawn("outbox", drive);
    batcher
}

/// One or, when the epoch changed in between, a few messages to the queue.
async fn publish(
    queue: Arc<dyn Queue>,
    noted: Batcher<NoteId, ()>,
    metrics: Metrics,
    lane: u8,
    batch: Vec<Outgoing>,
) -> Vec<()> {
    // A notice has one epoch, and a restore may fall between two groups.
    for same in batch.chunk_by(|a, b| a.epoch == b.epoch) {
        match queue.publish(lane, join(same)).await {
            Ok(()) => {
                metrics.notices_sent.inc_by(same.len() as u64);
                same.iter().filter_map(|out| out.note).for_each(|note| forget(&noted, note));
            }
            Err(error) => {
                metrics.notices_dropped.inc_by(same.len() as u64);
                same.iter().for_each(|out| out.spans.fail(LEFT));
                tracing::debug!(%error, lane, groups = same.len(), "Notices were not handed over; the sweep will.");
            }
        }
    }
    vec![(); batch.len()]
}

fn join(parts: &[Outgoing]) -> Bytes {
    if let [one] = parts {
        return one.bytes.clone();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(&part.bytes));
    joined.freeze()
}

fn forget(noted: &Batcher<NoteId, ()>, note: NoteId) {
    // A row that does not fit stays, and the sweep finds it.
    let _ = noted.offer(note);
}

/// What a group stored, by room; messages inline as far as [`NOTICE_INLINE_BYTES_MAX`] allows. Of what was stored before
/// only that it is there: a gateway asks again because nobody answered, so whoever stored it may have died before it
/// told anybody else.
fn runs(items: &[&NewMessage], committed: &Committed) -> Vec<RoomRun> {
    let mut runs: Vec<RoomRun> = Vec::new();
    let mut run_of: HashMap<&RoomId, usize> = HashMap::new();
    let mut before: HashMap<&RoomId, Seq> = HashMap::new();
    for (item, row) in items.iter().zip(&committed.rows) {
        let (seq, at_ms) = match row.outcome {
            Outcome::Stored { seq, at_ms } => (seq, at_ms),
            Outcome::Duplicate { seq } => {
                before.entry(&item.room).and_modify(|last| *last = seq.max(*last)).or_insert(seq);
                continue;
            }
            Outcome::Conflict | Outcome::Waits { .. } => continue,
        };
        let message = grpc::Message {
            seq,
            sender: item.sender.as_str().to_owned(),
            key: item.key.as_str().to_owned(),
            at_ms,
            data: item.data.clone(),
        };
        match run_of.get(&item.room).and_then(|&at| runs.get_mut(at)) {
            // A duplicate between two stored items leaves a hole, and a run has none.
            Some(run) if run.last + 1 == seq => {
                run.last = seq;
                run.messages.push(message);
            }
            Some(_) | None => {
                run_of.insert(&item.room, runs.len());
                runs.push(RoomRun {
                    room: item.room.as_str().to_owned(),
                    first: seq,
                    last: seq,
                    messages: vec![message],
                    ..RoomRun::default()
                });
            }
        }
    }
    let mut left = NOTICE_INLINE_BYTES_MAX;
    for run in &mut runs {
        let bytes = run.messages.iter().map(|message| message.data.len()).sum();
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            // As a whole: gateways read a run that has no messages, and could not see that some are
            // missing (C7).
            None => run.messages.clear(),
        }
    }
    // One below a run of the same group is known by that.
    before.retain(|room, _| !run_of.contains_key(room));
    runs.extend(before.into_iter().map(|(room, last)| bare_run(room.as_str(), last, last)));
    runs
}

/// A run without its messages, for what is announced again. Its last seq is what counts: a gateway reads up to it.
#[must_use]
pub fn bare_run(room: &str, first: Seq, last: Seq) -> RoomRun {
    RoomRun { room: room.to_owned(), first, last, ..RoomRun::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::ids::{Key, UserId};
    use sluice_store::Row;

    fn message(room: &str, bytes: usize) -> NewMessage {
        NewMessage {
            room: RoomId::parse(room).expect("valid"),
            sender: UserId::parse("ann").expect("valid"),
            key: Key::parse("k").expect("valid"),
            hash: [0; 32],
            data: Bytes::from(vec![b'1'; bytes]),
        }
    }

    fn committed(outcomes: &[Outcome]) -> Committed {
        let rows = outcomes.iter().map(|&outcome| Row { outcome }).collect();
        Committed { epoch: Epoch(7), rows, note: Some(NoteId(1)) }
    }

    fn stored(seq: Seq) -> Outcome {
        Outcome::Stored { seq, at_ms: 5 }
    }

    #[test]
    fn runs_hold_what_is_new_by_room() {
        let items = [message("a", 1), message("b", 1), message("a", 1), message("a", 1)];
        let group = committed(&[stored(4), stored(1), Outcome::Duplicate { seq: 2 }, stored(5)]);
        let runs = runs(&items.iter().collect::<Vec<_>>(), &group);
        let shape: Vec<_> =
            runs.iter().map(|run| (run.room.as_str(), run.first, run.last, run.messages.len())).collect();
        assert_eq!(shape, [("a", 4, 5, 2), ("b", 1, 1, 1)]);
    }

    #[test]
    fn what_was_stored_before_is_announced_by_its_last_seq() {
        let items = [message("a", 1), message("b", 1), message("a", 1), message("c", 1)];
        let duplicate = |seq| Outcome::Duplicate { seq };
        let group = committed(&[duplicate(3), stored(1), duplicate(2), Outcome::Conflict]);
        let runs = runs(&items.iter().collect::<Vec<_>>(), &group);
        let shape: Vec<_> =
            runs.iter().map(|run| (run.room.as_str(), run.first, run.last, run.messages.len())).collect();
        assert_eq!(shape, [("b", 1, 1, 1), ("a", 3, 3, 0)]);
    }

    #[test]
    fn a_run_is_inline_as_a_whole_or_not_at_all() {
        let large = 60 * 1024;
        let items: Vec<_> =
            (0..8).map(|_| message("a", large)).chain([message("b", large), message("c", 100)]).collect();
        let outcomes: Vec<_> = (1..=8).map(stored).chain([stored(1), stored(1)]).collect();
        let runs = runs(&items.iter().collect::<Vec<_>>(), &committed(&outcomes));
        assert_eq!(runs.iter().map(|run| run.messages.len()).collect::<Vec<_>>(), [8, 0, 1]);
        let notice = Notice { epoch: 7, runs };
        assert!(notice.encoded_len() < NOTICE_BYTES_MAX);
    }

    #[test]
    fn notices_of_one_epoch_join_end_to_end() {
        let part = |room: &str| Outgoing {
            epoch: Epoch(7),
            bytes: Notice { epoch: 7, runs: vec![bare_run(room, 1, 2)] }.encode_to_vec().into(),
            note: None,
            spans: Spans::default(),
        };
        let joined = Notice::decode(join(&[part("a"), part("b")])).expect("valid");
        assert_eq!(joined, Notice { epoch: 7, runs: vec![bare_run("a", 1, 2), bare_run("b", 1, 2)] });
    }
}
