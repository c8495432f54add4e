//! The home half of a shard at work: lends it its ports, makes the calls it asks for, and brings messages
//! between homes and views. Decides nothing about rooms.

use sluice_proto::grpc::{ReadRange, ReadRequest, StatusRequest};
use sluice_proto::ids::RoomId;
use sluice_proto::limits::PAGE_MESSAGES_MAX;

use super::connections::Connections;
use super::inbox::ShardMessage;
use super::peers::Peers;
use super::views::{Views, Want};
use super::{Cell, Shard};
use crate::address::home_of;
use crate::defaults::CALL_WITHIN;
use crate::home::calls::{HomeCall, PublishCall, ReadCall, RoomsCall};
use crate::home::{Home, HomeOutput, PageTo};
use crate::room::link::{HandOver, Ms, Page, Run, ShardId};
use crate::status;
use crate::uplink::{Answered, Outcome, Publish};

/// What a home decided and the shard has yet to do.
#[derive(Debug, Default)]
pub(super) struct FollowUps {
    asked: Vec<HomeCall>,
    answers: Vec<Answered>,
    announce: bool,
}

impl FollowUps {
    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.answers.is_empty() && !self.announce
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
}

impl HomeOutput for HomePorts<'_> {
    fn run(&mut self, shard: ShardId, room: &RoomId, run: &Run) -> bool {
        if shard != self.me {
            return self.peers.run(shard, room, run);
        }
        self.views.run(self.connections, self.now, room, run);
        true
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

    fn ask(&mut self, asked: HomeCall) {
        self.follow_ups.asked.push(asked);
    }

    fn announce_all(&mut self) {
        self.follow_ups.announce = true;
    }
}

impl Shard {
    /// Gives the home an event and does what follows from it.
    pub(super) fn home(&mut self, event: impl FnOnce(&mut Home, Ms, &mut HomePorts<'_>)) {
        let now = self.now();
        let mut ports = HomePorts {
            me: usize::from(self.me),
            now,
            connections: &mut self.connections,
            views: &mut self.views,
            peers: &mut self.peers,
            follow_ups: &mut self.follow_ups,
        };
        event(&mut self.home, now, &mut ports);
        self.follow_up();
    }

    /// Does what homes and views have decided, until nothing is left. One turn does it for all.
    fn follow_up(&mut self) {
        if std::mem::replace(&mut self.following, true) {
            return;
        }
        loop {
            let follow_ups = std::mem::take(&mut self.follow_ups);
            let wants = self.views.take_wants();
            if follow_ups.is_empty() && wants.is_empty() {
                break;
            }
            for answered in follow_ups.answers {
                self.answered(answered);
            }
            for asked in follow_ups.asked {
                self.call(asked);
            }
            if follow_ups.announce {
                self.announce_all();
            }
            for want in wants {
                self.want(want);
            }
        }
        self.following = false;
        self.rearm();
        for (to, inbox) in self.peers.take_full() {
            self.local(async move |cell: Cell| {
                loop {
                    let Ok(permit) = inbox.reserve().await else { return };
                    drop(permit);
                    if !cell.borrow_mut().space(to) {
                        return;
                    }
                }
            });
        }
    }

    /// Sends what views want of homes.
    pub(super) fn send_wants(&mut self) {
        self.follow_up();
    }

    fn want(&mut self, want: Want) {
        let me = usize::from(self.me);
        match want {
            Want::Need(room, need) => {
                let to = self.home_of(&room);
                if to == me {
                    self.home(|home, now, ports| home.need(now, me, &room, need, ports));
                } else {
                    self.peers.need(to, room, need);
                }
            }
            Want::Ask { room, ask } => {
                let to = self.home_of(&room);
                let page_to = PageTo { shard: me, room, ask };
                if to == me {
                    self.home(|home, _, ports| home.wants_page(page_to, ports));
                } else {
                    self.peers.send(to, ShardMessage::Ask(page_to));
                }
            }
        }
    }

    fn home_of(&self, room: &RoomId) -> usize {
        usize::from(home_of(room.lane(), self.shards))
    }

    /// A publish of a connection of this shard.
    pub(super) fn publish(&mut self, publish: Publish) {
        self.unanswered_bytes += publish.cost();
        self.unanswered += 1;
        self.tally.accepted += 1;
        self.check_unanswered_budget();
        let to = self.home_of(&publish.room);
        if to == usize::from(self.me) {
            self.take_publish(publish);
        } else {
            self.peers.send(to, ShardMessage::Publish(publish));
        }
        self.send_wants();
    }

    fn take_publish(&mut self, publish: Publish) {
        let clock = self.clock();
        self.home(|home, _, ports| home.publish(publish, clock, ports));
    }

    /// Time for lanes: monotonic and wall.
    pub(super) fn clock(&self) -> (std::time::Instant, i64) {
        (tokio::time::Instant::now().into_std(), self.shared.clock.now_ms())
    }

    /// The outcome of a publish of this shard.
    fn answered(&mut self, answered: Answered) {
        let who = answered.publish.link.address;
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(answered.publish.cost());
        self.unanswered = self.unanswered.saturating_sub(1);
        match &answered.outcome {
            Outcome::Stored { .. } | Outcome::Duplicate { .. } => self.tally.completed += 1,
            Outcome::Conflict | Outcome::Refused { .. } => self.tally.rejected += 1,
            Outcome::NotSent => self.tally.retries += 1,
            Outcome::Unknown => self.tally.unknown += 1,
        }
        if self.connections.get(who).is_some() {
            self.connections.with_session(who.slot, |session, out| session.answered(&answered, out));
            self.settle(who);
        }
        self.resume_reading();
    }

    /// A message from another shard.
    pub(super) fn on_peer_message(&mut self, message: ShardMessage) {
        let now = self.now();
        match message {
            ShardMessage::Need(shard, room, need) => {
                self.home(|home, now, ports| home.need(now, shard, &room, need, ports));
            }
            ShardMessage::Publish(publish) => self.take_publish(publish),
            ShardMessage::Ask(to) => self.home(|home, _, ports| home.wants_page(to, ports)),
            ShardMessage::Run(room, run) => self.views.run(&mut self.connections, now, &room, &run),
            ShardMessage::HandOver(room, to) => self.views.hand_over(&mut self.connections, now, &room, to),
            ShardMessage::Answered(answered) => self.answered(answered),
            ShardMessage::Page(to, page) => {
                let at = (&to.room, to.ask.sub, to.ask.number);
                self.views.page(&mut self.connections, now, at, page.as_ref());
            }
            ShardMessage::AnnounceAll => self.home(|home, now, ports| home.announce_all(now, ports)),
        }
        self.send_wants();
    }

    fn announce_all(&mut self) {
        let me = usize::from(self.me);
        for to in (0..usize::from(self.shards)).filter(|to| *to != me) {
            self.peers.send(to, ShardMessage::AnnounceAll);
        }
        self.home(|home, now, ports| home.announce_all(now, ports));
    }

    /// A queue to another shard has space; `true` = wait for more.
    fn space(&mut self, to: usize) -> bool {
        let (owed, more) = self.peers.flush(to);
        for room in owed {
            self.home(|home, now, ports| home.space(now, &room, ports));
        }
        more || self.peers.still_waits(to)
    }

    /// Every accepted publish gets an answer now.
    pub(super) fn give_up(&mut self) {
        self.home(|home, _, ports| home.give_up(ports));
    }

    /// Makes a call on logic; its reply is the home's next event.
    fn call(&mut self, asked: HomeCall) {
        match asked {
            HomeCall::Publish(asked) => self.call_publish(asked),
            HomeCall::Subscribe(asked) => self.call_subscribe(asked),
            HomeCall::Remove(asked) => self.call_remove(asked),
            HomeCall::Heads(asked) => self.call_heads(asked),
            HomeCall::Read(asked) => self.call_read(asked),
        }
    }

    fn call_publish(&mut self, mut asked: PublishCall) {
        let shared = self.shared.clone();
        self.local(async move |cell: Cell| {
            let request = std::mem::take(&mut asked.call.request);
            let reply = shared.calls.publish(asked.lane, request, asked.call.within).await;
            let shard = &mut *cell.borrow_mut();
            shard.check_freeze();
            let clock = shard.clock();
            shard.home(|home, now, ports| home.published(&asked, reply, now, clock, ports));
        });
    }

    fn call_subscribe(&mut self, asked: RoomsCall) {
        let shared = self.shared.clone();
        let rooms: Vec<RoomId> = asked.rooms().cloned().collect();
        self.local(async move |cell: Cell| {
            let reply = shared.calls.subscribe(lane_for(&rooms), &rooms).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.subscribed(now, asked, reply, ports));
        });
    }

    fn call_remove(&mut self, asked: RoomsCall) {
        let shared = self.shared.clone();
        if self.reports.full_set_under_way() {
            // A part of the full set may be adding them: not now.
            self.local(async move |cell: Cell| {
                cell.borrow_mut().home(|home, now, ports| home.removed(now, asked, Some(false), ports));
            });
            return;
        }
        self.local(async move |cell: Cell| {
            let request = StatusRequest {
                instance: shared.me().to_string(),
                draining: shared.upgrades.is_closed(),
                changes: asked.rooms().map(status::uninterested).collect(),
                full: None,
            };
            let reply = shared.calls.report(request, CALL_WITHIN).await;
            let stored = reply.ok().map(|reply| reply.stored);
            cell.borrow_mut().home(|home, now, ports| home.removed(now, asked, stored, ports));
        });
    }

    fn call_heads(&mut self, asked: RoomsCall) {
        let shared = self.shared.clone();
        let rooms: Vec<RoomId> = asked.rooms().cloned().collect();
        self.local(async move |cell: Cell| {
            let reply = shared.calls.heads(lane_for(&rooms), &rooms).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.heads(now, asked, reply, ports));
        });
    }

    fn call_read(&mut self, asked: ReadCall) {
        let shared = self.shared.clone();
        let limit = u32::try_from(PAGE_MESSAGES_MAX).unwrap_or(u32::MAX);
        let range = |range: &crate::home::calls::ReadTarget| ReadRange {
            room: range.room.to_string(),
            after: range.after,
            before: 0,
            limit,
        };
        let request = ReadRequest { ranges: asked.0.iter().map(range).collect() };
        let lane = asked.0.first().map_or(0, |range| range.room.lane());
        self.local(async move |cell: Cell| {
            let reply = shared.calls.read(lane, request).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.read(now, asked, reply, ports));
        });
    }
}

/// Calls about many rooms go where the first one's publishes go.
fn lane_for(rooms: &[RoomId]) -> u8 {
    rooms.first().map_or(0, RoomId::lane)
}
