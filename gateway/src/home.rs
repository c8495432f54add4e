//! The home half of a shard: the rooms and lanes whose home it is. Feeds events to their machines, gathers
//! what they ask of logic into few calls, and hands runs and outcomes to the shards.
//!
//! No I/O and no clock: calls and messages leave through [`HomeOutput`], replies and time come in as events.

mod all_rooms;
pub mod calls;
#[cfg(test)]
mod fast_paths;
mod limits;
mod output;
mod pages;
mod room_entry;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use indexmap::IndexMap;
use sluice_proto::grpc::{HeadsReply, Message, PublishReply, RoomRun, SubscribeReply};
use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::limits::{LANES, RANGES_PER_CALL_MAX, ROOMS_PER_CALL_MAX};
use sluice_proto::wire::codec;
use sluice_trace::Parent;

use crate::address::Address;
use crate::defaults::ROOMS_PER_TURN;
use crate::fair_queue::FairQueue;
use crate::pushers::PusherId;
use crate::repair::Repair;
use crate::room::link::{Ms, Need, ShardId};
use crate::room::{CallId, SubscribedRoom};
use crate::rules::{Faithful, Rule, Rules};
use crate::session::outbound::text_frame;
use crate::subscription::pages::PageReads;
use crate::uplink::lane::{CallFailed, Lane};
use crate::uplink::{Answered, Outcome, Publish};
use all_rooms::HeadsPass;
use calls::{Asker, HomeCall, PageOf, PublishCall, ReadCall, ReadFor, ReadTarget, RoomsCall};
use room_entry::{RoomEntry, RoomPorts};

pub use limits::HomeLimits;
pub use output::{Conflict, HomeOutput, PageTo};

/// The home half of a shard.
#[derive(Debug)]
pub struct Home {
    limits: HomeLimits,
    shards: usize,
    rooms: IndexMap<RoomId, Box<RoomEntry>>,
    lanes: HashMap<u8, Lane>,
    /// Number of the last call of any room.
    last_call: CallId,
    /// Rooms by the time they want to be looked at; an entry that is no longer true is passed over.
    due: BinaryHeap<Reverse<(Ms, RoomId)>>,
    repair: Repair,
    /// Where the last slice of all rooms ended.
    slice: usize,
    /// A look at all rooms for heads to ask, under way.
    heads_pass: Option<HeadsPass>,
    /// Rooms below this number are still to announce their interest again.
    announce_below: usize,
    subscribes: FairQueue<Asker, (RoomId, CallId)>,
    removes: FairQueue<Asker, (RoomId, CallId)>,
    heads: FairQueue<Asker, (RoomId, Option<CallId>)>,
    reads: FairQueue<Asker, ReadTarget>,
    pages: PageReads<PageOf, PageTo>,
    /// While a push is taken: the stream that pushed to the room before, and the one it comes from.
    pushing: [PusherId; 2],
}

impl Home {
    /// The home half of shard `me` of `shards`.
    #[must_use]
    pub fn new(limits: HomeLimits, me: ShardId, shards: usize, now: Ms) -> Self {
        // As `address::home_of` says it: all shards must agree without asking each other.
        let mine = (0..LANES).filter(|lane| usize::from(*lane) % shards.max(1) == me);
        Self {
            lanes: mine.map(|lane| (lane, Lane::new(limits.lane))).collect(),
            repair: Repair::new(limits.repair, now),
            limits,
            shards,
            rooms: IndexMap::new(),
            last_call: 0,
            due: BinaryHeap::new(),
            slice: 0,
            heads_pass: None,
            announce_below: 0,
            subscribes: FairQueue::new(ROOMS_PER_CALL_MAX),
            removes: FairQueue::new(ROOMS_PER_CALL_MAX),
            heads: FairQueue::new(ROOMS_PER_CALL_MAX),
            reads: FairQueue::new(RANGES_PER_CALL_MAX),
            pages: PageReads::default(),
            pushing: [PusherId::default(); 2],
        }
    }

    /// A shard says what it wants of a room, on behalf of a connection. One that leaves as the last of its shard
    /// is [released](HomeOutput::released) as soon as that costs nothing more.
    pub fn need(
        &mut self,
        now: Ms,
        shard: ShardId,
        room: &RoomId,
        (need, by): (Need, Option<Address>),
        ports: &mut impl HomeOutput,
    ) {
        if !self.rooms.contains_key(room) {
            if !need.attached {
                // Nothing of it is known here, so nothing of it has to be removed.
                by.into_iter().for_each(|who| ports.released(who));
                return;
            }
            let entry = RoomEntry::new(Arc::clone(&self.limits.room), self.shards);
            self.rooms.insert(room.clone(), Box::new(entry));
        }
        // Its head is asked every second from now on: what the first pushes did not bring is missed soon.
        self.mark_active(now, room);
        if let Some(entry) = self.rooms.get_mut(room) {
            if need.attached {
                entry.asker = by.map(|who| Asker::Connection(usize::from(who.shard), who.slot));
            } else {
                by.into_iter().for_each(|who| entry.leaves(who));
            }
        }
        self.with_room(now, room, ports, |entry, out| entry.room.need(now, shard, need, out));
        // Somebody wants it (again): nothing has to be removed.
        if let Some(entry) = self.rooms.get_mut(room).filter(|entry| entry.room.is_attached()) {
            entry.take_leavers().for_each(|who| ports.released(who));
        }
    }

    /// A task's push: runs of rooms, with or without their messages. Rooms nobody wants are passed over.
    pub fn pushed(
        &mut self,
        now: Ms,
        (epoch, by): (Epoch, PusherId),
        runs: &[RoomRun],
        ports: &mut impl HomeOutput,
    ) {
        for run in runs {
            // A name that this version does not allow was allowed by another one's: nobody here has it.
            let Ok(room) = RoomId::parse(&run.room) else { continue };
            let before =
                self.mark_active(now, &room).map(|entry| std::mem::replace(&mut entry.pushed_by, by));
            self.pushing = [before.unwrap_or_default(), by];
            for trace in &run.traces {
                ports.traced(&room, trace.seq, Parent::read(&trace.traceparent));
            }
            self.with_room(now, &room, ports, |entry, out| {
                // Too large to travel with the notice (C7): only that they exist is said, and the room reads them.
                if run.messages.is_empty() {
                    entry.room.hint(now, epoch, run.last, out);
                } else {
                    let messages =
                        run.messages.iter().map(|message| (message.seq, || encode(&room, message)));
                    entry.room.push(now, epoch, messages, out);
                }
            });
        }
        self.pushing = [PusherId::default(); 2];
    }

    /// A publish from a shard, within what it may have unanswered.
    pub fn publish(&mut self, publish: Publish, (now, wall_ms): (Instant, i64), ports: &mut impl HomeOutput) {
        let lane = publish.room.lane();
        let mut answers = Vec::new();
        match self.lanes.get_mut(&lane) {
            Some(machine) => {
                if let Err(publish) = machine.push(publish, &mut answers) {
                    // The bounds of the shards leave space for all; should they not, it is a first `retry:true` (A5).
                    publish.link.fence();
                    answers.push(Answered { publish, outcome: Outcome::NotSent });
                }
            }
            None => debug_assert!(false, "a publish for a lane of another home"),
        }
        answers.into_iter().for_each(|answered| ports.answer(answered));
        self.next_batch(lane, (now, wall_ms), ports);
    }

    /// The reply to [`HomeCall::Publish`].
    pub fn published(
        &mut self,
        asked: &PublishCall,
        reply: Result<PublishReply, CallFailed>,
        now: Ms,
        clock: (Instant, i64),
        ports: &mut impl HomeOutput,
    ) {
        let epoch = reply.as_ref().ok().and_then(|reply| Epoch::from_wire(reply.epoch));
        let mut answers = Vec::new();
        if let Some(machine) = self.lanes.get_mut(&asked.lane) {
            machine.replied(asked.call.number, reply, clock.0, &mut answers);
        }
        // Before the answers: whoever hears of its own `ok` finds what it published passed on here.
        if let Some(epoch) = epoch {
            self.push_own(now, epoch, &answers, ports);
        }
        answers.into_iter().for_each(|answered| ports.answer(answered));
        self.next_batch(asked.lane, clock, ports);
    }

    /// The answer to an own publish carries seq and time, so it is a push: one run for all of a room.
    fn push_own(&mut self, now: Ms, epoch: Epoch, answers: &[Answered], ports: &mut impl HomeOutput) {
        let mut by_room: IndexMap<&RoomId, Vec<&Answered>> = IndexMap::new();
        for answered in answers {
            by_room.entry(&answered.publish.room).or_default().push(answered);
        }
        for (room, answers) in by_room {
            self.mark_active(now, room);
            for Answered { publish, outcome } in &answers {
                if let Outcome::Stored { seq, .. } = *outcome {
                    ports.traced(room, seq, publish.span.parent());
                }
            }
            let stored = answers.iter().filter_map(|Answered { publish, outcome }| match *outcome {
                Outcome::Stored { .. } if !Faithful::keeps(Rule::HintRaisesOnlyKnown) => None,
                Outcome::Stored { seq, at_ms } => {
                    Some((seq, move || encode(room, &stored(publish, seq, at_ms))))
                }
                Outcome::Duplicate { .. }
                | Outcome::Scheduled { .. }
                | Outcome::Cancelled
                | Outcome::TooLate
                | Outcome::Conflict
                | Outcome::Refused { .. }
                | Outcome::NotSent
                | Outcome::Unknown => None,
            });
            self.with_room(now, room, ports, |entry, out| entry.room.push(now, epoch, stored, out));
            for Answered { outcome, .. } in &answers {
                let hint = match *outcome {
                    // Of another time: that a message exists there is all that is news (D1).
                    Outcome::Duplicate { seq } => seq,
                    Outcome::Stored { seq, .. } if !Faithful::keeps(Rule::HintRaisesOnlyKnown) => seq,
                    Outcome::Stored { .. }
                    | Outcome::Scheduled { .. }
                    | Outcome::Cancelled
                    | Outcome::TooLate
                    | Outcome::Conflict
                    | Outcome::Refused { .. }
                    | Outcome::NotSent
                    | Outcome::Unknown => continue,
                };
                self.with_room(now, room, ports, |entry, out| entry.room.hint(now, epoch, hint, out));
            }
        }
    }

    /// Lets a lane send what it has.
    fn next_batch(&mut self, lane: u8, (now, wall_ms): (Instant, i64), ports: &mut impl HomeOutput) {
        let mut answers = Vec::new();
        let call = self.lanes.get_mut(&lane).and_then(|machine| machine.next(now, wall_ms, &mut answers));
        answers.into_iter().for_each(|answered| ports.answer(answered));
        if let Some(call) = call {
            ports.ask(HomeCall::Publish(PublishCall { lane, call }));
        }
    }

    /// Answers every publish as it stands: the end of a drain, or the gateway was frozen.
    pub fn give_up(&mut self, ports: &mut impl HomeOutput) {
        let mut answers = Vec::new();
        self.lanes.values_mut().for_each(|lane| lane.give_up(&mut answers));
        answers.into_iter().for_each(|answered| ports.answer(answered));
    }

    /// The queue to a shard that had refused a hand-over of `room` has space again.
    pub fn space(&mut self, now: Ms, room: &RoomId, ports: &mut impl HomeOutput) {
        self.with_room(now, room, ports, |entry, out| entry.room.space(now, out));
    }

    /// The reply to [`HomeCall::Subscribe`].
    pub fn subscribed(
        &mut self,
        now: Ms,
        asked: RoomsCall,
        reply: Option<SubscribeReply>,
        ports: &mut impl HomeOutput,
    ) {
        self.subscribes.done();
        // A reply of another shape answers nothing: each room takes it for a failed call.
        let reply = reply.filter(|reply| reply.heads.len() == asked.0.len());
        let epoch = reply.as_ref().and_then(|reply| Epoch::from_wire(reply.epoch));
        for (n, (room, call)) in asked.0.into_iter().enumerate() {
            let reply = reply.as_ref().zip(epoch).and_then(|(reply, epoch)| {
                Some(SubscribedRoom { epoch, head: *reply.heads.get(n)?, stored: reply.interest_stored })
            });
            self.with_room(now, &room, ports, |entry, out| match reply {
                Some(reply) => entry.room.subscribed(now, call, reply, out),
                None => entry.room.failed(now, call, out),
            });
        }
        self.go_on(now, ports);
    }

    /// The reply to [`HomeCall::Remove`]: whether the interest is removed; `None` = no answer.
    pub fn removed(&mut self, now: Ms, asked: RoomsCall, stored: Option<bool>, ports: &mut impl HomeOutput) {
        self.removes.done();
        for (room, call) in asked.0 {
            self.with_room(now, &room, ports, |entry, out| match stored {
                Some(stored) => entry.room.removed(now, call, stored, out),
                None => entry.room.failed(now, call, out),
            });
        }
        self.send(now, ports);
    }

    /// The reply to [`HomeCall::Heads`].
    pub fn heads(
        &mut self,
        now: Ms,
        asked: RoomsCall,
        reply: Option<HeadsReply>,
        ports: &mut impl HomeOutput,
    ) {
        self.heads.done();
        let reply = reply.filter(|reply| reply.heads.len() == asked.0.len());
        let epoch = reply.as_ref().and_then(|reply| Epoch::from_wire(reply.epoch));
        for (n, (room, call)) in asked.0.into_iter().enumerate() {
            let head = reply.as_ref().and_then(|reply| reply.heads.get(n).copied());
            if let Some(entry) = self.rooms.get_mut(&room) {
                // Whatever came of it: the next slice may ask again.
                entry.asked_head = false;
            }
            self.with_room(now, &room, ports, |entry, out| match epoch.zip(head) {
                Some((epoch, head)) => entry.room.head_is(now, call, epoch, head, out),
                None => entry.room.failed(now, call, out),
            });
        }
        self.go_on(now, ports);
    }

    /// Does what is due: rooms, lanes, heads. Call it at least every 20 ms while [`Home::is_busy`], else every 100 ms.
    /// `true` = more is due than one turn looks at.
    pub fn on_tick(&mut self, now: Ms, clock: (Instant, i64), ports: &mut impl HomeOutput) -> bool {
        for _ in 0..ROOMS_PER_TURN {
            if self.due.peek().is_none_or(|Reverse((due, _))| *due > now) {
                break;
            }
            let Some(Reverse((due, room))) = self.due.pop() else { break };
            // Only the entry that still holds: a nearer one was put in later and has had its turn.
            if self.rooms.get_mut(&room).is_some_and(|entry| entry.due.take_if(|at| *at == due).is_some()) {
                self.with_room(now, &room, ports, |entry, out| entry.room.on_tick(now, out));
            }
        }
        // Only those that wait for a time: the others go on with their reply.
        let waiting = |lane: &Lane| lane.wake_at().is_some_and(|at| at <= clock.0);
        let lanes: Vec<u8> = self.lanes.iter().filter(|(_, l)| waiting(l)).map(|(n, _)| *n).collect();
        for lane in lanes {
            self.next_batch(lane, clock, ports);
        }
        self.ask_due_heads(now, ports);
        let more = self.go_on(now, ports);
        more || self.due.peek().is_some_and(|Reverse((due, _))| *due <= now)
    }

    /// Whether something is due soon.
    #[must_use]
    pub fn is_busy(&self, now: Ms) -> bool {
        self.pending() > 0
            || self.heads_pass.is_some()
            || self.announce_below > 0
            || self.due.peek().is_some_and(|Reverse((due, _))| *due <= now + 100)
    }

    /// Publishes without outcome.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lanes.values().map(Lane::pending).sum()
    }

    /// Bytes of publishes that wait for logic.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.lanes.values().map(Lane::queued_bytes).sum()
    }

    /// Rooms with state here.
    #[must_use]
    pub fn rooms_len(&self) -> usize {
        self.rooms.len()
    }

    /// The rooms whose interest this gateway has announced or is announcing, with their numbers, downwards
    /// from `below`: for a full set told in parts. A room that goes is replaced by the last one, which then
    /// was told; one that comes is the last, and is announced by its own call.
    pub fn interested(&self, below: usize) -> impl Iterator<Item = (usize, &RoomId)> {
        let numbers = (0..below.min(self.rooms.len())).rev();
        numbers.filter_map(|number| {
            let (room, entry) = self.rooms.get_index(number)?;
            entry.room.is_announced().then_some((number, room))
        })
    }

    fn mark_active(&mut self, now: Ms, room: &RoomId) -> Option<&mut RoomEntry> {
        let entry = self.rooms.get_mut(room)?;
        entry.active_until = self.repair.active_until(now);
        Some(entry)
    }

    /// Makes the calls that can be made now: one of a kind at a time, with all that has gathered.
    fn send(&mut self, now: Ms, ports: &mut impl HomeOutput) {
        let rooms = &mut self.rooms;
        let mut sent =
            |room: &RoomId, call: CallId| rooms.get_mut(room).is_some_and(|entry| entry.room.sent(now, call));
        if let Some(batch) = self.subscribes.take(|(room, call)| sent(room, *call)) {
            ports.ask(HomeCall::Subscribe(RoomsCall(batch)));
        }
        if let Some(batch) = self.removes.take(|(room, call)| sent(room, *call)) {
            ports.ask(HomeCall::Remove(RoomsCall(batch)));
        }
        let wanted = |range: &ReadTarget| match range.reader {
            ReadFor::Room(call) => sent(&range.room, call),
            ReadFor::Page(_) => true,
        };
        if let Some(batch) = self.reads.take(wanted) {
            ports.ask(HomeCall::Read(ReadCall(batch)));
        }
        let mut sent =
            |room: &RoomId, call: CallId| rooms.get_mut(room).is_some_and(|entry| entry.room.sent(now, call));
        if let Some(batch) = self.heads.take(|(room, call)| call.is_none_or(|call| sent(room, call))) {
            // Numbered now: an answer to what was sent before a room took its epoch must be told from later ones.
            let mut number = || {
                self.last_call += 1;
                self.last_call
            };
            let batch = batch.into_iter().map(|(room, call)| (room, call.unwrap_or_else(&mut number)));
            ports.ask(HomeCall::Heads(RoomsCall(batch.collect())));
        }
    }

    /// Runs an event of one room, then does what it asked for and notes when it wants to be looked at.
    fn with_room<P: HomeOutput>(
        &mut self,
        now: Ms,
        room: &RoomId,
        ports: &mut P,
        event: impl FnOnce(&mut RoomEntry, &mut RoomPorts<'_, P>),
    ) {
        let Some((_, name, entry)) = self.rooms.get_full_mut(room) else { return };
        let mut out = RoomPorts::new(name, &mut self.last_call, ports);
        event(entry, &mut out);
        let actions = out.actions;
        if let Some(due) = entry.room.next_deadline()
            && entry.due.is_none_or(|at| due < at)
        {
            entry.due = Some(due);
            self.due.push(Reverse((due, name.clone())));
        }
        // Nearly always: a push that follows asks for nothing, and the name need not be copied.
        if actions.is_empty() {
            return;
        }
        self.act(now, &room.clone(), actions, ports);
    }
}

/// A message as `{"msg":…}` in a text frame, ready for every socket.
#[must_use]
pub fn encode(room: &RoomId, message: &Message) -> Bytes {
    let mut text = Vec::with_capacity(message.data.len() + 128);
    codec::msg(&mut text, room, message);
    let mut frame = Vec::with_capacity(text.len() + 4);
    text_frame(&text, &mut frame);
    frame.into()
}

fn stored(publish: &Publish, seq: Seq, at_ms: i64) -> Message {
    let (sender, key) = (publish.sender.as_str().to_owned(), publish.key.as_str().to_owned());
    Message { seq, sender, key, at_ms, data: publish.data.clone() }
}
