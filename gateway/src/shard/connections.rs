//! The connections of a shard and the way bytes get to their sockets.
//!
//! Whatever happens in one turn of the loop is appended to queues; at the end of the turn each connection
//! that got something is written to once. No allocation, wake-up or channel per message and connection.

mod transport;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use mio::net::TcpStream;
use slab::Slab;
use tokio::sync::Notify;

pub use self::transport::FrameSink;
use super::connection::{Connection, ConnectionPhase, Deadlines};
use super::wheel::{Wheel, WheelEntry};
use crate::address::{Address, ShardIx};
use crate::session::event::Note;
use crate::session::machine::{Session, Sink};
use crate::session::outbound::{Flushed, Outbound, Spare};
use crate::tick::{NEVER, Tick};

/// The connections of a shard, with their deadlines.
#[derive(Debug)]
pub struct Connections {
    me: ShardIx,
    /// Connections by slot. Boxed, so that the memory of many that left goes back.
    by_slot: Slab<Box<Connection>>,
    generation: u32,
    /// Their deadlines, and those that have come and not had their turn.
    wheel: Wheel,
    due: VecDeque<WheelEntry>,
    timeouts: Timeouts,
    spare: Spare,
    encode: Vec<u8>,
    dirty: VecDeque<u32>,
    writer: Option<Waker>,
    /// Connections to be looked at, each once: their sockets are ready, or they may be read again.
    ready: VecDeque<Address>,
    /// Told when there is one and nobody looks.
    wanted: Rc<Notify>,
    looked_at: bool,
    /// Who was turned away first since the shard had too much unanswered: where reading goes on.
    turned_away: Option<u32>,
    /// Bytes that wait for all sockets.
    queued: usize,
    /// Messages appended, and bytes written, since last asked.
    delivered: u64,
    written: u64,
    /// Of those messages the ones for readers of events.
    events: u64,
    /// Connections that read events.
    event_streams: usize,
}

/// What every connection of a shard is granted.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Ticks a socket may take no byte.
    pub slow: Tick,
    /// Ticks between pings.
    pub ping_every: Tick,
    /// Ticks for the answer to a ping.
    pub ping_within: Tick,
}

/// What a flush means for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As far as it goes for now.
    Some,
    /// Nothing waits any more.
    All,
    /// The socket is broken.
    Broken,
}

impl Connections {
    /// A shard without connections.
    #[must_use]
    pub fn new(me: ShardIx, timeouts: Timeouts, wanted: Rc<Notify>) -> Self {
        Self {
            me,
            by_slot: Slab::new(),
            generation: 0,
            wheel: Wheel::default(),
            due: VecDeque::new(),
            timeouts,
            spare: Spare::default(),
            encode: Vec::with_capacity(1024),
            dirty: VecDeque::new(),
            writer: None,
            ready: VecDeque::new(),
            wanted,
            looked_at: false,
            turned_away: None,
            queued: 0,
            delivered: 0,
            written: 0,
            events: 0,
            event_streams: 0,
        }
    }

    /// Takes in a connection that knows its address from `make`.
    pub fn insert(&mut self, make: impl FnOnce(Address, Deadlines) -> Connection) -> Address {
        // A slot is used again: what is still on its way to the one before must not reach this one.
        self.generation = self.generation.wrapping_add(1);
        let (now, every) = (self.wheel.now(), self.timeouts.ping_every);
        // A crowd that came together is not pinged together.
        let first_ping = now.saturating_add(every / 2 + rand::random_range(0..=every / 2));
        let entry = self.by_slot.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let who = Address { shard: self.me, slot, generation: self.generation };
        let connection = make(who, Deadlines::new(now, first_ping));
        self.event_streams += usize::from(connection.events.is_some());
        entry.insert(Box::new(connection));
        who
    }

    /// The current tick.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.wheel.now()
    }

    /// What every connection is granted.
    #[must_use]
    pub const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// All, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.by_slot.iter().map(|(_, connection)| &**connection)
    }

    /// The first connection at `slot` or above, and its slot.
    #[must_use]
    pub fn from_slot(&self, slot: usize) -> Option<(usize, &Connection)> {
        (slot..self.by_slot.capacity()).find_map(|at| Some((at, &**self.by_slot.get(at)?)))
    }

    /// Does not read from a connection until it may be read again.
    pub fn pause(&mut self, slot: u32, over_budget: bool) {
        let Some(connection) = self.at(slot) else { return };
        connection.paused = true;
        if over_budget {
            self.turned_away.get_or_insert(slot);
        }
    }

    /// Has all look again whether they may read. Who was turned away first is the first: from the lowest slot each time,
    /// those of the high ones would never have their turn.
    pub fn resume_all(&mut self) {
        let slots = self.by_slot.capacity();
        let first = self.turned_away.take().map_or(0, |slot| slot as usize).min(slots);
        for slot in (first..slots).chain(0..first) {
            self.resume(u32::try_from(slot).unwrap_or(u32::MAX), false);
        }
    }

    /// Has a connection looked at if it may be read now and could not before.
    pub fn resume(&mut self, slot: u32, over_budget: bool) {
        // Only who was paused: this is called after each outcome and each write, and a look is a turn.
        if let Some(connection) = self.at(slot)
            && connection.paused
            && connection.wants_bytes(over_budget)
        {
            connection.paused = false;
            self.want(slot);
        }
    }

    /// Has a connection looked at, after those that wait for it already.
    pub fn want(&mut self, slot: u32) {
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return };
        if std::mem::replace(&mut connection.ready, true) {
            return;
        }
        self.ready.push_back(connection.address());
        if !std::mem::replace(&mut self.looked_at, true) {
            self.wanted.notify_one();
        }
    }

    /// The system told something of a socket.
    pub fn told(&mut self, who: Address, readable: bool, writable: bool, read_closed: bool) {
        let Some(connection) = self.get(who) else { return };
        connection.readable |= readable;
        connection.read_closed |= read_closed;
        let takes_again = writable && std::mem::replace(&mut connection.blocked, false);
        if takes_again {
            self.mark(who.slot);
        }
        if readable {
            self.want(who.slot);
        }
    }

    /// How many are to be looked at.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The next connection to be looked at.
    pub fn next_ready(&mut self) -> Option<Address> {
        let who = self.ready.pop_front()?;
        if let Some(connection) = self.get(who) {
            connection.ready = false;
        }
        Some(who)
    }

    /// Those that are ready are being looked at: whoever becomes ready need not say so.
    pub fn begin_look(&mut self) {
        self.looked_at = true;
    }

    /// The look ends; `true` = there are more, and there will be another.
    pub fn end_look(&mut self) -> bool {
        self.looked_at = !self.ready.is_empty();
        self.looked_at
    }

    /// Messages appended, those of them for readers of events, and bytes written since last asked.
    pub fn take_sums(&mut self) -> (u64, u64, u64) {
        let sums = (self.delivered, self.events, self.written);
        (self.delivered, self.events, self.written) = (0, 0, 0);
        sums
    }

    /// So many messages were appended for subscribers.
    pub fn delivered(&mut self, messages: usize) {
        self.delivered += messages as u64;
    }

    /// Bytes that wait for one socket; one that is gone takes nothing.
    #[must_use]
    pub fn queued_for(&self, slot: u32) -> usize {
        self.by_slot.get(slot as usize).map_or(usize::MAX, |connection| connection.outbound.bytes())
    }

    /// The connection in a slot, whoever it is.
    pub fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        self.by_slot.get_mut(slot as usize).map(|connection| &mut **connection)
    }

    /// The connection, if it is still the same one.
    pub fn get(&mut self, address: Address) -> Option<&mut Connection> {
        self.at(address.slot).filter(|connection| connection.address() == address)
    }

    /// Appends encoded frames to a connection's queue; they are written at the end of this turn.
    pub fn append(&mut self, slot: u32, frames: Bytes) {
        self.push(slot, |outbound, spare| outbound.push(frames, spare));
    }

    /// Appends one text frame of which many connections have the beginning, and each an end of its own.
    pub fn append_shared(&mut self, slot: u32, text: &Bytes, end: &[u8]) {
        self.push(slot, |outbound, spare| outbound.push_shared(text, end, spare));
    }

    fn push(&mut self, slot: u32, push: impl FnOnce(&mut Outbound, &mut Spare)) {
        let now = self.wheel.now();
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return };
        if matches!(connection.phase, ConnectionPhase::Serving | ConnectionPhase::Closing) {
            // The time without progress begins with what waits first, not with the last byte that was taken.
            if connection.outbound.is_empty() {
                connection.deadlines.progress_at = now;
            }
            let before = connection.outbound.bytes();
            push(&mut connection.outbound, &mut self.spare);
            self.queued = recounted(self.queued, before, &connection.outbound);
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
    }

    /// Appends one text frame.
    pub fn text(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.noted(slot, Note::default(), write);
    }

    /// Appends one text frame; who reads it as an event has this beside it.
    pub fn noted(&mut self, slot: u32, note: Note, write: impl FnOnce(&mut Vec<u8>)) {
        self.with_session(slot, |_, frames| {
            frames.note = note;
            frames.frame(write);
        });
    }

    /// Lends a session and the place for its replies.
    pub fn with_session<R>(
        &mut self,
        slot: u32,
        f: impl FnOnce(&mut Session, &mut FrameSink<'_>) -> R,
    ) -> Option<R> {
        let now = self.wheel.now();
        let connection = &mut **self.by_slot.get_mut(slot as usize)?;
        let before = connection.outbound.bytes();
        let mut frames = FrameSink {
            outbound: &mut connection.outbound,
            spare: &mut self.spare,
            encode: &mut self.encode,
            events: connection.events.as_deref_mut(),
            note: Note::default(),
            written: false,
        };
        let result = f(&mut connection.session, &mut frames);
        if frames.written {
            self.queued = recounted(self.queued, before, &connection.outbound);
            // As above: from here on its socket owes progress.
            if before == 0 {
                connection.deadlines.progress_at = now;
            }
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
        Some(result)
    }

    /// Remembers who to wake when something is to be written.
    pub fn written_by(&mut self, writer: &Waker) {
        if !self.writer.as_ref().is_some_and(|known| known.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
    }

    /// The next connection to write to, of those that got something before this was asked first.
    pub fn next_dirty(&mut self) -> Option<u32> {
        self.dirty.pop_front()
    }

    /// How many connections are to be written to.
    #[must_use]
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Has a connection written to in the next turn.
    pub fn mark(&mut self, slot: u32) {
        if let Some(connection) = self.by_slot.get_mut(slot as usize) {
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
    }

    /// Writes what waits for a connection, as far as its socket takes it.
    pub fn write(&mut self, slot: u32) -> Written {
        self.write_with(slot, |mut stream, bytes| stream.write(bytes))
    }

    fn write_with(
        &mut self,
        slot: u32,
        mut write: impl FnMut(&TcpStream, &[u8]) -> io::Result<usize>,
    ) -> Written {
        let now = self.wheel.now();
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return Written::Some };
        connection.dirty = false;
        // Nothing to write: marked for the sake of its close, or cleared since.
        if connection.outbound.is_empty() {
            return Written::All;
        }
        let (before, stream) = (connection.outbound.bytes(), &connection.stream);
        let result = connection.outbound.flush(&mut self.spare, |bytes| write(stream, bytes));
        // Before anything else: what a socket took before it broke does not wait any more either.
        self.queued = recounted(self.queued, before, &connection.outbound);
        let Ok((flushed, count)) = result else { return Written::Broken };
        self.written += count as u64;
        if count > 0 {
            let deadlines = &mut connection.deadlines;
            deadlines.progress_at = now;
            deadlines.unheard = deadlines.unheard.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
        match flushed {
            Flushed::Empty => {
                connection.blocked = false;
                Written::All
            }
            Flushed::Blocked => {
                connection.blocked = true;
                self.arm(slot);
                Written::Some
            }
            // Behind the others: one that takes everything at once must not hold them up.
            Flushed::Yielded => {
                connection.blocked = false;
                mark(connection, slot, &mut self.dirty, &mut self.writer);
                Written::Some
            }
        }
    }

    /// Sees to it that the wheel wakes for the connection's next deadline.
    pub fn arm(&mut self, slot: u32) {
        let slow = self.timeouts.slow;
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return };
        let at = connection.next_deadline(slow);
        // A later one needs no entry now: it is put in when the one in the wheel comes.
        if at < connection.deadlines.armed_at {
            let entry = WheelEntry { slot, generation: connection.address().generation, at };
            connection.deadlines.armed_at = self.wheel.insert(entry);
        }
    }

    /// Goes on to `tick`; what is due then is given by [`Connections::next_due`].
    pub fn advance(&mut self, tick: Tick) {
        self.wheel.advance(tick, &mut self.due);
    }

    /// A deadline that has come, oldest first.
    pub fn next_due(&mut self) -> Option<WheelEntry> {
        self.due.pop_front()
    }

    /// Whether deadlines have come that had no turn yet.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The connection of a due entry, if the entry is not out of date.
    pub fn due(&mut self, entry: WheelEntry) -> Option<&mut Connection> {
        let connection = self.by_slot.get_mut(entry.slot as usize)?;
        // The slot is another's, or the deadline has moved since: entries are never taken out.
        if connection.address().generation != entry.generation || connection.deadlines.armed_at != entry.at {
            return None;
        }
        connection.deadlines.armed_at = NEVER;
        Some(connection)
    }

    /// Drops a connection and everything that waits for it.
    pub fn remove(&mut self, slot: u32) {
        if let Some(mut connection) = self.by_slot.try_remove(slot as usize) {
            self.event_streams -= usize::from(connection.events.is_some());
            let before = connection.outbound.bytes();
            connection.outbound.clear(&mut self.spare);
            self.queued = recounted(self.queued, before, &connection.outbound);
            // The last of a crowd: what it needed in memory goes back.
            if self.by_slot.is_empty() {
                self.spare.trim(0);
                self.dirty.shrink_to_fit();
                self.ready = VecDeque::new();
                self.by_slot.shrink_to_fit();
            }
        }
    }

    /// Forgets what waits for a connection but for the rest of a frame already begun.
    pub fn give_up_queue(&mut self, slot: u32) {
        if let Some(connection) = self.by_slot.get_mut(slot as usize) {
            let before = connection.outbound.bytes();
            connection.outbound.give_up();
            self.queued = recounted(self.queued, before, &connection.outbound);
        }
    }

    /// Bytes that wait for all sockets.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queued
    }
}

/// The sum of all queues after one that held `before` has changed. All changes of it are made here.
fn recounted(all: usize, before: usize, queue: &Outbound) -> usize {
    (all + queue.bytes()).saturating_sub(before)
}

fn mark(connection: &mut Connection, slot: u32, dirty: &mut VecDeque<u32>, writer: &mut Option<Waker>) {
    // A blocked one takes nothing: it is marked as soon as the system tells of space.
    if connection.dirty || connection.blocked {
        return;
    }
    connection.dirty = true;
    dirty.push_back(slot);
    // For the first only: the writer takes all that has gathered until it has its turn.
    if dirty.len() == 1
        && let Some(writer) = writer
    {
        writer.wake_by_ref();
    }
}

#[cfg(test)]
mod tests;
