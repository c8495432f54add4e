//! What a room does of itself after every event: send runs and hand-overs, start the calls that are due,
//! close when nobody is left. Conditions only, no history: calling it twice does nothing more.

use std::sync::Arc;

use sluice_proto::ids::Epoch;
use sluice_trace::Spans;

use super::limits::Backoff;
use super::link::{HandOver, Ms, Run};
use super::{Action, CallId, Room, RoomOutput, RoomPhase};
use crate::rules::{Rule, Rules};

/// A call that waits to be sent, or was sent and not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    pub(super) call: CallId,
    /// Without an answer by then it has failed; `None` = not sent. Counted from the sending: counted from
    /// the asking, a queue longer than the deadline would be given up, and asked again, for ever.
    pub(super) deadline: Option<Ms>,
}

/// The room's interest in Redis, as far as calls about it are concerned.
#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) add: Option<Waited>,
    pub(super) remove: Option<Waited>,
    /// After calls that failed.
    pub(super) call_backoff: Backoff,
    /// After calls that could not store: the next `sub` need not wait for that.
    pub(super) store_backoff: Backoff,
    /// Interest is to be stored although no `sub` waits for it.
    pub(super) owed: bool,
    /// It may be stored: it is to be removed when the room closes.
    pub(super) present: bool,
}

impl Waited {
    /// It waits to be sent.
    pub(super) const fn queued(call: CallId) -> Self {
        Self { call, deadline: None }
    }
}

impl Interest {
    pub(super) fn added(&mut self, now: Ms, usable: bool, stored: bool, bounds: (Ms, Ms)) {
        self.owed |= !usable || !stored;
        if usable {
            self.call_backoff.succeeded();
        } else {
            self.call_backoff.failed(now, bounds);
        }
        if stored {
            self.store_backoff.succeeded();
        } else {
            self.store_backoff.failed(now, bounds);
        }
    }

    pub(super) fn removed(&mut self, now: Ms, stored: bool, bounds: (Ms, Ms)) {
        if stored {
            // An add that waits beside it will store it again.
            self.present = self.add.is_some();
            self.store_backoff.succeeded();
        } else {
            self.store_backoff.failed(now, bounds);
        }
    }
}

impl<R: Rules> Room<R> {
    /// When [`Room::on_tick`] is to be called next, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ms> {
        let calls = [self.interest.add, self.interest.remove, self.reading, self.asking];
        let waited = calls.into_iter().flatten().filter_map(|waited| waited.deadline).min();
        let close =
            self.unattached_since.filter(|_| self.phase != RoomPhase::Closed && self.interest.add.is_none());
        let close = close.map(|since| since + self.limits.linger_ms);
        [waited, self.add_due(), self.remove_due(), self.read_due(), close].into_iter().flatten().min()
    }

    /// Sends what was passed on since the last call to every attached shard that is up to date.
    pub(super) fn send_run(&mut self, epoch: Epoch, out: &mut impl RoomOutput) {
        if self.passed.is_empty() {
            return;
        }
        let run = Run { epoch, frames: Arc::from(self.passed.as_slice()), spans: Spans::default() };
        self.passed.clear();
        for (id, shard) in self.shards.iter_mut().enumerate() {
            // A run before the owed hand-over would not follow what that shard has.
            if !shard.attached || (shard.owed && R::keeps(Rule::HandOverBeforeRuns)) {
                continue;
            }
            // No space: one hand-over later makes good for all runs missed, and the queue stays bounded.
            if !out.run(id, &run) && R::keeps(Rule::OverflowHandedOver) {
                shard.owed = true;
            }
        }
    }

    /// Every attached shard is to learn where the room stands.
    pub(super) fn owe_all(&mut self) {
        for shard in &mut self.shards {
            shard.owed = shard.attached;
        }
    }

    /// Sends the hand-overs that are owed, where there is space.
    pub(super) fn hand_over(&mut self, out: &mut impl RoomOutput) {
        let (RoomPhase::Open, Some(epoch)) = (self.phase, self.epoch) else { return };
        let (opened, head, known) = (self.epoch_after, self.head, self.known);
        for (id, shard) in self.shards.iter_mut().enumerate() {
            if shard.owed {
                let answered = shard.answered;
                shard.owed = !out.hand_over(id, HandOver { epoch, opened, head, known, answered });
            }
        }
    }

    /// Whether a shard has subscribers.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.shards.iter().any(|shard| shard.attached)
    }

    /// Whether its interest may be stored, and is not being removed.
    pub fn is_announced(&self) -> bool {
        self.interest.present && self.interest.remove.is_none()
    }

    /// Does all that is due at `now`.
    pub(super) fn settle(&mut self, now: Ms, out: &mut impl RoomOutput) {
        self.cancel();
        // In this order: a hand-over must be in the queue before anything that a later call brings.
        self.hand_over(out);
        self.hold.observe(now, self.phase == RoomPhase::Open && self.known > self.head);
        if self.read_due().is_some_and(|due| due <= now) {
            let call = out.number();
            self.reading = Some(Waited::queued(call));
            self.read_at_once = false;
            self.hold.read(now, self.head + 1);
            out.act(Action::Read { call, after: self.head });
        }
        // A room that never opened has nothing to keep for who comes back.
        let never_opened = self.phase == RoomPhase::Opening && self.epoch.is_none() && !self.is_attached();
        let lingered =
            never_opened || self.unattached_since.is_some_and(|since| since + self.limits.linger_ms <= now);
        if lingered && self.phase != RoomPhase::Closed && self.alone(self.interest.add) {
            self.forget();
            self.interest.owed = false;
        }
        // One or the other: an add beside a remove may be applied in either order, and interest is lost (C1).
        if self.add_due().is_some_and(|due| due <= now) {
            self.subscribe(out);
        } else if self.remove_due().is_some_and(|due| due <= now) {
            let call = out.number();
            self.interest.remove = Some(Waited::queued(call));
            out.act(Action::Unsubscribe(call));
        } else if self.is_over() {
            out.act(Action::Forget);
        }
    }

    /// Gives up on the calls for which `which` holds.
    pub(super) fn fail_where(&mut self, now: Ms, which: impl Fn(&Waited) -> bool) {
        if self.reading.take_if(|waited| which(waited)).is_some() {
            self.read_backoff.failed(now, self.backoff());
        }
        self.asking.take_if(|waited| which(waited));
        if self.interest.add.take_if(|waited| which(waited)).is_some() {
            // Without an answer it is unknown whether it was stored; to store it twice does no harm.
            self.interest.owed = true;
            self.interest.call_backoff.failed(now, self.backoff());
        }
        if self.interest.remove.take_if(|waited| which(waited)).is_some() {
            self.interest.store_backoff.failed(now, self.backoff());
        }
    }

    pub(super) fn backoff(&self) -> (Ms, Ms) {
        (self.limits.backoff_min_ms, self.limits.backoff_max_ms)
    }

    fn subscribe(&mut self, out: &mut impl RoomOutput) {
        let call = out.number();
        self.interest.add = Some(Waited::queued(call));
        out.act(Action::Subscribe(call));
    }

    /// The call of an action is about to be sent: its deadline begins. `false` = nobody wants it any more.
    pub fn sent(&mut self, now: Ms, call: CallId) -> bool {
        let deadline = now + self.limits.call_ms;
        let waits = |waited: &&mut Waited| waited.call == call && waited.deadline.is_none();
        if let Some(add) = self.interest.add.as_mut().filter(waits) {
            add.deadline = Some(deadline);
            // From here on it may be stored, answered or not, and will have to be removed.
            self.interest.owed = false;
            self.interest.present = true;
            // Those that came while it waited are answered by it too.
            for shard in &mut self.shards {
                shard.asked = shard.wanted;
            }
            return true;
        }
        let others = [&mut self.interest.remove, &mut self.reading, &mut self.asking];
        let other = others.into_iter().flatten().find(|waited| waits(waited));
        other.map(|waited| waited.deadline = Some(deadline)).is_some()
    }

    /// What was asked for, not sent, and is not wanted any more costs no call.
    fn cancel(&mut self) {
        let unsent = |waited: &mut Waited| waited.deadline.is_none();
        if self.is_attached() {
            self.interest.remove.take_if(unsent);
        } else {
            self.interest.add.take_if(unsent);
        }
    }

    /// When the store is to be read for a missing message.
    fn read_due(&self) -> Option<Ms> {
        if self.reading.is_some() || self.known <= self.head || !R::keeps(Rule::TailRepair) {
            return None;
        }
        let due = self.hold.due()?;
        Some(if self.read_at_once { 0 } else { due.max(self.read_backoff.until()) })
    }

    /// When Subscribe is to be sent.
    fn add_due(&self) -> Option<Ms> {
        let interest = &self.interest;
        if interest.add.is_some() || !self.alone(interest.remove) || !self.is_attached() {
            return None;
        }
        let unanswered = self.shards.iter().any(|shard| shard.attached && shard.wanted > shard.answered);
        // A client waits for the answer: a store that keeps no interest at the moment must not delay it.
        if unanswered || self.phase == RoomPhase::Opening {
            return Some(interest.call_backoff.until());
        }
        interest.owed.then(|| interest.call_backoff.until().max(interest.store_backoff.until()))
    }

    /// When interest is to be removed.
    fn remove_due(&self) -> Option<Ms> {
        let interest = &self.interest;
        let unwanted = self.phase == RoomPhase::Closed && interest.present && !self.is_attached();
        let free = interest.remove.is_none() && self.alone(interest.add);
        (unwanted && free).then(|| interest.store_backoff.until())
    }

    /// Whether the call that must not be accompanied is not in flight.
    fn alone(&self, other: Option<Waited>) -> bool {
        other.is_none() || !R::keeps(Rule::AddNeverBesideRemove)
    }

    fn is_over(&self) -> bool {
        self.phase == RoomPhase::Closed
            && !self.is_attached()
            && !self.interest.present
            && self.interest.add.is_none()
            && self.interest.remove.is_none()
    }

    /// Checks R1, R3 and R4; `Err` names the one that is broken.
    ///
    /// # Errors
    /// The name of the broken invariant.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.head > self.known {
            return Err("R1: head beyond known");
        }
        if self.ring.ends().is_some_and(|(_, last)| last != self.head) {
            return Err("R3: the ring does not end at the head");
        }
        let first_ok = self.ahead.first().is_none_or(|first| first > self.head + 1);
        if self.phase == RoomPhase::Open && !first_ok {
            return Err("R4: a stashed message is due");
        }
        if self.ahead.len() > self.limits.ahead_items {
            return Err("R4: the stash is too large");
        }
        Ok(())
    }
}
