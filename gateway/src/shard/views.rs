//! The rooms of a shard that somebody here is subscribed to: drives their views and gives what they want
//! to the connections' queues. What has to leave the shard is collected for the caller.

mod joined;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use slab::Slab;
use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::wire::codec;

use self::joined::{Joined, join};
use super::connection::SubscriptionEntry;
use super::connections::Connections;
use super::deliveries::Deliveries;
use super::watchers::{RoomTelling, Watchers};
use crate::address::Address;
use crate::defaults::ROOMS_PER_TURN;
use crate::room::limits::ViewLimits;
use crate::room::link::{Frame, HandOver, Ms, Need, Page, Run};
use crate::session::event::{self, Note};
use crate::session::todo::RequestId;
use crate::subscription::{AlreadySubscribed, Ask, ConnKey, SubFrame, SubKey};
use crate::view::{self, View};

/// What views want of the rest of the gateway, in order.
#[derive(Debug)]
pub enum Want {
    /// A level for the room's home.
    Need {
        /// The room.
        room: RoomId,
        /// The level.
        need: Need,
        /// The connection that caused it.
        by: Option<Address>,
    },
    /// A subscription has its answer: its user is in the room.
    Joined(Address, RoomId),
    /// A page for a subscription of this shard.
    Ask {
        /// The room of the subscription.
        room: RoomId,
        /// What the subscription asks for.
        ask: Ask,
    },
}

/// The views of a shard, by room.
#[derive(Debug)]
pub struct Views {
    limits: Arc<ViewLimits>,
    /// Boxed, so that the table stays small while it grows.
    by_key: Slab<Box<RoomView>>,
    by_room: HashMap<RoomId, u32>,
    number: u64,
    wants: Vec<Want>,
    /// Views by the time they want to be looked at; an entry that is no longer true is passed over.
    due: BinaryHeap<Reverse<(Ms, u32)>>,
    watchers: Watchers,
    deliveries: Deliveries,
    /// How many subscriptions there are.
    pub subscriptions: usize,
}

#[derive(Debug)]
struct RoomView {
    room: RoomId,
    view: View,
    /// The deadline that stands in the heap.
    due: Option<Ms>,
}

impl Views {
    /// A shard without rooms.
    #[must_use]
    pub fn new(limits: Arc<ViewLimits>) -> Self {
        Self {
            limits,
            by_key: Slab::new(),
            by_room: HashMap::new(),
            number: 0,
            wants: Vec::new(),
            due: BinaryHeap::new(),
            watchers: Watchers::default(),
            deliveries: Deliveries::default(),
            subscriptions: 0,
        }
    }

    /// What was wanted since last asked.
    pub fn take_wants(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.wants)
    }

    /// What subscribers got, and were told, since last asked.
    pub fn deliveries(&mut self) -> &mut Deliveries {
        &mut self.deliveries
    }

    /// A connection subscribes; says whether it is the first in this room here.
    ///
    /// # Errors
    /// It is subscribed already.
    pub fn subscribe(
        &mut self,
        connections: &mut Connections,
        who: Address,
        room: RoomId,
        (after, epoch): (Option<Seq>, Option<Epoch>),
        (watches, id): (bool, RequestId),
    ) -> Result<bool, AlreadySubscribed> {
        // Gone within this very turn: nobody is left to be told that it was a second time.
        let Some(connection) = connections.get(who) else { return Ok(false) };
        if connection.subscriptions.get(room.as_str()).is_some() {
            return Err(AlreadySubscribed);
        }
        let known = self.by_room.get(&room).copied();
        let key = match known {
            Some(key) => key,
            None => {
                let room_view =
                    RoomView { room: room.clone(), view: View::new(Arc::clone(&self.limits)), due: None };
                let key = slot(self.by_key.insert(Box::new(room_view)));
                self.by_room.insert(room.clone(), key);
                key
            }
        };
        let Some((room_view, mut ports)) = self.lend(connections, key) else { return Ok(false) };
        ports.by = Some(who);
        let sub = room_view.view.sub(who.slot, after, epoch, &mut ports);
        // The name as the room has it: one copy for all.
        let room = room_view.room.clone();
        let (id, joined) = (Cell::new(id), Cell::new(false));
        let entry = SubscriptionEntry { view: key, sub, id, joined, watches };
        if let Some(connection) = connections.get(who)
            && connection.subscriptions.insert(room, entry).is_ok()
        {
            connection.subs_pending += 1;
            self.subscriptions += 1;
        }
        Ok(known.is_none())
    }

    /// A subscription ends: whether it had been answered; `None` = there was none.
    pub fn unsubscribe(&mut self, connections: &mut Connections, who: Address, room: &str) -> Option<bool> {
        let entry = connections.get(who)?.subscriptions.remove(room)?;
        let was_last = self.leave(connections, &entry, who, Some(who));
        if let Some(connection) = connections.get(who) {
            connection.subs_pending -= u16::from(!entry.joined.get());
            // Until the home says that nothing of it is left to be done.
            connection.rooms_leaving += u16::from(was_last);
        }
        Some(entry.joined.get())
    }

    /// A subscription of `who` that was taken out of its connection's table leaves its view: whether it was the last
    /// one there. `by` is who is to be told when that is carried out.
    pub fn leave(
        &mut self,
        connections: &mut Connections,
        entry: &SubscriptionEntry,
        who: Address,
        by: Option<Address>,
    ) -> bool {
        self.subscriptions -= 1;
        if entry.watches {
            self.watchers.remove(entry.view, who.slot);
        }
        let Some((room_view, mut ports)) = self.lend(connections, entry.view) else { return false };
        ports.by = by;
        let was_last = room_view.view.unsub(entry.sub, &mut ports);
        if was_last {
            let room_view = self.by_key.remove(entry.view as usize);
            self.by_room.remove(&room_view.room);
            // The last of a crowd: its places in the tables go back.
            if self.by_key.is_empty() {
                self.by_key.shrink_to_fit();
                self.by_room.shrink_to_fit();
            }
        }
        was_last
    }

    /// The `sub` of a connection is answered: whether it watches the room, which begins with this.
    pub fn joined(&mut self, connections: &mut Connections, who: Address, room: &RoomId) -> bool {
        let Some(view) = watched_view(connections, who, room) else { return false };
        self.watchers.add(view, room, who.slot);
        true
    }

    /// A connection asks who is in a room: whether it watches it. From here on it is told again.
    pub fn asked(&mut self, connections: &mut Connections, who: Address, room: &RoomId) -> bool {
        let Some(view) = watched_view(connections, who, room) else { return false };
        self.watchers.asked(view, who.slot);
        true
    }

    /// Tells the watchers of rooms what happened there.
    pub fn tell(&mut self, connections: &mut Connections, tellings: &[RoomTelling]) {
        for telling in tellings {
            if let Some(view) = self.by_room.get(telling.room()).copied() {
                self.watchers.tell(connections, view, telling);
            }
        }
    }

    /// All who watch anything may have missed something.
    pub fn all_stale(&mut self) {
        self.watchers.all_stale();
    }

    /// The next messages of a room from its home.
    pub fn run(&mut self, connections: &mut Connections, now: Ms, room: &RoomId, run: &Run) {
        self.with(connections, room, |view, ports| {
            // By those who get it at once: whoever catches up takes messages one by one.
            ports.joined.wanted = run.frames.len() > 1 && view.live_len() > 1;
            view.run(now, run, ports);
            // Who catches up reads the past at its own pace, which says nothing of ours.
            if view.live_len() > 0 {
                ports.deliveries.passed(run);
            }
        });
    }

    /// Where a room stands, from its home.
    pub fn hand_over(&mut self, connections: &mut Connections, now: Ms, room: &RoomId, to: HandOver) {
        self.with(connections, room, |view, ports| view.hand_over(now, to, ports));
    }

    /// The answer to an ask, `None` if it failed.
    pub fn page(
        &mut self,
        connections: &mut Connections,
        now: Ms,
        (room, sub, number): (&RoomId, SubKey, u64),
        page: Option<&Page>,
    ) {
        self.with(connections, room, |view, ports| match page {
            Some(page) => view.page(now, sub, number, page, ports),
            None => view.page_failed(now, sub, number, ports),
        });
    }

    /// Where a subscription stands, for who resumes it elsewhere.
    #[must_use]
    pub fn position(&self, entry: &SubscriptionEntry) -> (Option<Epoch>, Option<Seq>) {
        self.by_key
            .get(entry.view as usize)
            .map_or((None, None), |room_view| room_view.view.position(entry.sub))
    }

    /// A connection's queue has shrunk: its subscriptions may go on.
    pub fn advance(&mut self, connections: &mut Connections, now: Ms, conn: ConnKey) {
        let Some(connection) = connections.at(conn) else { return };
        // Listed first: each view writes to the connection that owns the list.
        let places: Vec<(u32, SubKey)> =
            connection.subscriptions.rotate().map(|(_, entry)| (entry.view, entry.sub)).collect();
        for (key, sub) in places {
            if let Some((room_view, mut ports)) = self.lend(connections, key) {
                room_view.view.advance(now, sub, &mut ports);
            }
            self.note_due(key);
        }
    }

    /// When [`Views::on_tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ms> {
        let stale = self.watchers.has_stale().then_some(0);
        stale.or_else(|| self.due.peek().map(|Reverse((due, _))| *due))
    }

    /// Does what is due in each view. `true` = more views are due than one turn looks at.
    pub fn on_tick(&mut self, connections: &mut Connections, now: Ms) -> bool {
        for _ in 0..ROOMS_PER_TURN {
            let Some(first) = self.due.peek_mut().filter(|first| first.0.0 <= now) else { break };
            let Reverse((due, key)) = PeekMut::pop(first);
            let Some((room_view, mut ports)) = self.lend(connections, key) else { continue };
            // An older entry of this view: a nearer one was put in later and has had its turn.
            if room_view.due.take_if(|at| *at == due).is_some() {
                room_view.view.on_tick(now, &mut ports);
                self.note_due(key);
            }
        }
        self.watchers.tell_stale(connections);
        self.next_deadline().is_some_and(|due| due <= now)
    }

    fn with(
        &mut self,
        connections: &mut Connections,
        room: &RoomId,
        act: impl FnOnce(&mut View, &mut ViewPorts<'_>),
    ) {
        let Some(key) = self.by_room.get(room).copied() else { return };
        let Some((room_view, mut ports)) = self.lend(connections, key) else { return };
        act(&mut room_view.view, &mut ports);
        self.note_due(key);
    }

    /// A view and what it acts upon.
    fn lend<'a>(
        &'a mut self,
        connections: &'a mut Connections,
        key: u32,
    ) -> Option<(&'a mut RoomView, ViewPorts<'a>)> {
        let room = self.by_key.get(key as usize)?.room.clone();
        let room_view = self.by_key.get_mut(key as usize)?;
        let ports = ViewPorts {
            connections,
            room,
            current: 0,
            by: None,
            joined: Joined::default(),
            number: &mut self.number,
            wants: &mut self.wants,
            deliveries: &mut self.deliveries,
        };
        Some((room_view, ports))
    }

    /// Sees to it that a view is looked at when it wants.
    fn note_due(&mut self, key: u32) {
        if let Some(room_view) = self.by_key.get_mut(key as usize)
            && let Some(next) = room_view.view.next_deadline()
            && room_view.due.is_none_or(|due| next < due)
        {
            room_view.due = Some(next);
            // The older entry stays: to look for it would cost more than to pass over it when it comes.
            self.due.push(Reverse((next, key)));
        }
    }
}

/// The view of a room that a connection watches.
fn watched_view(connections: &mut Connections, who: Address, room: &RoomId) -> Option<u32> {
    let entry = connections.get(who)?.subscriptions.get(room.as_str())?;
    (entry.watches && entry.joined.get()).then_some(entry.view)
}

/// What one view acts upon during one event.
struct ViewPorts<'a> {
    connections: &'a mut Connections,
    room: RoomId,
    current: ConnKey,
    /// The connection that subscribes or leaves.
    by: Option<Address>,
    joined: Joined,
    number: &'a mut u64,
    wants: &'a mut Vec<Want>,
    deliveries: &'a mut Deliveries,
}

impl view::SubscriberQueue for ViewPorts<'_> {
    fn level(&self) -> usize {
        self.connections.queued_for(self.current)
    }

    fn append(&mut self, epoch: Epoch, frame: &Frame) {
        match self.transport() {
            Transport::WebSocket => {
                self.connections.delivered(1);
                self.connections.append(self.current, frame.bytes.clone());
            }
            Transport::Events { several } => {
                self.connections.delivered_events(1);
                let message = frame.event(epoch);
                let event = if several { event::without_id(&message) } else { message };
                self.connections.append(self.current, event);
            }
        }
    }

    fn append_run(&mut self, run: &Run) {
        let joined = match self.transport() {
            _ if !self.joined.wanted => None,
            Transport::WebSocket => {
                let frames = || join(run.frames.iter().map(|frame| frame.bytes.clone()));
                Some(self.joined.frames.get_or_insert_with(frames).clone())
            }
            Transport::Events { several: false } => {
                let events = || join(run.frames.iter().map(|frame| frame.event(run.epoch)));
                Some(self.joined.events.get_or_insert_with(events).clone())
            }
            // They share the messages, but not the ids between them.
            Transport::Events { several: true } => None,
        };
        let Some(joined) = joined else {
            return run.frames.iter().for_each(|frame| self.append(run.epoch, frame));
        };
        match self.transport() {
            Transport::WebSocket => self.connections.delivered(run.frames.len()),
            Transport::Events { .. } => self.connections.delivered_events(run.frames.len()),
        }
        self.connections.append(self.current, joined);
    }
}

/// How a connection is written to.
#[derive(Debug, Clone, Copy)]
enum Transport {
    WebSocket,
    Events { several: bool },
}

impl ViewPorts<'_> {
    /// How the current connection is written to; a reader of several rooms is told where it stands afterwards.
    fn transport(&mut self) -> Transport {
        let events = self.connections.at(self.current).and_then(|connection| connection.events.as_mut());
        events.map_or(Transport::WebSocket, |events| Transport::Events { several: events.reads_several() })
    }

    /// A `sub` has its answer: the connection may have one more waiting, and its user is in the room.
    fn joined(&mut self, conn: ConnKey) {
        let Some(connection) = self.connections.at(conn) else { return };
        let Some(entry) = connection.subscriptions.get(self.room.as_str()) else { return };
        if !entry.joined.replace(true) {
            connection.subs_pending -= 1;
            self.wants.push(Want::Joined(connection.address(), self.room.clone()));
        }
    }
}

impl view::ViewOutput for ViewPorts<'_> {
    type Out = Self;

    fn outbound(&mut self, conn: ConnKey) -> &mut Self {
        self.current = conn;
        self
    }

    fn number(&mut self) -> u64 {
        *self.number += 1;
        *self.number
    }

    fn tell(&mut self, conn: ConnKey, _sub: SubKey, told: SubFrame) {
        let room = self.room.clone();
        match told {
            SubFrame::Ok { after, head, epoch, recovered, resumed, solicited } => {
                if resumed {
                    self.deliveries.resumed(recovered);
                }
                let entry = self.connections.at(conn).and_then(|at| at.subscriptions.get(room.as_str()));
                // Taken: an `ok` that comes later by itself (another epoch) must not look like an answer.
                let id = entry.filter(|_| solicited).and_then(|entry| entry.id.take());
                if solicited {
                    self.joined(conn);
                }
                let at = codec::Subscribed { after, head, epoch, recovered };
                let note = Note { id: Some((epoch, after)), retry_ms: None };
                self.connections.noted(conn, note, |out| codec::ok_sub(out, &room, &at, id.as_deref()));
            }
            SubFrame::Skipped { epoch, from, to } => {
                self.deliveries.skipped(from, to);
                let note = Note { id: Some((epoch, to)), retry_ms: None };
                self.connections.noted(conn, note, |out| codec::skipped(out, &room, from, to));
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.wants.push(Want::Ask { room: self.room.clone(), ask });
    }

    fn need(&mut self, need: Need) {
        self.wants.push(Want::Need { room: self.room.clone(), need, by: self.by });
    }

    fn behind(&mut self, conn: ConnKey, began: bool) {
        self.deliveries.behind(began);
        if let Some(connection) = self.connections.at(conn) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_with_one_subscriber_stays_small() {
        let size = size_of::<RoomView>();
        assert!(size <= 224, "{size}: the next class of the allocator, for each room of each shard");
    }
}
