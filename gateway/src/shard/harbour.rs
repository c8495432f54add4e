//! The home half of a shard at work: lends it its ports, makes the calls it asks for, and brings letters
//! between homes and views. Decides nothing about rooms.

use sluice_proto::grpc::{ReadRange, ReadRequest, StatusRequest};
use sluice_proto::ids::RoomId;
use sluice_proto::limits::PAGE_MESSAGES_MAX;

use super::floor::Floor;
use super::hub::{Hub, Want};
use super::post::{Letter, Post};
use super::{Cell, Shard};
use crate::defaults::CALL_WITHIN;
use crate::exchange::home_of;
use crate::home::asked::{Asked, PublishAsked, ReadAsked, RoomsAsked};
use crate::home::{Home, PageTo, Ports};
use crate::room::link::{HandOver, Ms, Page, Run, ShardId};
use crate::status;
use crate::uplink::{Answered, Outcome, Publish};

/// What a home decided and the shard has yet to do.
#[derive(Debug, Default)]
pub(super) struct Later {
    asked: Vec<Asked>,
    answers: Vec<Answered>,
    announce: bool,
}

impl Later {
    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.answers.is_empty() && !self.announce
    }
}

/// The ports of a home during one event.
pub(super) struct Harbour<'a> {
    me: ShardId,
    now: Ms,
    floor: &'a mut Floor,
    hub: &'a mut Hub,
    post: &'a mut Post,
    later: &'a mut Later,
}

impl Ports for Harbour<'_> {
    fn run(&mut self, shard: ShardId, room: &RoomId, run: &Run) -> bool {
        if shard != self.me {
            return self.post.run(shard, room, run);
        }
        self.hub.run(self.floor, self.now, room, run);
        true
    }

    fn hand_over(&mut self, shard: ShardId, room: &RoomId, hand_over: HandOver) -> bool {
        if shard != self.me {
            return self.post.hand_over(shard, room, hand_over);
        }
        self.hub.hand_over(self.floor, self.now, room, hand_over);
        true
    }

    fn answer(&mut self, answered: Answered) {
        let shard = usize::from(answered.publish.link.address.shard);
        if shard == self.me {
            self.later.answers.push(answered);
        } else {
            self.post.send(shard, Letter::Answered(answered));
        }
    }

    fn page(&mut self, to: PageTo, page: Option<Page>) {
        if to.shard == self.me {
            let ask = &to.ask;
            self.hub.page(self.floor, self.now, (&to.room, ask.sub, ask.number), page.as_ref());
        } else {
            self.post.send(to.shard, Letter::Page(to, page));
        }
    }

    fn ask(&mut self, asked: Asked) {
        self.later.asked.push(asked);
    }

    fn announce_all(&mut self) {
        self.later.announce = true;
    }
}

impl Shard {
    /// Gives the home an event and does what follows from it.
    pub(super) fn home(&mut self, event: impl FnOnce(&mut Home, Ms, &mut Harbour<'_>)) {
        let now = self.now();
        let mut harbour = Harbour {
            me: usize::from(self.me),
            now,
            floor: &mut self.floor,
            hub: &mut self.hub,
            post: &mut self.post,
            later: &mut self.later,
        };
        event(&mut self.home, now, &mut harbour);
        self.follow_up();
    }

    /// Does what homes and views have decided, until nothing is left. One turn does it for all.
    fn follow_up(&mut self) {
        if std::mem::replace(&mut self.following, true) {
            return;
        }
        loop {
            let later = std::mem::take(&mut self.later);
            let wants = self.hub.take_wants();
            if later.is_empty() && wants.is_empty() {
                break;
            }
            for answered in later.answers {
                self.answered(answered);
            }
            for asked in later.asked {
                self.call(asked);
            }
            if later.announce {
                self.announce_all();
            }
            for want in wants {
                self.want(want);
            }
        }
        self.following = false;
        self.rearm();
        for (to, inbox) in self.post.take_full() {
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
                    self.post.need(to, room, need);
                }
            }
            Want::Ask { room, ask } => {
                let to = self.home_of(&room);
                let page_to = PageTo { shard: me, room, ask };
                if to == me {
                    self.home(|home, _, ports| home.wants_page(page_to, ports));
                } else {
                    self.post.send(to, Letter::Ask(page_to));
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
        self.look_whether_starved();
        let to = self.home_of(&publish.room);
        if to == usize::from(self.me) {
            self.take_publish(publish);
        } else {
            self.post.send(to, Letter::Publish(publish));
        }
        self.send_wants();
    }

    fn take_publish(&mut self, publish: Publish) {
        let clock = self.clock();
        self.home(|home, _, ports| home.publish(publish, clock, ports));
    }

    /// Time for lanes: monotonic and wall.
    pub(super) fn clock(&self) -> (std::time::Instant, i64) {
        (tokio::time::Instant::now().into_std(), self.around.clock.now_ms())
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
        if self.floor.get(who).is_some() {
            self.floor.with_session(who.slot, |session, out| session.answered(&answered, out));
            self.settle(who);
        }
        self.feed_the_starved();
    }

    /// A letter from another shard.
    pub(super) fn take_letter(&mut self, letter: Letter) {
        let now = self.now();
        match letter {
            Letter::Need(shard, room, need) => {
                self.home(|home, now, ports| home.need(now, shard, &room, need, ports));
            }
            Letter::Publish(publish) => self.take_publish(publish),
            Letter::Ask(to) => self.home(|home, _, ports| home.wants_page(to, ports)),
            Letter::Run(room, run) => self.hub.run(&mut self.floor, now, &room, &run),
            Letter::HandOver(room, to) => self.hub.hand_over(&mut self.floor, now, &room, to),
            Letter::Answered(answered) => self.answered(answered),
            Letter::Page(to, page) => {
                let at = (&to.room, to.ask.sub, to.ask.number);
                self.hub.page(&mut self.floor, now, at, page.as_ref());
            }
            Letter::AnnounceAll => self.home(|home, now, ports| home.announce_all(now, ports)),
        }
        self.send_wants();
    }

    fn announce_all(&mut self) {
        let me = usize::from(self.me);
        for to in (0..usize::from(self.shards)).filter(|to| *to != me) {
            self.post.send(to, Letter::AnnounceAll);
        }
        self.home(|home, now, ports| home.announce_all(now, ports));
    }

    /// A queue to another shard has space; `true` = wait for more.
    fn space(&mut self, to: usize) -> bool {
        let (owed, more) = self.post.clear(to);
        for room in owed {
            self.home(|home, now, ports| home.space(now, &room, ports));
        }
        more || self.post.still_waits(to)
    }

    /// Every accepted publish gets an answer now.
    pub(super) fn give_up(&mut self) {
        self.home(|home, _, ports| home.give_up(ports));
    }

    /// Makes a call on logic; its reply is the home's next event.
    fn call(&mut self, asked: Asked) {
        match asked {
            Asked::Publish(asked) => self.call_publish(asked),
            Asked::Subscribe(asked) => self.call_subscribe(asked),
            Asked::Remove(asked) => self.call_remove(asked),
            Asked::Heads(asked) => self.call_heads(asked),
            Asked::Read(asked) => self.call_read(asked),
        }
    }

    fn call_publish(&mut self, mut asked: PublishAsked) {
        let around = self.around.clone();
        self.local(async move |cell: Cell| {
            let request = std::mem::take(&mut asked.call.request);
            let reply = around.calls.publish(asked.lane, request, asked.call.within).await;
            let shard = &mut *cell.borrow_mut();
            shard.look_at_clock();
            let clock = shard.clock();
            shard.home(|home, now, ports| home.published(&asked, reply, now, clock, ports));
        });
    }

    fn call_subscribe(&mut self, asked: RoomsAsked) {
        let around = self.around.clone();
        let rooms: Vec<RoomId> = asked.rooms().cloned().collect();
        self.local(async move |cell: Cell| {
            let reply = around.calls.subscribe(lane_for(&rooms), &rooms).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.subscribed(now, asked, reply, ports));
        });
    }

    fn call_remove(&mut self, asked: RoomsAsked) {
        let around = self.around.clone();
        if self.reports.is_telling() {
            // A part of the full set may be adding them: not now.
            self.local(async move |cell: Cell| {
                cell.borrow_mut().home(|home, now, ports| home.removed(now, asked, Some(false), ports));
            });
            return;
        }
        self.local(async move |cell: Cell| {
            let request = StatusRequest {
                instance: around.me().to_string(),
                draining: around.entrance.is_closed(),
                changes: asked.rooms().map(status::uninterested).collect(),
                full: None,
            };
            let reply = around.calls.report(request, CALL_WITHIN).await;
            let stored = reply.ok().map(|reply| reply.stored);
            cell.borrow_mut().home(|home, now, ports| home.removed(now, asked, stored, ports));
        });
    }

    fn call_heads(&mut self, asked: RoomsAsked) {
        let around = self.around.clone();
        let rooms: Vec<RoomId> = asked.rooms().cloned().collect();
        self.local(async move |cell: Cell| {
            let reply = around.calls.heads(lane_for(&rooms), &rooms).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.heads(now, asked, reply, ports));
        });
    }

    fn call_read(&mut self, asked: ReadAsked) {
        let around = self.around.clone();
        let limit = u32::try_from(PAGE_MESSAGES_MAX).unwrap_or(u32::MAX);
        let range = |range: &crate::home::asked::RangeAsked| ReadRange {
            room: range.room.to_string(),
            after: range.after,
            before: 0,
            limit,
        };
        let request = ReadRequest { ranges: asked.0.iter().map(range).collect() };
        let lane = asked.0.first().map_or(0, |range| range.room.lane());
        self.local(async move |cell: Cell| {
            let reply = around.calls.read(lane, request).await.ok();
            cell.borrow_mut().home(|home, now, ports| home.read(now, asked, reply, ports));
        });
    }
}

/// Calls about many rooms go where the first one's publishes go.
fn lane_for(rooms: &[RoomId]) -> u8 {
    rooms.first().map_or(0, RoomId::lane)
}
