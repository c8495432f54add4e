//! Commits a group of calls, and when that fails finds out by whose fault.
//!
//! A call is in one group as a whole (hazard A6). When the store rejects a group for one item (A7), the
//! items are run singly, in order; the culprit is refused, and at the first failure of another kind the
//! rest is left alone, or a later item of the same sender would overtake. Never answers "not stored" on a
//! guess, never retries: the gateway has the keys that make a retry safe.

use std::collections::{BTreeSet, HashSet};

use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_service::clock::Clock;
use sluice_store::{Class, Committed, NewMessage, Store, StoreError, Trouble};
use sluice_trace::{Kind, Spans};
use tokio::time::Instant;

/// One `Publish` call: valid items in order, and until when they may be stored.
#[derive(Debug, Clone)]
pub struct PublishCall {
    /// The messages to store.
    pub items: Vec<NewMessage>,
    /// The caller waits until then; later, executing only burns time.
    pub deadline: Option<Instant>,
    /// Wall time in milliseconds since 1970: past it retention may have forgotten the keys.
    pub not_after_ms: i64,
    /// Of the messages that are traced, by their place.
    pub spans: Spans,
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOutcome {
    /// This call stored it.
    Stored {
        /// The position of the message.
        seq: Seq,
        /// Store clock, milliseconds since 1970.
        at_ms: i64,
    },
    /// An earlier call stored it.
    Duplicate {
        /// Position of the first storing.
        seq: Seq,
    },
    /// The same message waits to be published later.
    Waits {
        /// Until then, store clock, milliseconds since 1970.
        due_ms: i64,
    },
    /// The key was used for other data.
    Conflict,
    /// The store can never hold it.
    Poison,
    /// Certainly not stored by this call.
    NotStored,
    /// The same, and it will not be before somebody lets go of its room.
    Locked,
    /// Nobody knows whether it is stored.
    Unknown,
}

impl From<sluice_store::Outcome> for ItemOutcome {
    fn from(outcome: sluice_store::Outcome) -> Self {
        match outcome {
            sluice_store::Outcome::Stored { seq, at_ms } => Self::Stored { seq, at_ms },
            sluice_store::Outcome::Duplicate { seq } => Self::Duplicate { seq },
            sluice_store::Outcome::Waits { due_ms } => Self::Waits { due_ms },
            sluice_store::Outcome::Conflict => Self::Conflict,
        }
    }
}

/// The answer to a call: one outcome per item, and the epoch their positions belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcomes {
    /// Absent when nothing was committed.
    pub epoch: Option<Epoch>,
    /// In the order of the items.
    pub outcomes: Vec<ItemOutcome>,
}

/// Told of every commit and failure, in order.
pub trait CommitObserver: Send + Sync {
    /// These items were committed together; `spans` are those of the traced ones, by their place.
    fn committed(&self, items: &[&NewMessage], committed: &Committed, spans: &Spans);
    /// The store failed.
    fn failed(&self, error: &StoreError, items: usize);
}

/// Where an item stands: call, item of the call.
type ItemPlace = (usize, usize);

/// How one try ended.
enum Attempted {
    Committed,
    Poison,
    TooLate,
    Locked,
    Failed,
}

/// A group on its way through one lane of the store.
pub struct CommitGroup<'a> {
    store: &'a dyn Store,
    observer: &'a dyn CommitObserver,
    clock: &'a Clock,
    lane: u8,
    calls: Vec<PublishCall>,
    answers: Vec<CallOutcomes>,
}

impl<'a> CommitGroup<'a> {
    /// A group of whole calls, in order; at least one.
    pub fn new(
        store: &'a dyn Store,
        observer: &'a dyn CommitObserver,
        clock: &'a Clock,
        lane: u8,
        calls: Vec<PublishCall>,
    ) -> Self {
        let nothing = |call: &PublishCall| CallOutcomes {
            epoch: None,
            outcomes: vec![ItemOutcome::NotStored; call.items.len()],
        };
        let answers = calls.iter().map(nothing).collect();
        Self { store, observer, clock, lane, calls, answers }
    }

    /// Commits what is in time; one answer per call, in order.
    pub async fn run(mut self) -> Vec<CallOutcomes> {
        // Who gave up while it waited is left out: committing for nobody only makes the others
        // wait.
        let calls: Vec<usize> = (0..self.calls.len()).filter(|call| self.in_time(*call)).collect();
        let all = self.slots(&calls);
        match self.attempt(&all).await {
            Attempted::Committed | Attempted::Failed => {}
            Attempted::Poison => {
                self.singly(&all).await;
            }
            Attempted::Locked => self.beside_locked(&all).await,
            // The store judges the earliest `not_after` of a group: alone, it is its own.
            Attempted::TooLate if calls.len() == 1 => {}
            Attempted::TooLate => self.call_by_call(&calls).await,
        }
        self.answers
    }

    /// Whether a call may still be executed: looked at immediately before each try.
    fn in_time(&self, call: usize) -> bool {
        let call = &self.calls[call];
        call.deadline.is_none_or(|deadline| Instant::now() < deadline)
            && self.clock.now_ms() <= call.not_after_ms
    }

    fn slots(&self, calls: &[usize]) -> Vec<ItemPlace> {
        calls
            .iter()
            .flat_map(|&call| (0..self.calls[call].items.len()).map(move |item| (call, item)))
            .collect()
    }

    /// The group was too late for one of its calls: each by its own `not_after`.
    async fn call_by_call(&mut self, calls: &[usize]) {
        for &call in calls {
            // Each try takes a round trip, so each looks again.
            if !self.in_time(call) {
                continue;
            }
            let slots = self.slots(&[call]);
            let go_on = match self.attempt(&slots).await {
                Attempted::Committed | Attempted::TooLate => true,
                Attempted::Poison => self.singly(&slots).await,
                Attempted::Locked | Attempted::Failed => false,
            };
            if !go_on {
                return;
            }
        }
    }

    /// One item at a time, in order. False when it had to stop: the rest is not stored.
    async fn singly(&mut self, slots: &[ItemPlace]) -> bool {
        let mut ended = None;
        for &(call, item) in slots {
            if ended == Some(call) {
                continue;
            }
            if !self.in_time(call) {
                ended = Some(call);
                continue;
            }
            match self.attempt(&[(call, item)]).await {
                Attempted::Committed => {}
                Attempted::Poison => self.answers[call].outcomes[item] = ItemOutcome::Poison,
                Attempted::TooLate => ended = Some(call),
                // A later item must not overtake one whose outcome is unknown (A7).
                Attempted::Locked | Attempted::Failed => return false,
            }
        }
        true
    }

    /// Somebody holds a room of the group locked: the others go on without it, once. The gateways try again with the rest.
    async fn beside_locked(&mut self, slots: &[ItemPlace]) {
        let rooms: BTreeSet<&RoomId> =
            slots.iter().map(|&(call, item)| &self.calls[call].items[item].room).collect();
        let rooms: Vec<RoomId> = rooms.into_iter().cloned().collect();
        if rooms.len() < 2 {
            return self.fill(slots, ItemOutcome::Locked);
        }
        let locked = self.store.locked(self.lane, &rooms).await.unwrap_or_default();
        // Nobody holds one any more, or it is another lock than that of a room.
        if locked.is_empty() {
            return;
        }
        tracing::debug!(lane = self.lane, ?locked, "A group goes on without rooms that are locked.");
        let mut waiting = HashSet::new();
        let free = slots.iter().copied().filter(|&(call, item)| {
            let NewMessage { room, sender, .. } = &self.calls[call].items[item];
            // Whoever waits for a locked room must not overtake itself in another (A7).
            !waiting.contains(&(call, sender))
                && (!locked.contains(room) || {
                    waiting.insert((call, sender));
                    false
                })
        });
        let free: Vec<ItemPlace> = free.collect();
        let of_locked = |&&(call, item): &&ItemPlace| locked.contains(&self.calls[call].items[item].room);
        let held: Vec<ItemPlace> = slots.iter().filter(of_locked).copied().collect();
        self.fill(&held, ItemOutcome::Locked);
        self.attempt(&free).await;
    }

    /// One round trip: all of `slots` or nothing. Fills in their outcomes where they are known.
    async fn attempt(&mut self, slots: &[ItemPlace]) -> Attempted {
        let Some(not_after_ms) = slots.iter().map(|(call, _)| self.calls[*call].not_after_ms).min() else {
            return Attempted::Committed;
        };
        let items: Vec<&NewMessage> =
            slots.iter().map(|(call, item)| &self.calls[*call].items[*item]).collect();
        let group = items.iter().map(|&item| item.clone()).collect();
        let spans = self.spans(slots);
        let committed = {
            let commits = spans.children("store commit", Kind::Client);
            let committed = self.store.publish(self.lane, not_after_ms, group).await;
            if committed.is_err() {
                commits.fail("not committed");
            }
            committed
        };
        match committed {
            // Rows are matched by order: with another number every match would be a guess.
            Ok(committed) if committed.rows.len() == slots.len() => {
                self.observer.committed(&items, &committed, &spans);
                self.take(slots, &committed)
            }
            Ok(committed) => {
                let (items, rows) = (slots.len(), committed.rows.len());
                tracing::error!(
                    items,
                    rows,
                    "The store answered with another number of rows: outcomes unknown."
                );
                self.fill(slots, ItemOutcome::Unknown);
                Attempted::Failed
            }
            Err(error) => {
                self.observer.failed(&error, slots.len());
                match error.class() {
                    Class::Retry if error.trouble() == Trouble::Locked => Attempted::Locked,
                    Class::Reject => Attempted::Poison,
                    Class::TooLate => Attempted::TooLate,
                    // Certainly not stored, which is what the answers say from the start.
                    Class::Retry => Attempted::Failed,
                    Class::Unknown => {
                        self.fill(slots, ItemOutcome::Unknown);
                        Attempted::Failed
                    }
                }
            }
        }
    }

    /// Of the traced ones, by their place among `slots`.
    fn spans(&self, slots: &[ItemPlace]) -> Spans {
        let mut spans = Spans::default();
        if self.calls.iter().all(|call| call.spans.is_empty()) {
            return spans;
        }
        for (place, &(call, item)) in slots.iter().enumerate() {
            if let Some(span) = self.calls[call].spans.get(item as u64) {
                spans.push(place as u64, span.clone());
            }
        }
        spans
    }

    fn fill(&mut self, slots: &[ItemPlace], outcome: ItemOutcome) {
        for &(call, item) in slots {
            self.answers[call].outcomes[item] = outcome;
        }
    }

    /// Takes the rows over. A call whose earlier items belong to another epoch cannot say both: what came
    /// now is unknown to its caller, who will ask again, and nothing later of the group may follow.
    fn take(&mut self, slots: &[ItemPlace], committed: &Committed) -> Attempted {
        let mut mixed = false;
        for (&(call, item), row) in slots.iter().zip(&committed.rows) {
            let answer = &mut self.answers[call];
            if *answer.epoch.get_or_insert(committed.epoch) == committed.epoch {
                answer.outcomes[item] = row.outcome.into();
            } else {
                answer.outcomes[item] = ItemOutcome::Unknown;
                mixed = true;
            }
        }
        if mixed { Attempted::Failed } else { Attempted::Committed }
    }
}
