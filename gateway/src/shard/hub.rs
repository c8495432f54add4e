//! The rooms of a shard that somebody here is subscribed to: drives their views and gives what they want
//! to the connections' queues. What has to leave the shard is collected for the caller.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::wire::codec;

use super::connection::Subscribed;
use super::floor::Floor;
use crate::exchange::Address;
use crate::room::limits::ViewLimits;
use crate::room::link::{HandOver, Ms, Need, Page, Run};
use crate::session::machine::RequestId;
use crate::subscription::{Ask, ConnKey, SubKey, Told};
use crate::view::{self, View};

/// What views want of the rest of the gateway, in order.
#[derive(Debug)]
pub enum Want {
    /// A level for the room's home.
    Need(RoomId, Need),
    /// A page for a subscription of this shard.
    Ask {
        /// Its room.
        room: RoomId,
        /// What is asked.
        ask: Ask,
    },
}

/// The views.
#[derive(Debug)]
pub struct Hub {
    limits: Arc<ViewLimits>,
    views: Slab<Placed>,
    by_room: HashMap<RoomId, u32>,
    number: u64,
    wants: Vec<Want>,
    due: Option<Ms>,
    /// Subscriptions.
    pub subscriptions: usize,
}

#[derive(Debug)]
struct Placed {
    room: RoomId,
    view: View,
}

impl Hub {
    /// A hub without rooms.
    #[must_use]
    pub fn new(limits: Arc<ViewLimits>) -> Self {
        Self {
            limits,
            views: Slab::new(),
            by_room: HashMap::new(),
            number: 0,
            wants: Vec::new(),
            due: None,
            subscriptions: 0,
        }
    }

    /// What was wanted since last asked.
    pub fn take_wants(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.wants)
    }

    /// A connection subscribes; `false` = it is subscribed already.
    pub fn subscribe(
        &mut self,
        floor: &mut Floor,
        who: Address,
        room: RoomId,
        (after, epoch): (Option<Seq>, Option<Epoch>),
        id: RequestId,
    ) -> bool {
        let Some(connection) = floor.get(who) else { return true };
        if connection.subscriptions.get(room.as_str()).is_some() {
            return false;
        }
        let key = match self.by_room.get(&room) {
            Some(key) => *key,
            None => {
                let placed = Placed { room: room.clone(), view: View::new(Arc::clone(&self.limits)) };
                let key = slot(self.views.insert(placed));
                self.by_room.insert(room.clone(), key);
                key
            }
        };
        let Some((placed, mut stand)) = self.stand(floor, key) else { return true };
        let sub = placed.view.sub(who.slot, after, epoch, &mut stand);
        // The name as the room has it: one copy for all.
        let room = placed.room.clone();
        let entry = Subscribed { view: key, sub, id: RefCell::new(id) };
        if let Some(connection) = floor.get(who)
            && connection.subscriptions.insert(room, entry).is_ok()
        {
            self.subscriptions += 1;
        }
        true
    }

    /// A subscription ends; `false` = there was none.
    pub fn unsubscribe(&mut self, floor: &mut Floor, who: Address, room: &str) -> bool {
        let entry = floor.get(who).and_then(|connection| connection.subscriptions.remove(room));
        let Some(entry) = entry else { return false };
        self.subscriptions -= 1;
        let Some((placed, mut stand)) = self.stand(floor, entry.view) else { return true };
        if placed.view.unsub(entry.sub, &mut stand) {
            let placed = self.views.remove(entry.view as usize);
            self.by_room.remove(&placed.room);
            if self.views.is_empty() {
                self.views.shrink_to_fit();
                self.by_room.shrink_to_fit();
            }
        }
        true
    }

    /// The next messages of a room from its home.
    pub fn run(&mut self, floor: &mut Floor, now: Ms, room: &RoomId, run: &Run) {
        self.with(floor, room, |view, stand| {
            stand.joined = join(run, view.live_len());
            view.run(now, run, stand);
        });
    }

    /// Where a room stands, from its home.
    pub fn hand_over(&mut self, floor: &mut Floor, now: Ms, room: &RoomId, to: HandOver) {
        self.with(floor, room, |view, stand| view.hand_over(now, to, stand));
    }

    /// The answer to an ask, `None` if it failed.
    pub fn page(
        &mut self,
        floor: &mut Floor,
        now: Ms,
        (room, sub, number): (&RoomId, SubKey, u64),
        page: Option<&Page>,
    ) {
        self.with(floor, room, |view, stand| match page {
            Some(page) => view.page(now, sub, number, page, stand),
            None => view.page_failed(now, sub, number, stand),
        });
    }

    /// A connection's queue has shrunk: its subscriptions may go on.
    pub fn advance(&mut self, floor: &mut Floor, now: Ms, conn: ConnKey) {
        let Some(connection) = floor.at(conn) else { return };
        let places: Vec<(u32, SubKey)> =
            connection.subscriptions.rotate().map(|(_, entry)| (entry.view, entry.sub)).collect();
        for (key, sub) in places {
            if let Some((placed, mut stand)) = self.stand(floor, key) {
                placed.view.advance(now, sub, &mut stand);
            }
        }
        self.look_at_deadlines(None);
    }

    /// When [`Hub::on_tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ms> {
        self.due
    }

    /// Time has passed.
    pub fn on_tick(&mut self, floor: &mut Floor, now: Ms) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        let keys: Vec<u32> = self.views.iter().map(|(key, _)| slot(key)).collect();
        for key in keys {
            if let Some((placed, mut stand)) = self.stand(floor, key) {
                placed.view.on_tick(now, &mut stand);
                let next = placed.view.next_deadline();
                self.look_at_deadlines(next);
            }
        }
    }

    fn with(&mut self, floor: &mut Floor, room: &RoomId, act: impl FnOnce(&mut View, &mut Stand<'_>)) {
        let Some(key) = self.by_room.get(room).copied() else { return };
        let Some((placed, mut stand)) = self.stand(floor, key) else { return };
        act(&mut placed.view, &mut stand);
        let next = placed.view.next_deadline();
        self.look_at_deadlines(next);
    }

    /// A view and what it acts upon.
    fn stand<'a>(&'a mut self, floor: &'a mut Floor, key: u32) -> Option<(&'a mut Placed, Stand<'a>)> {
        let Placed { room, .. } = self.views.get(key as usize)?;
        let room = room.clone();
        let placed = self.views.get_mut(key as usize)?;
        let stand =
            Stand { floor, room, current: 0, joined: None, number: &mut self.number, wants: &mut self.wants };
        Some((placed, stand))
    }

    fn look_at_deadlines(&mut self, next: Option<Ms>) {
        self.due = [self.due, next].into_iter().flatten().min();
    }
}

/// What one view acts upon during one event.
struct Stand<'a> {
    floor: &'a mut Floor,
    room: RoomId,
    current: ConnKey,
    /// The messages of a run in one piece.
    joined: Option<Bytes>,
    number: &'a mut u64,
    wants: &'a mut Vec<Want>,
}

impl view::Outbound for Stand<'_> {
    fn level(&self) -> usize {
        let connection = self.floor.connections.get(self.current as usize);
        connection.map_or(usize::MAX, |connection| connection.outbound.bytes())
    }

    fn append(&mut self, frame: &Bytes) {
        self.floor.delivered += 1;
        self.floor.append(self.current, frame.clone());
    }

    fn append_run(&mut self, run: &Run) {
        self.floor.delivered += run.frames.len() as u64;
        match &self.joined {
            Some(joined) => self.floor.append(self.current, joined.clone()),
            None => run.frames.iter().for_each(|frame| self.floor.append(self.current, frame.bytes.clone())),
        }
    }
}

/// A burst is joined once for all who get it; for a single one it would only be a copy more.
fn join(run: &Run, subscribers: usize) -> Option<Bytes> {
    if run.frames.len() < 2 || subscribers < 2 {
        return None;
    }
    let mut joined = Vec::with_capacity(run.frames.iter().map(|frame| frame.bytes.len()).sum());
    run.frames.iter().for_each(|frame| joined.extend_from_slice(&frame.bytes));
    Some(joined.into())
}

impl view::Shard for Stand<'_> {
    type Out = Self;

    fn outbound(&mut self, conn: ConnKey) -> &mut Self {
        self.current = conn;
        self
    }

    fn number(&mut self) -> u64 {
        *self.number += 1;
        *self.number
    }

    fn tell(&mut self, conn: ConnKey, _sub: SubKey, told: Told) {
        let room = &self.room;
        match told {
            Told::Ok { after, head, epoch, recovered, solicited } => {
                let entry = self.floor.at(conn).and_then(|at| at.subscriptions.get(room.as_str()));
                let id = entry.filter(|_| solicited).and_then(|entry| entry.id.take());
                let at = codec::Subscribed { after, head, epoch, recovered };
                self.floor.text(conn, |out| codec::ok_sub(out, room, &at, id.as_deref()));
            }
            Told::Skipped { from, to } => {
                self.floor.text(conn, |out| codec::skipped(out, room, from, to));
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.wants.push(Want::Ask { room: self.room.clone(), ask });
    }

    fn need(&mut self, need: Need) {
        self.wants.push(Want::Need(self.room.clone(), need));
    }

    fn behind(&mut self, conn: ConnKey, began: bool) {
        if let Some(connection) = self.floor.at(conn) {
            let change = if began { 1 } else { -1 };
            connection.behind = connection.behind.saturating_add_signed(change);
        }
    }
}

/// Slots fit: a shard has far fewer than 2³² of anything.
#[expect(clippy::cast_possible_truncation, reason = "bounded by connections times rooms")]
fn slot(index: usize) -> u32 {
    index as u32
}
