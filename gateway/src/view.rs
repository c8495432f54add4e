//! A room as one shard sees it: fed by runs and hand-overs from the room's home, it serves the shard's
//! subscriptions. Pure: events in, actions out through a [`ViewOutput`]; time is an argument. Never raises its
//! head but by runs and hand-overs, never lets a slow subscriber delay a Live one.
//!
//! | Event | Method | When |
//! |---|---|---|
//! | Sub | [`View::sub`] | a client subscribes |
//! | Unsub | [`View::unsub`] | it unsubscribes or its connection ends; an empty view is dropped |
//! | Run | [`View::run`] | next in the queue from home |
//! | Hand-over | [`View::hand_over`] | next in the queue from home |
//! | Page | [`View::page`] | reply to [`ViewOutput::ask`]; its `store_head` is also a hint to the room |
//! | Failed page | [`View::page_failed`] | the ask failed |
//! | Queue | [`View::advance`] | a connection's queue has shrunk, for each of its subscriptions in the order of [`crate::subscription::Subscriptions::rotate`] |
//! | Tick | [`View::on_tick`] | [`View::next_deadline`] has come |
//!
//! Live subscriptions lie densely in one vector and cost a run one comparison and one append each.

use std::marker::PhantomData;
use std::sync::Arc;

use slab::Slab;
use sluice_proto::ids::{Epoch, Seq};

use crate::room::limits::ViewLimits;
use crate::room::link::{Frame, HandOver, Ms, Need, Page, Run};
use crate::room::ring::Ring;
use crate::rules::{Faithful, Rule, Rules};
use crate::slow_client;
use crate::subscription::{
    Ask, CatchingUp, ConnKey, SubFrame, SubKey, SubscriptionState, WaitingFor, WaitingSub,
};

mod advance;

/// The outbound queue of a connection.
pub trait SubscriberQueue {
    /// Bytes waiting for the socket.
    fn level(&self) -> usize;
    /// Appends a message of `epoch`.
    fn append(&mut self, epoch: Epoch, frame: &Frame);
    /// Appends a whole run, whose messages the driver may have joined into one piece.
    fn append_run(&mut self, run: &Run) {
        for frame in run.frames.iter() {
            self.append(run.epoch, frame);
        }
    }
}

/// The shard a view lives in. The driver wraps it with the view's room.
pub trait ViewOutput {
    /// The outbound queue of a connection.
    type Out: SubscriberQueue;
    /// The queue of `conn`, which exists as long as it has subscriptions.
    fn outbound(&mut self, conn: ConnKey) -> &mut Self::Out;
    /// 1, 2, …: a number never given before in this shard, whatever the room.
    fn number(&mut self) -> u64;
    /// Appends to the queue of `conn` at once.
    fn tell(&mut self, conn: ConnKey, sub: SubKey, told: SubFrame);
    /// Starts or joins a read.
    fn ask(&mut self, ask: Ask);
    /// A level for the room's home: the last value is delivered as soon as there is space.
    fn need(&mut self, need: Need);
    /// A subscription of `conn` began (+) or ceased to be CatchingUp: while a connection has any,
    /// [`View::advance`] is called when its queue has shrunk.
    fn behind(&mut self, conn: ConnKey, began: bool);
}

#[derive(Debug, Clone, Copy)]
struct LiveSub {
    conn: ConnKey,
    sub: SubKey,
}

/// Where a subscription lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    Live(u32),
    Waiting(u32),
}

/// The state machine of a view. `R` is [`Faithful`] but in tests.
#[derive(Debug)]
pub struct View<R = Faithful> {
    limits: Arc<ViewLimits>,
    /// `None` until the first hand-over: closed.
    epoch: Option<Epoch>,
    /// Which beginning of the room that was.
    opened: u64,
    head: Seq,
    known: Seq,
    ring: Ring,
    places: Slab<Place>,
    live: Vec<LiveSub>,
    waiting: Vec<WaitingSub>,
    /// Number of the last `sub`.
    number: u64,
    /// No cursor is beyond this: while the head is not below it, a run moves nobody but who is Live.
    farthest: Seq,
    /// Not later than the first deadline of an ask or a back-off.
    due: Option<Ms>,
    rules: PhantomData<R>,
}

impl View<Faithful> {
    /// A closed view without subscribers.
    #[must_use]
    pub fn new(limits: Arc<ViewLimits>) -> Self {
        Self::with_rules(limits)
    }
}

impl<R: Rules> View<R> {
    /// As [`View::new`], for tests that leave out a rule.
    #[must_use]
    pub fn with_rules(limits: Arc<ViewLimits>) -> Self {
        Self {
            limits,
            epoch: None,
            opened: 0,
            head: 0,
            known: 0,
            ring: Ring::default(),
            places: Slab::new(),
            live: Vec::new(),
            waiting: Vec::new(),
            number: 0,
            farthest: 0,
            due: None,
            rules: PhantomData,
        }
    }

    /// A client subscribes after position `after` of `epoch`; without `after`, from now.
    pub fn sub(
        &mut self,
        conn: ConnKey,
        after: Option<Seq>,
        epoch: Option<Epoch>,
        shard: &mut impl ViewOutput,
    ) -> SubKey {
        // Its place in the order of subs: a hand-over answers all up to a number.
        self.number = shard.number();
        // Most rooms of a shard have one subscriber, and a table grows to four at once.
        if self.places.capacity() == 0 {
            self.places.reserve_exact(1);
            self.waiting.reserve_exact(1);
        }
        let sub = key(self.places.insert(Place::Waiting(key(self.waiting.len()))));
        self.waiting.push(WaitingSub {
            sub,
            conn,
            waits_for: WaitingFor::Pending { number: self.number, after, epoch },
        });
        shard.need(Need { attached: true, number: self.number });
        sub
    }

    /// A subscription ends. `true` = it was the last one: drop the view.
    pub fn unsub(&mut self, sub: SubKey, shard: &mut impl ViewOutput) -> bool {
        let Some(place) = self.places.try_remove(sub as usize) else { return self.is_empty() };
        match place {
            Place::Live(at) => self.take_live(at),
            Place::Waiting(at) => {
                let waiting = self.take_waiting(at);
                // One that was never answered was not counted as behind.
                if matches!(waiting.waits_for, WaitingFor::CatchingUp(_)) {
                    shard.behind(waiting.conn, false);
                }
            }
        }
        if self.is_empty() {
            shard.need(Need { attached: false, number: self.number });
        }
        self.is_empty()
    }

    /// The next messages, in the order of the queue from home.
    pub fn run(&mut self, now: Ms, run: &Run, shard: &mut impl ViewOutput) {
        // A run before the first hand-over has no place to begin: the hand-over will be ahead of it.
        if self.epoch.is_none() {
            return;
        }
        let follows = self.follows(run);
        debug_assert!(follows, "a run that does not follow: the queue from home keeps the order");
        if !follows {
            return self.recover_gap(now, run, shard);
        }
        let high = self.limits.queue_high;
        let mut at = 0;
        while let Some(live) = self.live.get(at) {
            let out = shard.outbound(live.conn);
            if slow_client::stays_live(out.level(), high) {
                out.append_run(run);
                at += 1;
            } else if !R::keeps(Rule::FullQueueLeavesLive) {
                at += 1;
            } else {
                self.leave_live(at, shard);
            }
        }
        for frame in run.frames.iter() {
            self.ring.push(frame.clone(), (self.limits.ring_items, self.limits.ring_bytes));
        }
        let met = self.farthest > self.head;
        self.head = run.last();
        self.known = self.known.max(self.head);
        // The others wait for a page, for space or for a back-off, and have an event for that. Looking at
        // all of them would make each message cost as much as there are slow readers in the room (S5).
        if met {
            self.advance_all(now, shard);
        }
    }

    /// Where the room stands, in the order of the queue from home.
    pub fn hand_over(&mut self, now: Ms, to: HandOver, shard: &mut impl ViewOutput) {
        if self.epoch == Some(to.epoch) && self.opened == to.opened {
            if to.head > self.head {
                self.jump(to.head, shard);
            }
            self.known = self.known.max(to.known);
        } else {
            let changed = self.epoch.replace(to.epoch).is_some();
            self.opened = to.opened;
            self.head = to.head;
            self.known = to.known;
            self.ring.clear();
            if changed && R::keeps(Rule::EpochChangeTold) {
                self.restart(to.epoch, shard);
            }
        }
        for waiting in &mut self.waiting {
            if let WaitingFor::Pending { number, after, epoch } = waiting.waits_for
                && number <= to.answered
            {
                // By `known`: a client may have seen what this gateway has not passed on yet (B8).
                let bound = if R::keeps(Rule::SubJudgedByKnown) { self.known } else { self.head };
                let same = !R::keeps(Rule::EpochChangeTold) || epoch.is_none_or(|asked| asked == to.epoch);
                let good = same && after.is_none_or(|at| at <= bound);
                let cursor = after.filter(|_| good).unwrap_or(bound);
                self.farthest = self.farthest.max(cursor);
                waiting.waits_for = WaitingFor::CatchingUp(CatchingUp { cursor, ..CatchingUp::default() });
                shard.behind(waiting.conn, true);
                let resumed = after.is_some();
                let (after, head, epoch) = (cursor, self.known, to.epoch);
                let told = SubFrame::Ok { after, head, epoch, recovered: good, resumed, solicited: true };
                shard.tell(waiting.conn, waiting.sub, told);
            }
        }
        self.advance_all(now, shard);
    }

    /// The answer to ask `number` of `sub`.
    pub fn page(&mut self, now: Ms, sub: SubKey, number: u64, page: &Page, shard: &mut impl ViewOutput) {
        // A page of another history, before or after ours: asked again when the hand-over has told us (B1).
        if self.epoch != Some(page.epoch) && R::keeps(Rule::SubscriptionPageEpoch) {
            return self.page_failed(now, sub, number, shard);
        }
        let Some(at) = self.end_ask(sub, number) else { return };
        if !R::keeps(Rule::ViewHeadIgnoresHints) {
            self.head = self.head.max(page.store_head);
        }
        self.take_page(now, at, page, shard);
        self.advance_at(now, at, shard);
    }

    /// Ask `number` of `sub` failed.
    pub fn page_failed(&mut self, now: Ms, sub: SubKey, number: u64, shard: &mut impl ViewOutput) {
        let Some(at) = self.end_ask(sub, number) else { return };
        self.back_off(now, at);
        self.advance_at(now, at, shard);
    }

    /// The queue of the connection of `sub` has shrunk.
    pub fn advance(&mut self, now: Ms, sub: SubKey, shard: &mut impl ViewOutput) {
        if let Some(Place::Waiting(at)) = self.places.get(sub as usize).copied() {
            self.advance_at(now, at as usize, shard);
        }
    }

    /// Time has passed: gives up on asks without an answer and asks again where a back-off is over.
    pub fn on_tick(&mut self, now: Ms, shard: &mut impl ViewOutput) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        for at in 0..self.waiting.len() {
            if let Some(WaitingFor::CatchingUp(state)) =
                self.waiting.get_mut(at).map(|waiting| &mut waiting.waits_for)
                && R::keeps(Rule::AskDeadline)
                && state.asked.take_if(|(_, deadline)| *deadline <= now).is_some()
            {
                self.back_off(now, at);
            }
        }
        // Cleared first: what is asked for below names its own deadline.
        self.due = None;
        self.advance_all(now, shard);
        for waiting in &self.waiting {
            if let WaitingFor::CatchingUp(state) = &waiting.waits_for {
                let backoff = Some(state.backoff.until()).filter(|until| *until > now);
                let next = state.asked.map(|(_, deadline)| deadline).or(backoff);
                self.due = [self.due, next].into_iter().flatten().min();
            }
        }
    }

    /// When [`View::on_tick`] is to be called next, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ms> {
        self.due
    }

    /// Where a subscription stands.
    #[must_use]
    pub fn state(&self, sub: SubKey) -> Option<SubscriptionState> {
        Some(match *self.places.get(sub as usize)? {
            Place::Live(_) => SubscriptionState::Live,
            Place::Waiting(at) => match &self.waiting.get(at as usize)?.waits_for {
                WaitingFor::Pending { .. } => SubscriptionState::Pending,
                WaitingFor::CatchingUp(state) => SubscriptionState::CatchingUp { cursor: state.cursor },
            },
        })
    }

    /// Where a subscription stands, for who resumes it elsewhere: the history, and the last position that was put in its
    /// queue. One that waits for its answer stands where it asked to, if it did.
    #[must_use]
    pub fn position(&self, sub: SubKey) -> (Option<Epoch>, Option<Seq>) {
        match self.places.get(sub as usize) {
            Some(Place::Live(_)) => (self.epoch, Some(self.head)),
            Some(Place::Waiting(at)) => {
                match self.waiting.get(*at as usize).map(|waiting| &waiting.waits_for) {
                    Some(WaitingFor::Pending { after, epoch, .. }) => (*epoch, *after),
                    Some(WaitingFor::CatchingUp(state)) => (self.epoch, Some(state.cursor)),
                    None => (None, None),
                }
            }
            None => (None, None),
        }
    }

    /// Last position passed on to Live subscribers.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Last position known to exist.
    #[must_use]
    pub fn known(&self) -> Seq {
        self.known
    }

    /// Epoch, once a hand-over told it.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// How many subscribers are Live.
    #[must_use]
    pub fn live_len(&self) -> usize {
        self.live.len()
    }

    /// Whether nobody is subscribed: the view is to be dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn follows(&self, run: &Run) -> bool {
        self.epoch == Some(run.epoch) && run.first() == self.head + 1
    }

    /// A run that does not follow cannot be; should it come all the same, nobody sees a gap: what is
    /// missing is read.
    fn recover_gap(&mut self, now: Ms, run: &Run, shard: &mut impl ViewOutput) {
        if self.epoch == Some(run.epoch) && run.last() > self.head {
            self.jump(run.last(), shard);
            self.known = self.known.max(self.head);
            self.advance_all(now, shard);
        }
    }

    /// The head moved without the messages: who was Live reads them, or is told that they are gone.
    fn jump(&mut self, head: Seq, shard: &mut impl ViewOutput) {
        while R::keeps(Rule::LiveLeavesAtJump) && !self.live.is_empty() {
            self.leave_live(0, shard);
        }
        if R::keeps(Rule::RingClearedAtJump) {
            self.ring.clear();
        }
        self.head = head;
    }

    /// Another history: whoever was answered in the former one starts at its head, and is told.
    fn restart(&mut self, epoch: Epoch, shard: &mut impl ViewOutput) {
        let (after, head) = (self.head, self.known);
        let told = SubFrame::Ok { after, head, epoch, recovered: false, resumed: false, solicited: false };
        // They stay Live: their cursor is the head, whichever history that is of.
        for live in &self.live {
            shard.tell(live.conn, live.sub, told);
        }
        for waiting in &mut self.waiting {
            if let WaitingFor::CatchingUp(state) = &mut waiting.waits_for {
                *state = CatchingUp { cursor: after, was_live: state.was_live, ..CatchingUp::default() };
                shard.tell(waiting.conn, waiting.sub, told);
            }
        }
    }
}

/// Indices fit: a shard holds far fewer than 2³² subscriptions.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounded by the connections of a shard times their rooms"
)]
fn key(index: usize) -> u32 {
    index as u32
}

#[cfg(test)]
mod tests;
