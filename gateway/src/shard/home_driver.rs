//! The home half of a shard at work: lends it its ports, and brings messages between homes, views and
//! connections. Decides nothing about rooms; its calls on logic are in [`calls`].

mod calls;
mod delivering;

use std::time::Instant;

use sluice_proto::ids::{RoomId, Seq};
use sluice_trace::{Kind, Parent, ROOM, SEQ};
use tokio::task::yield_now;

use self::delivering::Delivering;
use super::connections::Connections;
use super::inbox::ShardMessage;
use super::peers::Peers;
use super::turn::ShardCell;
use super::views::{Views, Want};
use super::{Shard, handle::Shards};
use crate::address::{Address, ShardIx, home_of};
use crate::home::calls::HomeCall;
use crate::home::{Conflict, Home, HomeLimits, HomeOutput, PageTo};
use crate::limits::Charge;
use crate::room::link::{HandOver, Ms, Page, Run, ShardId};
use crate::status::change;
use crate::uplink::{Answered, Outcome, Publish};

/// A home with its ways to other shards, and what it decided that the shard has yet to do.
#[derive(Debug)]
pub(super) struct HomeDriver {
    me: ShardId,
    shards: ShardIx,
    home: Home,
    peers: Peers,
    follow_ups: FollowUps,
    /// Follow-ups are being done: whatever they lead to waits in their queue.
    following: bool,
}

/// What a home decided and the shard has yet to do.
#[derive(Debug, Default)]
struct FollowUps {
    calls: Vec<HomeCall>,
    answers: Vec<Answered>,
    released: Vec<Address>,
    conflicts: Vec<Conflict>,
    announce: bool,
}

impl FollowUps {
    fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.answers.is_empty()
            && self.released.is_empty()
            && self.conflicts.is_empty()
            && !self.announce
    }
}

impl HomeDriver {
    /// The home half of shard `me`.
    pub(super) fn new(me: ShardIx, shards: &Shards, scheduled_max: u32) -> Self {
        let (count, at) = (shards.len(), usize::from(me));
        let mut limits = HomeLimits::for_shards(count);
        limits.lane.scheduled_max = scheduled_max;
        Self {
            me: at,
            shards: ShardIx::try_from(count).unwrap_or(ShardIx::MAX),
            home: Home::new(limits, at, count, 0),
            peers: Peers::new(at, shards.inboxes()),
            follow_ups: FollowUps::default(),
            following: false,
        }
    }

    /// Whether something is due soon.
    pub(super) fn is_busy(&self, now: Ms) -> bool {
        self.home.is_busy(now)
    }

    /// Rooms with state here.
    pub(super) fn rooms_len(&self) -> usize {
        self.home.rooms_len()
    }

    /// For a full set.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    fn home_of(&self, room: &RoomId) -> ShardId {
        usize::from(home_of(room.lane(), self.shards))
    }
}

/// The ports of a home during one event.
pub(super) struct HomePorts<'a> {
    me: ShardId,
    now: Ms,
    connections: &'a mut Connections,
    views: &'a mut Views,
    peers: &'a mut Peers,
    follow_ups: &'a mut FollowUps,
    delivering: Delivering<'a>,
}

impl HomeOutput for HomePorts<'_> {
    fn run(&mut self, shard: ShardId, room: &RoomId, run: &Run) -> bool {
        let traced = self.delivering.run(room, run);
        let run = traced.as_ref().unwrap_or(run);
        if shard != self.me {
            // May find the queue full: the room then owes that shard a hand-over.
            return self.peers.run(shard, room, run);
        }
        self.views.run(self.connections, self.now, room, run);
        true
    }

    fn traced(&mut self, room: &RoomId, seq: Seq, parent: Parent) {
        self.delivering.message(room, seq, parent);
    }

    fn hand_over(&mut self, shard: ShardId, room: &RoomId, hand_over: HandOver) -> bool {
        if shard != self.me {
            return self.peers.hand_over(shard, room, hand_over);
        }
        self.views.hand_over(self.connections, self.now, room, hand_over);
        true
    }

    fn answer(&mut self, answered: Answered) {
        let shard = usize::from(answered.publish.link.address.shard);
        if shard == self.me {
            // Not at once: an answer may end its connection, which takes the home again.
            self.follow_ups.answers.push(answered);
        } else {
            self.peers.send(shard, ShardMessage::Answered(answered));
        }
    }

    fn page(&mut self, to: PageTo, page: Option<Page>) {
        if to.shard == self.me {
            let ask = &to.ask;
            self.views.page(self.connections, self.now, (&to.room, ask.sub, ask.number), page.as_ref());
        } else {
            self.peers.send(to.shard, ShardMessage::Page(to, page));
        }
    }

    fn released(&mut self, who: Address) {
        let shard = usize::from(who.shard);
        if shard == self.me {
            self.follow_ups.released.push(who);
        } else {
            self.peers.send(shard, ShardMessage::Released(who));
        }
    }

    fn ask(&mut self, call: HomeCall) {
        // Not at once: a call takes the shard, which this event holds.
        self.follow_ups.calls.push(call);
    }

    fn conflict(&mut self, conflict: Conflict) {
        self.follow_ups.conflicts.push(conflict);
    }

    fn announce_all(&mut self) {
        self.follow_ups.announce = true;
    }
}

impl Shard {
    /// Gives the home an event and does what follows from it.
    pub(super) fn home(&mut self, event: impl FnOnce(&mut Home, Ms, &mut HomePorts<'_>)) {
        let now = self.timers.now();
        let driver = &mut self.driver;
        let mut ports = HomePorts {
            me: driver.me,
            now,
            connections: &mut self.connections,
            views: &mut self.views,
            peers: &mut driver.peers,
            follow_ups: &mut driver.follow_ups,
            delivering: Delivering::new(&self.shared.tracer),
        };
        event(&mut driver.home, now, &mut ports);
        drop(ports);
        self.follow_up();
    }

    /// Does what homes and views have decided, until nothing is left.
    pub(super) fn follow_up(&mut self) {
        // What a follow-up leads to is done by the loop that runs already: no recursion, one order.
        if std::mem::replace(&mut self.driver.following, true) {
            return;
        }
        loop {
            let follow_ups = std::mem::take(&mut self.driver.follow_ups);
            let wants = self.views.take_wants();
            if follow_ups.is_empty() && wants.is_empty() {
                break;
            }
            for answered in follow_ups.answers {
                self.answered(&answered);
            }
            for who in follow_ups.released {
                self.released(who);
            }
            for conflict in follow_ups.conflicts {
                self.conflict(&conflict);
            }
            for call in follow_ups.calls {
                self.call(call);
            }
            if follow_ups.announce {
                self.announce_all();
            }
            for want in wants {
                self.want(want);
            }
        }
        self.driver.following = false;
        self.rearm();
        self.wait_for_space();
    }

    /// Starts a task for each queue that ran full; it sends what waits as there is space.
    fn wait_for_space(&mut self) {
        for (to, inbox) in self.driver.peers.take_full() {
            self.local(async move |cell: ShardCell| {
                loop {
                    let Ok(permit) = inbox.reserve().await else { return };
                    // The permit is a place: it must be free again before the message takes it.
                    drop(permit);
                    if !cell.turn(|shard| shard.space(to)) {
                        return;
                    }
                    yield_now().await;
                }
            });
        }
    }

    fn want(&mut self, want: Want) {
        let me = self.driver.me;
        match want {
            Want::Need { room, need, by } => {
                let to = self.driver.home_of(&room);
                if to == me {
                    self.home(|home, now, ports| home.need(now, me, &room, (need, by), ports));
                // Another level took the place of one that waited: whoever waited for that one is free.
                } else if let Some(who) = self.driver.peers.need(to, room, need, by) {
                    self.released(who);
                }
            }
            Want::Joined(who, room) => {
                let watches = self.views.joined(&mut self.connections, who, &room);
                if let Some(change) = self.change(who, |about| change::joined(about, &room, watches)) {
                    self.report(change);
                }
            }
            Want::Ask { room, ask } => {
                let to = self.driver.home_of(&room);
                let page_to = PageTo { shard: me, room, ask };
                if to == me {
                    self.home(|home, now, ports| home.wants_page(now, page_to, ports));
                } else {
                    self.driver.peers.send(to, ShardMessage::Ask(page_to));
                }
            }
        }
    }

    /// A publish of a connection of this shard.
    pub(super) fn publish(&mut self, mut publish: Publish) {
        publish.taken_at = Some(self.instant());
        publish.span = self.shared.tracer.entry("gateway publish", Kind::Server, publish.link.parent);
        publish.span.text(ROOM, publish.room.as_str());
        self.unanswered.add(publish.cost());
        self.counters.publish();
        let to = self.driver.home_of(&publish.room);
        if to == self.driver.me {
            self.home_publish(publish);
        } else {
            self.driver.peers.send(to, ShardMessage::Publish(publish));
        }
        self.follow_up();
    }

    fn home_publish(&mut self, publish: Publish) {
        let clock = self.clock();
        self.home(|home, _, ports| home.publish(publish, clock, ports));
    }

    /// Time for lanes: monotonic and wall.
    pub(super) fn clock(&self) -> (Instant, i64) {
        (self.instant(), self.shared.clock.now_ms())
    }

    /// The clock that tests stop and move.
    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The outcome of a publish of this shard.
    fn answered(&mut self, answered: &Answered) {
        let who = answered.publish.link.address;
        let resumes = self.unanswered.remove(answered.publish.cost());
        let took = answered.publish.taken_at.map(|at| self.instant().saturating_duration_since(at));
        self.counters.outcome(&answered.outcome, took);
        match answered.outcome {
            Outcome::Stored { seq, .. } | Outcome::Duplicate { seq } => {
                answered.publish.span.number(SEQ, seq)
            }
            Outcome::Conflict | Outcome::Refused { .. } | Outcome::NotSent | Outcome::Unknown => {
                answered.publish.span.fail("not stored");
            }
            Outcome::Scheduled { .. } | Outcome::Cancelled | Outcome::TooLate => {}
        }
        // The connection may be gone, and its slot another's: the generation tells.
        if self.connections.get(who).is_some() {
            // Only the store knows whether a room is new; whoever makes too many waits afterwards.
            if matches!(answered.outcome, Outcome::Stored { seq: 1, .. }) {
                self.charge_as(who, Charge::NewRoom);
            }
            self.connections.with_session(who.slot, |session, out| session.answered(answered, out));
            self.settle(who);
        }
        if resumes {
            self.connections.resume_all();
        }
    }

    /// A message from another shard.
    pub(super) fn on_peer_message(&mut self, message: ShardMessage) {
        let now = self.timers.now();
        match message {
            ShardMessage::Need(shard, room, need, by) => {
                self.home(|home, now, ports| home.need(now, shard, &room, (need, by), ports));
            }
            ShardMessage::Publish(publish) => self.home_publish(publish),
            ShardMessage::Ask(to) => self.home(|home, now, ports| home.wants_page(now, to, ports)),
            ShardMessage::Run(room, run) => self.views.run(&mut self.connections, now, &room, &run),
            ShardMessage::HandOver(room, to) => self.views.hand_over(&mut self.connections, now, &room, to),
            ShardMessage::Answered(answered) => self.answered(&answered),
            ShardMessage::Page(to, page) => {
                let at = (&to.room, to.ask.sub, to.ask.number);
                self.views.page(&mut self.connections, now, at, page.as_ref());
            }
            ShardMessage::Released(who) => self.released(who),
            ShardMessage::AnnounceAll => self.home(|home, now, ports| home.announce_all(now, ports)),
        }
        self.follow_up();
    }

    /// What a connection caused by leaving a room is done: it may be read on.
    fn released(&mut self, who: Address) {
        let over_budget = self.unanswered.over_budget();
        if let Some(connection) = self.connections.get(who) {
            connection.rooms_leaving = connection.rooms_leaving.saturating_sub(1);
            self.connections.resume(who.slot, over_budget);
        }
    }

    fn announce_all(&mut self) {
        let me = self.driver.me;
        for to in (0..usize::from(self.driver.shards)).filter(|to| *to != me) {
            self.driver.peers.send(to, ShardMessage::AnnounceAll);
        }
        self.home(|home, now, ports| home.announce_all(now, ports));
    }

    /// A queue to another shard has space; `true` = wait for more.
    fn space(&mut self, to: usize) -> bool {
        let (owed, more) = self.driver.peers.flush(to);
        for room in owed {
            self.home(|home, now, ports| home.space(now, &room, ports));
        }
        more || self.driver.peers.still_waits(to)
    }

    /// Every accepted publish gets an answer now.
    pub(super) fn give_up(&mut self) {
        self.home(|home, _, ports| home.give_up(ports));
    }
}
