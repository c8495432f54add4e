//! What waits for one gateway, and its circuit breaker. Pure: time is an argument, nothing waits.
//!
//! | State | a push is | leaves it by |
//! |---|---|---|
//! | connecting | queued: the first attempt is under way | its outcome |
//! | open | queued, sent, kept until acknowledged | queue full or a push older than 1 s → lagging; end → away |
//! | lagging | dropped | all that was sent acknowledged → open, `resync` first; end → away |
//! | away | dropped | a stream → open, `resync` first if anything was dropped |
//!
//! Tickets of dropped pushes are dropped with them, so nobody waits for a gateway that is not open.

use std::collections::VecDeque;

use bytes::Bytes;
use sluice_service::batcher::{BatchQueue, Bounds, Full};
use tokio::time::Instant;

use crate::defaults::{
    LAGS_AFTER, OUTLET_BYTES_MAX, OUTLET_ITEMS_MAX, PUSH_BYTES_MAX, PUSH_ITEMS_MAX, PUSHES_IN_FLIGHT_MAX,
};

/// Bytes of a run besides its own: tag and length.
const FRAMING: usize = 6;

/// The part of a notice for one gateway.
#[derive(Debug)]
pub struct NoticePart<T> {
    /// Epoch of its store.
    pub epoch: u64,
    /// The runs, encoded.
    pub runs: Vec<Bytes>,
    /// Dropped when nobody has to wait any longer.
    pub ticket: T,
}

/// How it stands with a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutletState {
    /// The first stream is being opened.
    Connecting,
    /// The stream works.
    Open,
    /// Its stream is open, but nobody waits for it.
    Lagging,
    /// It has no stream.
    Away,
}

impl OutletState {
    /// The name that `/status` shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Lagging => "lagging",
            Self::Away => "away",
        }
    }
}

/// What to send now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Pushes were dropped: ask for heads.
    Resync,
    /// Send what had gathered.
    Batch {
        /// Counts from 1 on each stream.
        id: u64,
        /// Of all its runs.
        epoch: u64,
        /// The runs, encoded.
        runs: Vec<Bytes>,
    },
}

#[derive(Debug)]
struct WaitingPart<T> {
    push: NoticePart<T>,
    since: Instant,
}

#[derive(Debug)]
struct SentBatch<T> {
    id: u64,
    since: Instant,
    tickets: Vec<T>,
}

/// What waits for one gateway and what is on the way to it, with the breaker.
#[derive(Debug)]
pub struct OutletQueue<T> {
    state: OutletState,
    queue: BatchQueue<WaitingPart<T>>,
    /// Cut from the queue at once, but of another epoch than what went before.
    cut: VecDeque<WaitingPart<T>>,
    sent: VecDeque<SentBatch<T>>,
    last_id: u64,
    missed: bool,
}

impl<T> OutletQueue<T> {
    pub fn new() -> Self {
        let bounds = Bounds {
            items_max: PUSH_ITEMS_MAX,
            bytes_max: PUSH_BYTES_MAX,
            queue_items_max: OUTLET_ITEMS_MAX,
            queue_bytes_max: OUTLET_BYTES_MAX,
        };
        Self {
            state: OutletState::Connecting,
            queue: BatchQueue::new(bounds),
            cut: VecDeque::new(),
            sent: VecDeque::new(),
            last_id: 0,
            missed: false,
        }
    }

    pub fn state(&self) -> OutletState {
        self.state
    }

    /// Takes a push; false when it was dropped.
    pub fn offer(&mut self, push: NoticePart<T>, now: Instant) -> bool {
        if matches!(self.state, OutletState::Lagging | OutletState::Away) {
            // The gateway is told when it is back, once, however much was dropped.
            self.missed = true;
            return false;
        }
        let bytes = push.runs.iter().map(|run| run.len() + FRAMING).sum();
        match self.queue.push(WaitingPart { push, since: now }, bytes) {
            Ok(()) => true,
            // A queue this full means that it has not acknowledged for long: nobody waits for it
            // any more.
            Err(Full(_)) => {
                self.lag();
                false
            }
        }
    }

    /// A stream has been opened: its numbers begin again.
    pub fn opened(&mut self) {
        self.state = OutletState::Open;
        // Acknowledgements of the old stream mean nothing here, and its tickets go with it.
        self.sent.clear();
        self.last_id = 0;
    }

    /// The stream ended, or could not be opened.
    pub fn ended(&mut self) {
        // What was sent but not acknowledged may be lost too.
        self.missed |= !self.is_empty();
        self.drop_waiting();
        self.sent.clear();
        self.state = OutletState::Away;
    }

    /// What to send now: to be asked again until there is nothing.
    pub fn next(&mut self) -> Option<Next> {
        if self.state != OutletState::Open {
            return None;
        }
        // Before any batch: the gateway asks heads once, then what is pushed joins on.
        if std::mem::take(&mut self.missed) {
            return Some(Next::Resync);
        }
        // Meanwhile the next batch gathers.
        if self.sent.len() >= PUSHES_IN_FLIGHT_MAX {
            return None;
        }
        if self.cut.is_empty() {
            self.cut.extend(self.queue.take()?);
            // Its bound of one in flight is not ours.
            self.queue.done();
        }
        let first = self.cut.front()?;
        let (epoch, since) = (first.push.epoch, first.since);
        // A push has one epoch; the rest of the cut follows in the next.
        let same = self.cut.iter().take_while(|waiting| waiting.push.epoch == epoch).count();
        let (mut runs, mut tickets) = (Vec::new(), Vec::with_capacity(same));
        for WaitingPart { push, .. } in self.cut.drain(..same) {
            runs.extend(push.runs);
            tickets.push(push.ticket);
        }
        self.last_id += 1;
        self.sent.push_back(SentBatch { id: self.last_id, since, tickets });
        Some(Next::Batch { id: self.last_id, epoch, runs })
    }

    /// The gateway has everything up to this number: since when the oldest notice of it had waited.
    pub fn acked(&mut self, id: u64) -> Option<Instant> {
        let mut since = None;
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.id <= id) {
            since.get_or_insert(sent.since);
        }
        // All that was on the way has arrived: it reads again.
        if self.state == OutletState::Lagging && self.sent.is_empty() {
            self.state = OutletState::Open;
        }
        since
    }

    /// When [`OutletQueue::tick`] would find it lagging.
    pub fn deadline(&self) -> Option<Instant> {
        if matches!(self.state, OutletState::Lagging | OutletState::Away) {
            return None;
        }
        let sent = self.sent.front().map(|sent| sent.since);
        let cut = || self.cut.front().map(|waiting| waiting.since);
        let queued = || self.queue.iter().next().map(|waiting| waiting.since);
        // The oldest of all; each of the three is in order.
        sent.or_else(cut).or_else(queued).map(|since| since + LAGS_AFTER)
    }

    /// Looks at its deadlines.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.lag();
        }
    }

    /// Nobody waits any longer. When nothing is on the way, nothing will come back to say that it goes on.
    fn lag(&mut self) {
        self.drop_waiting();
        self.missed = true;
        for sent in &mut self.sent {
            sent.tickets.clear();
        }
        self.state = match self.state {
            OutletState::Connecting | OutletState::Away => OutletState::Away,
            // Nothing is on the way that could be acknowledged, so lagging would never end.
            OutletState::Open | OutletState::Lagging if self.sent.is_empty() => OutletState::Open,
            OutletState::Open | OutletState::Lagging => OutletState::Lagging,
        };
    }

    fn drop_waiting(&mut self) {
        self.queue.clear();
        self.cut.clear();
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.cut.is_empty() && self.sent.is_empty()
    }

    /// Whether nobody waits for anything here.
    pub fn is_settled(&self) -> bool {
        self.state == OutletState::Lagging || self.is_empty()
    }

    /// How many pushes wait.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.cut.len()
    }

    /// Batches sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Whether something was dropped that the gateway was not told about.
    pub fn missed(&self) -> bool {
        self.missed
    }
}

#[cfg(test)]
mod tests;
