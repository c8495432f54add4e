//! One connection: its socket, its session and what waits for it. State only; the shard acts.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};

use mio::net::TcpStream;
use sluice_proto::ids::RoomId;

use super::event_stream::EventStream;
use super::history::Asked;
use super::inbound::Inbound;
use crate::address::Address;
use crate::defaults::{REQUESTS_MAX, ROOMS_LEAVING_MAX, SUBS_PENDING_MAX};
use crate::limits::table::Seat;
use crate::session::machine::Session;
use crate::session::outbound::Outbound;
use crate::session::todo::RequestId;
use crate::slow_client;
use crate::subscription::{SubKey, Subscriptions};
use crate::tick::{NEVER, Tick};
use sluice_service::bucket::Bucket;

/// How far a connection's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionPhase {
    /// Frames are taken and messages are sent.
    Serving,
    /// A close frame is queued or was sent, by us or by the client; nothing else is sent any more.
    Closing,
    /// Our end of the TCP connection is closed; what still comes is thrown away, so that no reset
    /// overtakes what the client has not read yet.
    Lingering,
    /// The connection is to be dropped.
    Gone,
}

/// Where a subscription of this connection is.
pub struct SubscriptionEntry {
    /// Key of the room's view in this shard.
    pub view: u32,
    /// The subscription in that view.
    pub sub: SubKey,
    /// The `id` of its `sub`, until answered.
    pub id: Cell<RequestId>,
    /// Its `sub` is answered: only then presence is told, so that what is cancelled before costs nothing.
    pub joined: Cell<bool>,
    /// It is also told who comes and goes.
    pub watches: bool,
}

impl fmt::Debug for SubscriptionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { view, sub, id: _, joined, watches } = self;
        f.debug_struct("SubscriptionEntry")
            .field("view", view)
            .field("sub", sub)
            .field("joined", joined)
            .field("watches", watches)
            .finish()
    }
}

/// Deadlines, in ticks of the shard; `NEVER` where there is none.
#[derive(Debug)]
pub struct Deadlines {
    /// When the next ping is due.
    pub ping_at: Tick,
    /// The answer to the last ping.
    pub pong_by: Tick,
    /// `connect` or a verdict on the token.
    pub connect_by: Tick,
    /// The end of the token.
    pub expires_at: Tick,
    /// The end of the closing handshake.
    pub close_by: Tick,
    /// When it is read again, after it did something too often; `NEVER` = now.
    pub read_at: Tick,
    /// When the socket last took a byte, or something was queued first.
    pub progress_at: Tick,
    /// What the wheel holds an entry for; `NEVER` = nothing.
    pub armed_at: Tick,
    /// Bytes the socket took since the client was last heard: its answer to a ping stands behind them.
    pub unheard: u32,
}

impl Deadlines {
    /// Of a connection that begins at `now`.
    pub const fn new(now: Tick, first_ping: Tick) -> Self {
        Self {
            ping_at: first_ping,
            pong_by: NEVER,
            connect_by: NEVER,
            expires_at: NEVER,
            close_by: NEVER,
            read_at: NEVER,
            progress_at: now,
            armed_at: NEVER,
            unheard: 0,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    /// The client's life here.
    pub session: Session,
    /// The rooms it is subscribed to.
    pub subscriptions: Subscriptions<SubscriptionEntry>,
    /// Half a message, rarely.
    pub inbound: Inbound,
    /// What waits to be written.
    pub outbound: Outbound,
    /// It reads events, and is not read itself; none: a WebSocket.
    pub events: Option<Box<EventStream>>,
    /// How far it has come.
    pub phase: ConnectionPhase,
    /// When what is due.
    pub deadlines: Deadlines,
    /// Subscriptions that are catching up.
    pub behind: u16,
    /// `sub`s without answer.
    pub subs_pending: u16,
    /// Rooms it left as the last one here, of which something is still to be done.
    pub rooms_leaving: u16,
    /// Pages of history it asked for.
    pub history: Option<Box<Asked>>,
    /// Requests to logic without answer.
    pub requests: u16,
    /// In the list of those to write to in this turn.
    pub dirty: bool,
    /// The socket takes no more: the system will tell when it does.
    pub blocked: bool,
    /// The socket may have something to read.
    pub readable: bool,
    /// Nothing will follow what it has: no further change will be told.
    pub read_closed: bool,
    /// In the list of those to be looked at.
    pub ready: bool,
    /// The socket is not read for now.
    pub paused: bool,
    /// Input is thrown away unread by the library, as it can no longer be understood.
    pub discard_input: bool,
    /// The client's close frame came.
    pub peer_closed: bool,
    /// Our own close frame is queued: nothing may follow it.
    pub closed: bool,
    /// Its session has ended: rooms left, status reported.
    pub detached: bool,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// Its place in what its address uses, if that is known.
    pub address_seat: Option<Seat>,
    /// What it sent of frames that no user's rate is for.
    pub other_frames: Bucket,
    /// Its place in what its user uses, once that is known.
    pub user_seat: Option<Seat>,
}

impl Connection {
    /// A connection that has just been upgraded; who it is is being asked.
    pub fn new(
        stream: TcpStream,
        session: Session,
        inbound: Inbound,
        deadlines: Deadlines,
        since_ms: i64,
        address_seat: Option<Seat>,
    ) -> Self {
        Self {
            stream,
            session,
            subscriptions: Subscriptions::default(),
            inbound,
            outbound: Outbound::default(),
            events: None,
            phase: ConnectionPhase::Serving,
            deadlines,
            behind: 0,
            subs_pending: 0,
            rooms_leaving: 0,
            history: None,
            requests: 0,
            dirty: false,
            blocked: false,
            readable: false,
            read_closed: false,
            ready: false,
            // Until it was looked at whether it may be read.
            paused: true,
            discard_input: false,
            peer_closed: false,
            closed: false,
            detached: false,
            since_ms,
            address_seat,
            other_frames: Bucket::default(),
            user_seat: None,
        }
    }

    /// The same, if it reads events.
    #[must_use]
    pub fn reading(mut self, events: Option<Box<EventStream>>) -> Self {
        // Nothing follows a request that has no body, and what does is for nobody.
        self.discard_input = events.is_some();
        self.events = events;
        self
    }

    /// Where messages for this connection go.
    pub fn address(&self) -> Address {
        self.session.link().address
    }

    /// Whether to read from the socket, given whether too much of its shard is unanswered. Once paused by a long queue it
    /// stays so until the queue is short.
    pub fn wants_bytes(&self, over_budget: bool) -> bool {
        match self.phase {
            ConnectionPhase::Serving if over_budget => false,
            ConnectionPhase::Serving => {
                slow_client::may_be_read(self.paused, self.outbound.bytes())
                    && self.session.wants_frames()
                    && self.requests < REQUESTS_MAX
                    && self.subs_pending < SUBS_PENDING_MAX
                    && self.rooms_leaving < ROOMS_LEAVING_MAX
                    && self.deadlines.read_at == NEVER
            }
            // For the client's own close frame, and for nothing behind it.
            ConnectionPhase::Closing => !self.peer_closed,
            // Only to throw it away: bytes that are unread at the end of TCP would make it a reset.
            ConnectionPhase::Lingering => true,
            ConnectionPhase::Gone => false,
        }
    }

    /// The rooms whose `sub` is answered, and whether it watches them.
    pub fn joined_rooms(&self) -> impl Iterator<Item = (&RoomId, bool)> {
        let joined = self.subscriptions.iter().filter(|(_, entry)| entry.joined.get());
        joined.map(|(room, entry)| (room, entry.watches))
    }

    /// Reads what the socket has. `None` = it has nothing for now.
    ///
    /// # Errors
    /// What the system says; an end of the stream is nothing read.
    pub fn read(&mut self, chunk: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(chunk) {
                Ok(count) => {
                    // A chunk that is not full was all there is, and what comes later is told. An end was told already.
                    self.readable = count == chunk.len() || self.read_closed;
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// When the next deadline is, given the time without progress that is allowed.
    pub fn next_deadline(&self, slow: Tick) -> Tick {
        let deadlines = &self.deadlines;
        let stuck = slow_client::gives_up_at(self.outbound.is_empty(), deadlines.progress_at, slow);
        let serving = match self.phase {
            ConnectionPhase::Serving => {
                let Deadlines { ping_at, pong_by, connect_by, expires_at, read_at, .. } = *deadlines;
                [ping_at, pong_by, connect_by, expires_at, read_at].into_iter().min().unwrap_or(NEVER)
            }
            // Who leaves is not pinged and needs no token: only its end has a time.
            ConnectionPhase::Closing | ConnectionPhase::Lingering | ConnectionPhase::Gone => NEVER,
        };
        serving.min(stuck).min(deadlines.close_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::table::Usage;

    /// An idle connection is this, its link, one subscription, and what its user uses. What only busy ones need stands
    /// behind a pointer: with a field more the allocator gives each of 100,000 connections the next larger class.
    #[test]
    fn an_idle_connection_stays_small() {
        // Without the socket, of which the library keeps more in a debug build than its number.
        let connection = size_of::<Connection>() - size_of::<TcpStream>();
        let sizes = [connection, size_of::<(RoomId, SubscriptionEntry)>(), size_of::<Usage>()];
        // An `Arc` has two counts besides.
        let classes = [256 - size_of::<i32>(), 48, 80 - 16];
        assert!(sizes.iter().zip(classes).all(|(size, class)| *size <= class), "{sizes:?}, {classes:?}");
        assert_eq!([size_of::<Outbound>(), size_of::<Inbound>()], [size_of::<usize>(); 2], "nothing waits");
    }
}
