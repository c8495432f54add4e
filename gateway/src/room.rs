//! A room in its home shard: decides the order of its messages once for the whole gateway, notices what
//! is missing and asks for it. Pure: events in, actions out through an [`RoomOutput`]; time is an argument.
//! Never does I/O, never reads a clock, never encodes a message it will not keep.
//!
//! Two numbers carry it: `head` (last position passed on; only passing on raises it) and `known` (last
//! position that exists).
//!
//! | Event | Method | When |
//! |---|---|---|
//! | Need | [`Room::need`] | a shard's level changed |
//! | Push | [`Room::push`] | a task's push; this gateway's own publish answered `ok` with seq and time |
//! | Hint | [`Room::hint`] | a duplicate's `ok`, a page read for a subscriber |
//! | Subscribed | [`Room::subscribed`] | reply to [`Action::Subscribe`] |
//! | Removed | [`Room::removed`] | reply to [`Action::Unsubscribe`] |
//! | Page | [`Room::page`] | reply to [`Action::Read`] |
//! | Head | [`Room::head_is`] | reply to [`Action::AskHead`], or to a Heads slice that took its number from the same counter before it was sent |
//! | Sent | [`Room::sent`] | the call of an action is about to be sent, unless it is not wanted any more |
//! | Failed | [`Room::failed`] | any of these calls failed |
//! | Space | [`Room::space`] | the queue to a shard that refused has space again |
//! | Announce | [`Room::announce`] | the full interest is to be told again |
//! | Tick | [`Room::on_tick`] | [`Room::next_deadline`] has come |
//!
//! A room is created at the first [`Need`] and dropped at [`Action::Forget`].

pub mod limits;
pub mod link;
pub mod ring;

mod ahead;
mod conflict;
mod hold;
mod pages;
mod settle;

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Seq};

use crate::rules::{Faithful, Rule, Rules};
use ahead::Ahead;
use conflict::Differs;
use hold::Hold;
use limits::{Backoff, RoomLimits};
use link::{Frame, HandOver, Ms, Need, Page, Run, ShardId};
use ring::Ring;
use settle::{Interest, Waited};

/// Number of a call, from [`RoomOutput::number`]. It goes with the reply.
pub type CallId = u64;

/// What the driver is to do for the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Store interest, then read the head: [`Room::subscribed`] or [`Room::failed`].
    Subscribe(CallId),
    /// Remove interest: [`Room::removed`] or [`Room::failed`].
    Unsubscribe(CallId),
    /// Read one page: [`Room::page`] or [`Room::failed`].
    Read {
        /// Goes with the reply.
        call: CallId,
        /// Messages after this position.
        after: Seq,
    },
    /// Ask the head of this room now: [`Room::head_is`] or [`Room::failed`].
    AskHead(CallId),
    /// A repair found what a push should have brought. The room announces its interest again by itself;
    /// the driver counts, and after many announces all.
    Reannounced,
    /// Two versions of this position met, so one of them was never committed. The room opens itself anew from the
    /// store; the driver says whom it had them from.
    Conflict(Seq),
    /// Nobody wants the room and its interest is removed: drop it.
    Forget,
}

/// Where a room's actions go. Called during an event, in order.
pub trait RoomOutput {
    /// 1, 2, …: a number never given before in this home shard, whatever the room, so that a late reply
    /// never meets a room it was not meant for.
    fn number(&mut self) -> CallId;
    /// Does what the room asks for.
    fn act(&mut self, action: Action);
    /// Appends a run to the queue to `shard`; the home's own shard takes it at once. `false` = no space:
    /// the room owes a hand-over instead.
    fn run(&mut self, shard: ShardId, run: &Run) -> bool;
    /// Appends a hand-over to the queue to `shard`. `false` = no space: the driver remembers to call
    /// [`Room::space`].
    fn hand_over(&mut self, shard: ShardId, hand_over: HandOver) -> bool;
}

/// A reply of `Subscribe`.
#[derive(Debug, Clone, Copy)]
pub struct SubscribedRoom {
    /// Epoch of the store.
    pub epoch: Epoch,
    /// Head, read after interest was stored.
    pub head: Seq,
    /// Whether interest was stored.
    pub stored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomPhase {
    /// Nothing is known and nothing wanted; perhaps interest is still to be removed.
    Closed,
    /// The first reply of Subscribe is awaited.
    Opening,
    /// In order from `head` on.
    Open,
}

/// What home knows of one shard.
#[derive(Debug, Default, Clone, Copy)]
struct ShardState {
    attached: bool,
    /// A hand-over is due; while it is, no run goes there.
    owed: bool,
    /// Number of the last `sub` there.
    wanted: u64,
    /// `wanted` when the Subscribe in flight was sent.
    asked: u64,
    /// Number of the last answered `sub`.
    answered: u64,
}

/// The state machine of a room. `R` is [`Faithful`] but in tests.
#[derive(Debug)]
pub struct Room<R = Faithful> {
    limits: Arc<RoomLimits>,
    phase: RoomPhase,
    epoch: Option<Epoch>,
    head: Seq,
    known: Seq,
    ahead: Ahead,
    ring: Ring,
    hold: Hold,
    reading: Option<Waited>,
    read_at_once: bool,
    read_backoff: Backoff,
    asking: Option<Waited>,
    interest: Interest,
    shards: Box<[ShardState]>,
    /// Calls up to this one were begun before the room took its epoch. Replies to the others are believed.
    epoch_after: CallId,
    unattached_since: Option<Ms>,
    reannounced_at: Option<Ms>,
    passed: Vec<Frame>,
    rules: PhantomData<R>,
}

impl Room<Faithful> {
    /// A closed room of a gateway with `shards` shards.
    #[must_use]
    pub fn new(limits: Arc<RoomLimits>, shards: usize) -> Self {
        Self::with_rules(limits, shards)
    }
}

impl<R: Rules> Room<R> {
    /// As [`Room::new`], for tests that leave out a rule.
    #[must_use]
    pub fn with_rules(limits: Arc<RoomLimits>, shards: usize) -> Self {
        Self {
            hold: Hold::new(&limits),
            limits,
            phase: RoomPhase::Closed,
            epoch: None,
            head: 0,
            known: 0,
            ahead: Ahead::default(),
            ring: Ring::default(),
            reading: None,
            read_at_once: false,
            read_backoff: Backoff::default(),
            asking: None,
            interest: Interest::default(),
            shards: vec![ShardState::default(); shards].into(),
            epoch_after: 0,
            unattached_since: None,
            reannounced_at: None,
            passed: Vec::new(),
            rules: PhantomData,
        }
    }

    /// A shard says what it wants.
    pub fn need(&mut self, now: Ms, shard: ShardId, need: Need, out: &mut impl RoomOutput) {
        let state = &mut self.shards[shard];
        // Newly attached: until its hand-over it has no head that a run could follow.
        state.owed = need.attached && (state.owed || !state.attached);
        state.attached = need.attached;
        state.wanted = state.wanted.max(need.number);
        if self.is_attached() {
            self.unattached_since = None;
            if self.phase == RoomPhase::Closed {
                self.phase = RoomPhase::Opening;
            }
        } else if self.unattached_since.is_none() {
            // Since the last one left: what comes later must not make the room linger longer.
            self.unattached_since = Some(now);
        }
        self.settle(now, out);
    }

    /// A push brought messages. `encode` is called only for those that are kept, or came before.
    pub fn push<E: FnOnce() -> Bytes>(
        &mut self,
        now: Ms,
        epoch: Epoch,
        messages: impl IntoIterator<Item = (Seq, E)>,
        out: &mut impl RoomOutput,
    ) {
        match self.phase {
            RoomPhase::Closed => return,
            RoomPhase::Opening => {
                // It overtook the reply that says where the room begins.
                for (seq, encode) in messages {
                    if let Err(conflict) = self.ahead.stash(self.ahead_max(), epoch, seq, encode) {
                        return self.conflict(&conflict, out);
                    }
                }
                return;
            }
            RoomPhase::Open if self.epoch == Some(epoch) => {
                let mut messages = messages.into_iter();
                match messages.try_for_each(|(seq, encode)| self.pushed(now, epoch, seq, encode)) {
                    Ok(()) => self.send_run(epoch, out),
                    Err(conflict) => self.conflict(&conflict, out),
                }
            }
            RoomPhase::Open => self.foreign(epoch, out),
        }
        self.settle(now, out);
    }

    /// Something says that `seq` exists.
    pub fn hint(&mut self, now: Ms, epoch: Epoch, seq: Seq, out: &mut impl RoomOutput) {
        match (self.phase, self.epoch) {
            // Without an epoch of its own a room cannot tell which history the position is of (B1).
            (RoomPhase::Closed | RoomPhase::Opening, None) | (RoomPhase::Closed, Some(_)) => return,
            (RoomPhase::Opening | RoomPhase::Open, Some(own)) if own != epoch => self.foreign(epoch, out),
            (RoomPhase::Opening | RoomPhase::Open, _) => self.raise_known(seq),
        }
        self.settle(now, out);
    }

    /// The head was asked, and this is the answer. `call` is that of [`Action::AskHead`] or of a slice.
    pub fn head_is(&mut self, now: Ms, call: CallId, epoch: Epoch, head: Seq, out: &mut impl RoomOutput) {
        self.asking.take_if(|waited| waited.call == call);
        match self.epoch {
            // The first epoch comes with Subscribe: only there is the head read after interest was stored.
            None => {}
            Some(own) if own == epoch => self.raise_known(head),
            // Asked after we took our epoch, so it is news; asked before, it may be an answer of the former store.
            Some(_) if call > self.epoch_after => self.reopen(epoch, out),
            Some(_) => self.foreign(epoch, out),
        }
        self.settle(now, out);
    }

    /// A Subscribe was answered.
    pub fn subscribed(&mut self, now: Ms, call: CallId, reply: SubscribedRoom, out: &mut impl RoomOutput) {
        // Given up before: its room may have been closed and opened again since.
        if self.interest.add.take_if(|waited| waited.call == call).is_none() {
            return;
        }
        let believed = call > self.epoch_after || self.epoch.is_none_or(|own| own == reply.epoch);
        self.interest.added(now, believed, reply.stored || !R::keeps(Rule::InterestRepeated), self.backoff());
        if believed && self.phase != RoomPhase::Closed {
            for shard in &mut self.shards {
                let answered =
                    if R::keeps(Rule::AnswersOnlyEarlierSubs) { shard.asked } else { shard.wanted };
                // Their `ok` travels with a hand-over: only that says where they begin.
                shard.owed |= shard.attached && answered > shard.answered;
                shard.answered = shard.answered.max(answered);
            }
            if self.epoch.is_some_and(|own| own != reply.epoch) {
                self.reopen(reply.epoch, out);
            }
            match self.phase {
                RoomPhase::Opening => self.opened(now, reply.epoch, reply.head, out),
                RoomPhase::Open | RoomPhase::Closed if !R::keeps(Rule::HeadsAsked) => {}
                RoomPhase::Open | RoomPhase::Closed => self.raise_known(reply.head),
            }
        }
        self.settle(now, out);
    }

    /// The removal of interest was answered; `stored` = it is removed.
    pub fn removed(&mut self, now: Ms, call: CallId, stored: bool, out: &mut impl RoomOutput) {
        // Given up before: another removal may be in flight, and this answer is not about it.
        if self.interest.remove.take_if(|waited| waited.call == call).is_none() {
            return;
        }
        self.interest.removed(now, stored, self.backoff());
        self.settle(now, out);
    }

    /// A Read was answered.
    pub fn page(&mut self, now: Ms, call: CallId, page: &Page, out: &mut impl RoomOutput) {
        // Given up before, or read for a history that was forgotten since.
        if self.reading.take_if(|waited| waited.call == call).is_none() {
            return;
        }
        self.read_backoff.succeeded();
        let Some(own) = self.epoch else { return };
        if own != page.epoch && R::keeps(Rule::RoomPageEpoch) {
            // Reads are begun in an open room only, so this one is later than the room's epoch.
            self.reopen(page.epoch, out);
        } else {
            self.take_page(now, own, page, out);
        }
        self.settle(now, out);
    }

    /// A call failed, or its answer is known never to come.
    pub fn failed(&mut self, now: Ms, call: CallId, out: &mut impl RoomOutput) {
        self.fail_where(now, |waited| waited.call == call);
        self.settle(now, out);
    }

    /// The queue to `shard` has space again.
    pub fn space(&mut self, now: Ms, out: &mut impl RoomOutput) {
        self.settle(now, out);
    }

    /// Interest is to be stored once more, whatever was answered before.
    pub fn announce(&mut self, now: Ms, out: &mut impl RoomOutput) {
        // A closed room is to have its interest removed, not stored again.
        self.interest.owed |= self.phase != RoomPhase::Closed;
        self.settle(now, out);
    }

    /// Time has passed: gives up on calls without an answer and does what is due.
    pub fn on_tick(&mut self, now: Ms, out: &mut impl RoomOutput) {
        self.fail_where(now, |waited| waited.deadline.is_some_and(|deadline| deadline <= now));
        self.settle(now, out);
    }

    /// Up to `limit` recent messages after `after`, if the first of them is still here: a page without
    /// the store. With it goes the epoch.
    pub fn recent(&self, after: Seq, limit: usize) -> Option<(Epoch, impl Iterator<Item = &Frame>)> {
        Some((self.epoch?, self.ring.from(after + 1)?.take(limit)))
    }

    /// Last position passed on.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Last position known to exist, at least `head`.
    #[must_use]
    pub fn known(&self) -> Seq {
        self.known
    }

    /// Epoch, once an answer told it.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Whether messages are passed on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == RoomPhase::Open
    }

    fn pushed(
        &mut self,
        now: Ms,
        epoch: Epoch,
        seq: Seq,
        encode: impl FnOnce() -> Bytes,
    ) -> Result<(), Differs> {
        if seq <= self.head {
            self.hold.duplicate(now, seq);
        }
        if self.feed(epoch, seq, encode)? {
            self.hold.filled(now);
        }
        Ok(())
    }

    /// Places one message: passed on, kept for later, or dropped. Whether the head moved.
    fn feed(&mut self, epoch: Epoch, seq: Seq, encode: impl FnOnce() -> Bytes) -> Result<bool, Differs> {
        self.known = self.known.max(seq);
        if seq <= self.head {
            return self.compare(seq, encode).map(|()| false);
        }
        // Two tasks push beside each other: this one overtook, the missing is usually milliseconds away (C8).
        if seq > self.head + 1 && R::keeps(Rule::NoGapPassed) {
            return self.ahead.stash(self.ahead_max(), epoch, seq, encode).map(|()| false);
        }
        self.pass(Frame::new(seq, encode()));
        self.pass_stashed();
        Ok(true)
    }

    fn pass_stashed(&mut self) {
        while let Some(frame) = self.ahead.take(self.head + 1) {
            self.pass(frame);
        }
    }

    fn pass(&mut self, frame: Frame) {
        self.head = frame.seq;
        self.known = self.known.max(frame.seq);
        self.passed.push(frame.clone());
        self.ring.push(frame, (self.limits.ring_items, self.limits.ring_bytes));
    }

    /// The first reply of Subscribe: hands over, then passes on what arrived meanwhile.
    fn opened(&mut self, now: Ms, epoch: Epoch, head: Seq, out: &mut impl RoomOutput) {
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.epoch_after = out.number();
        }
        self.phase = RoomPhase::Open;
        self.head = head;
        // Head before the hand-over and the stash after it: subscribers begin at `head`, then get what is above.
        self.known = head;
        self.owe_all();
        self.hand_over(out);
        let mut stashed = self.ahead.drain_epoch(epoch);
        match stashed.try_for_each(|frame| self.pushed(now, epoch, frame.seq, || frame.bytes)) {
            Ok(()) => self.send_run(epoch, out),
            Err(conflict) => self.conflict(&conflict, out),
        }
    }

    fn raise_known(&mut self, seq: Seq) {
        self.known = self.known.max(seq);
        if !R::keeps(Rule::HintRaisesOnlyKnown) && seq > self.head {
            self.head = seq;
            self.ring.clear();
        }
    }

    /// An event of another epoch that need not be news: dropped, and the truth is asked for.
    fn foreign(&mut self, epoch: Epoch, out: &mut impl RoomOutput) {
        if !R::keeps(Rule::EpochFromOwnCallsOnly) {
            self.reopen(epoch, out);
            self.phase = RoomPhase::Open;
            self.owe_all();
        } else if self.asking.is_none() {
            let call = out.number();
            self.asking = Some(Waited::queued(call));
            out.act(Action::AskHead(call));
        }
    }

    /// The store has another history, or not the one that was passed on: forgets everything but who is attached.
    fn reopen(&mut self, epoch: Epoch, out: &mut impl RoomOutput) {
        self.forget();
        self.phase = RoomPhase::Opening;
        self.epoch = Some(epoch);
        // What was asked before this number may be an answer of the former store (B1).
        self.epoch_after = out.number();
    }

    fn forget(&mut self) {
        // Interest and who is attached stay: both hold whatever the history.
        self.phase = RoomPhase::Closed;
        self.epoch = None;
        self.head = 0;
        self.known = 0;
        self.ahead.clear();
        self.ring.clear();
        self.hold.reset();
        self.reading = None;
        self.read_at_once = false;
        self.asking = None;
    }

    fn ahead_max(&self) -> (usize, usize) {
        (self.limits.ahead_items, self.limits.ahead_bytes)
    }
}

#[cfg(test)]
mod tests;
