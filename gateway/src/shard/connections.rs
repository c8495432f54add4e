//! The connections of a shard and the way bytes get to their sockets.
//!
//! Whatever happens in one turn of the loop is appended to queues; at the end of the turn each connection
//! that got something is written to once. No allocation, wake-up or channel per message and connection.

use std::task::Waker;

use bytes::Bytes;
use slab::Slab;

use super::connection::{Connection, ConnectionPhase};
use super::wheel::{Wheel, WheelEntry};
use crate::address::Address;
use crate::session::machine::{Session, Sink};
use crate::session::outbound::{Flushed, Outbound, Spare, text_frame};
use crate::tick::{NEVER, Tick};

/// The connections.
#[derive(Debug)]
pub struct Connections {
    /// By slot. Boxed, so that the memory of many that left goes back.
    pub by_slot: Slab<Box<Connection>>,
    /// Their deadlines.
    pub wheel: Wheel,
    spare: Spare,
    encode: Vec<u8>,
    dirty: Vec<u32>,
    writer: Option<Waker>,
    /// Ticks a socket may take no byte.
    pub slow: Tick,
    /// Messages appended since last asked.
    pub delivered: u64,
    /// Bytes written since last asked.
    pub written: u64,
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
    /// No connections.
    #[must_use]
    pub fn new(slow: Tick) -> Self {
        Self {
            by_slot: Slab::new(),
            wheel: Wheel::default(),
            spare: Spare::default(),
            encode: Vec::with_capacity(1024),
            dirty: Vec::new(),
            writer: None,
            slow,
            delivered: 0,
            written: 0,
        }
    }

    /// The connection in a slot, whoever it is.
    pub fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        self.by_slot.get_mut(slot as usize).map(|connection| &mut **connection)
    }

    /// The connection, if it is still the same one.
    pub fn get(&mut self, address: Address) -> Option<&mut Connection> {
        self.at(address.slot).filter(|connection| connection.address == address)
    }

    /// Appends encoded frames to a connection's queue; they are written at the end of this turn.
    pub fn append(&mut self, slot: u32, frames: Bytes) {
        let now = self.wheel.now();
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return };
        if matches!(connection.phase, ConnectionPhase::Serving | ConnectionPhase::Closing) {
            if connection.outbound.is_empty() {
                connection.deadlines.progress_at = now;
            }
            connection.outbound.push(frames, &mut self.spare);
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
    }

    /// Appends one text frame.
    pub fn text(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.with_session(slot, |_, frames| frames.frame(write));
    }

    /// Lends a session and the place for its replies.
    pub fn with_session<R>(
        &mut self,
        slot: u32,
        f: impl FnOnce(&mut Session, &mut FrameSink<'_>) -> R,
    ) -> Option<R> {
        let now = self.wheel.now();
        let connection = &mut **self.by_slot.get_mut(slot as usize)?;
        let was_empty = connection.outbound.is_empty();
        let mut frames = FrameSink {
            outbound: &mut connection.outbound,
            spare: &mut self.spare,
            encode: &mut self.encode,
            written: false,
        };
        let result = f(&mut connection.session, &mut frames);
        if frames.written {
            if was_empty {
                connection.deadlines.progress_at = now;
            }
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
        Some(result)
    }

    /// Remembers who to wake when something is to be written, and gives out what there is.
    pub fn take_dirty(&mut self, writer: &Waker) -> Vec<u32> {
        if !self.writer.as_ref().is_some_and(|known| known.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
        std::mem::take(&mut self.dirty)
    }

    /// Gives the list back, so that its memory is used again.
    pub fn return_dirty(&mut self, mut list: Vec<u32>) {
        list.clear();
        if self.dirty.is_empty() && list.capacity() > self.dirty.capacity() {
            self.dirty = list;
        }
    }

    /// Has a connection written to in the next turn.
    pub fn mark(&mut self, slot: u32) {
        if let Some(connection) = self.by_slot.get_mut(slot as usize) {
            mark(connection, slot, &mut self.dirty, &mut self.writer);
        }
    }

    /// Writes what waits for a connection, as far as its socket takes it.
    pub fn write(&mut self, slot: u32) -> Written {
        let now = self.wheel.now();
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return Written::Some };
        connection.dirty = false;
        if connection.outbound.is_empty() {
            return Written::All;
        }
        let stream = &connection.stream;
        let result = connection.outbound.flush(&mut self.spare, |bytes| stream.try_write(bytes));
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
                if !connection.blocked {
                    connection.blocked = true;
                    connection.wake();
                }
                self.arm(slot);
                Written::Some
            }
            Flushed::Yielded => {
                connection.blocked = false;
                mark(connection, slot, &mut self.dirty, &mut self.writer);
                Written::Some
            }
        }
    }

    /// Sees to it that the wheel wakes for the connection's next deadline.
    pub fn arm(&mut self, slot: u32) {
        let slow = self.slow;
        let Some(connection) = self.by_slot.get_mut(slot as usize) else { return };
        let at = connection.next_deadline(slow);
        if at < connection.deadlines.armed_at {
            let entry = WheelEntry { slot, generation: connection.address.generation, at };
            connection.deadlines.armed_at = self.wheel.insert(entry);
        }
    }

    /// The connection of a due entry, if the entry is not out of date.
    pub fn due(&mut self, entry: WheelEntry) -> Option<&mut Connection> {
        let connection = self.by_slot.get_mut(entry.slot as usize)?;
        if connection.address.generation != entry.generation || connection.deadlines.armed_at != entry.at {
            return None;
        }
        connection.deadlines.armed_at = NEVER;
        Some(connection)
    }

    /// Drops a connection and everything that waits for it.
    pub fn remove(&mut self, slot: u32) {
        if let Some(mut connection) = self.by_slot.try_remove(slot as usize) {
            connection.outbound.clear(&mut self.spare);
            if self.by_slot.is_empty() {
                self.spare.trim(0);
                self.dirty.shrink_to_fit();
                self.by_slot.shrink_to_fit();
            }
        }
    }

    /// Forgets what waits for a connection but for the rest of a frame already begun.
    pub fn give_up_queue(&mut self, slot: u32) {
        if let Some(connection) = self.by_slot.get_mut(slot as usize) {
            connection.outbound.give_up();
        }
    }

    /// Bytes that wait for all sockets.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.by_slot.iter().map(|(_, connection)| connection.outbound.bytes()).sum()
    }
}

fn mark(connection: &mut Connection, slot: u32, dirty: &mut Vec<u32>, writer: &mut Option<Waker>) {
    if connection.dirty || connection.blocked {
        return;
    }
    connection.dirty = true;
    dirty.push(slot);
    if dirty.len() == 1
        && let Some(writer) = writer
    {
        writer.wake_by_ref();
    }
}

/// Text frames of one session on their way into its queue.
#[derive(Debug)]
pub struct FrameSink<'a> {
    outbound: &'a mut Outbound,
    spare: &'a mut Spare,
    encode: &'a mut Vec<u8>,
    written: bool,
}

/// Longest header of a server's frame.
const HEADER_BYTES_MAX: usize = 10;

impl Sink for FrameSink<'_> {
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.encode.clear();
        write(self.encode);
        let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + self.encode.len());
        text_frame(self.encode, &mut frame);
        self.encode.shrink_to(64 * 1024);
        self.outbound.push(frame.into(), self.spare);
        self.written = true;
    }
}
