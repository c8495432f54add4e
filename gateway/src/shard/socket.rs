//! What a shard does with a connection: bytes in, frames out, deadlines, and the end in its right order:
//! outcomes, `bye`, close frame, the client's answer, end of TCP.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use socket2::SockRef;
use tokio::task::yield_now;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use sluice_proto::wire::Bye;
use sluice_proto::wire::codec;
use sluice_service::seeded::{self, Bug};

use super::Shard;
use super::connection::ConnectionPhase;
use super::connections::{Timeouts, Written};
use super::inbound::{Inbound, Message, Reading};
use super::turn::Budget;
use super::wheel::WheelEntry;
use crate::address::Address;
use crate::defaults::{CLOSE_WITHIN, FRAMES_PER_READ, LINGER_WITHIN, QUEUE_LOW_BYTES};
use crate::ending::Ending;
use crate::session::event::Note;
use crate::slow_client;
use crate::tick::{NEVER, ticks};

/// Reads of one connection in one turn of the loop.
const READS_PER_TURN: usize = 2;

/// The task goes on, but the runtime looks at sockets, timers and queues first. A task that only wakes itself is among
/// those that are ready at once, and of these the library runs sixty-one before it looks at any socket again.
fn after_others(context: &mut Context<'_>) {
    if pin!(yield_now()).poll(context).is_ready() {
        context.waker().wake_by_ref();
    }
}

impl Shard {
    /// A connection's turn: reads what its socket brought. With more to read it has another, after the others.
    pub(super) fn attend(&mut self, who: Address) {
        for _ in 0..READS_PER_TURN {
            if !self.read_some(who) {
                return;
            }
        }
        self.connections.want(who.slot);
    }

    /// One read, unless back-pressure forbids it. `false` = there is nothing to read, or nobody to read from.
    fn read_some(&mut self, who: Address) -> bool {
        let over_budget = self.unanswered.over_budget();
        let Some(connection) = self.connections.get(who) else { return false };
        if !connection.wants_bytes(over_budget) {
            self.connections.pause(who.slot, over_budget);
            return false;
        }
        connection.paused = false;
        // What was read before goes first: no byte may ever come to tell us of it.
        if connection.inbound.has_rest() {
            let rest = connection.inbound.take_rest();
            self.take_bytes(who, &rest, Some(&rest));
            return true;
        }
        if !connection.readable {
            return false;
        }
        let mut chunk = self.buffers.take_chunk();
        let read = connection.read(&mut chunk);
        if let Ok(Some(count @ 1..)) = read {
            connection.session.on_bytes(count);
            self.take_bytes(who, &chunk[..count], None);
        } else if !matches!(read, Ok(None)) {
            self.drop_connection(who);
        }
        self.buffers.return_chunk(chunk);
        matches!(read, Ok(Some(1..)))
    }

    /// Bytes of a client: frames, or what is thrown away because nothing more is taken from it.
    /// `kept` is what they are a part of, if that may be kept.
    fn take_bytes(&mut self, who: Address, bytes: &[u8], kept: Option<&Bytes>) {
        let Some(connection) = self.connections.get(who) else { return };
        // Any byte is a sign of life, not only a pong.
        connection.deadlines.pong_by = NEVER;
        connection.deadlines.unheard = 0;
        if connection.discard_input || connection.phase == ConnectionPhase::Lingering {
            // What was held back of it goes too: it would be looked at for ever, and the socket never.
            connection.inbound = Inbound::default();
            let reads_events = connection.events.is_some() && connection.phase == ConnectionPhase::Serving;
            if reads_events {
                // Nothing is expected of it, and to throw bytes away costs the reading.
                self.charge_other_frame(who);
            }
            return;
        }
        let mut replies = self.buffers.take_replies();
        let mut reading = connection.inbound.open(&mut self.buffers.contexts, bytes, &mut replies);
        let outcome = self.take_frames(who, &mut reading);
        let Some(connection) = self.connections.get(who) else { return };
        match outcome {
            // After a fault the library must not see another byte: its state is not given back.
            Ok(()) => connection.inbound.close(reading, kept, &mut self.buffers.contexts),
            Err(ending) => self.not_understood(who, ending),
        }
        if !replies.is_empty() {
            // After our own close frame nothing may follow, not even the answer to the client's.
            if self.connections.get(who).is_some_and(|connection| !connection.closed) {
                self.connections.append(who.slot, replies.as_slice().to_vec().into());
            }
        }
        self.buffers.return_replies(replies);
        self.settle(who);
    }

    fn take_frames(&mut self, who: Address, reading: &mut Reading<'_>) -> Result<(), Ending> {
        for _ in 0..FRAMES_PER_READ {
            let over_budget = self.unanswered.over_budget();
            let Some(connection) = self.connections.get(who) else { return Ok(()) };
            if connection.discard_input || !connection.wants_bytes(over_budget) {
                return Ok(());
            }
            let serving = connection.phase == ConnectionPhase::Serving;
            match reading.message()? {
                None => return Ok(()),
                Some(Message::Text(text)) if serving => {
                    self.counters.frame();
                    self.on_text(who, &text);
                }
                Some(Message::Binary(_)) if serving => {
                    return Err(Ending::Binary);
                }
                Some(Message::Close(frame)) => {
                    let goodbye = frame.is_some_and(|frame| frame.code == CloseCode::Normal);
                    // The library's answer to it.
                    reading.message()?;
                    self.peer_closed(who, goodbye);
                }
                // A ping is owed an answer, which the library has appended; a pong costs the reading.
                Some(Message::Ping(_) | Message::Pong(_)) if serving => self.charge_other_frame(who),
                Some(
                    Message::Text(_)
                    | Message::Binary(_)
                    | Message::Ping(_)
                    | Message::Pong(_)
                    | Message::Frame(_),
                ) => {}
            }
        }
        // What is left stays with the connection and is taken in its next turn.
        Ok(())
    }

    fn on_text(&mut self, who: Address, text: &str) {
        let wall_ms = self.shared.clock.now_ms();
        let todo =
            self.connections.with_session(who.slot, |session, out| session.on_text(text, wall_ms, out));
        if let Some(todo) = todo {
            self.perform(who, todo);
        }
    }

    /// The client cannot be understood any more: what it was promised is still answered.
    fn not_understood(&mut self, who: Address, ending: Ending) {
        let Some(connection) = self.connections.get(who) else { return };
        connection.discard_input = true;
        if connection.phase == ConnectionPhase::Serving {
            connection.session.end(ending, 0);
        }
    }

    /// The client closes: with 1000 it says goodbye for good.
    fn peer_closed(&mut self, who: Address, goodbye: bool) {
        let Some(connection) = self.connections.get(who) else { return };
        let ours = connection.phase == ConnectionPhase::Closing;
        connection.peer_closed = true;
        connection.phase = ConnectionPhase::Closing;
        self.detach(who, goodbye);
        if !ours {
            // The library has appended the answer; it has to be written before TCP ends.
            self.connections.mark(who.slot);
        }
    }

    /// After anything that happened to a session: leaves if it is time, reads on if it may.
    pub(super) fn settle(&mut self, who: Address) {
        let (resend_ms, over_budget) = (self.resend_ms(), self.unanswered.over_budget());
        let Some(connection) = self.connections.get(who) else { return };
        match connection.phase {
            ConnectionPhase::Serving => {
                if let Some((ending, bye)) = connection.session.take_bye(resend_ms) {
                    self.send_bye(who, &ending, &bye);
                } else {
                    self.connections.resume(who.slot, over_budget);
                }
            }
            // The kernel may have taken the close frame in this very turn.
            ConnectionPhase::Closing => {
                if connection.outbound.is_empty() {
                    self.close_frame_written(who);
                }
            }
            ConnectionPhase::Lingering | ConnectionPhase::Gone => {}
        }
        self.connections.arm(who.slot);
    }

    fn send_bye(&mut self, who: Address, ending: &Ending, bye: &Bye) {
        if seeded::is(Bug::NoGoodbye) {
            return self.drop_connection(who);
        }
        self.shared.metrics.ended(ending.label());
        // While its rooms still say where it stands.
        self.append_id(who.slot);
        self.detach(who, false);
        self.append_bye(who, bye);
    }

    /// Its last two frames. Whoever calls this sees to it that the connection leaves its rooms in the same turn.
    pub(super) fn append_bye(&mut self, who: Address, bye: &Bye) {
        if self.waits_for_head(who) {
            return self.refuse_unanswered(who, bye);
        }
        self.append_id(who.slot);
        let note = Note { id: None, retry_ms: bye.reconnect_ms };
        self.connections.noted(who.slot, note, |out| codec::bye(out, bye));
        self.connections.end(who.slot, bye);
        if let Some(connection) = self.connections.get(who) {
            connection.closed = true;
            connection.phase = ConnectionPhase::Closing;
            // What was held back may hold the client's own close frame.
            connection.paused = false;
            self.connections.want(who.slot);
        }
    }

    /// Writes to all that got something before this turn, as far as the turn has time; the others go first
    /// in the next one.
    pub(super) fn write_all(&mut self, writer: &Waker, budget: Budget) {
        self.connections.written_by(writer);
        // What is marked while we write has its turn after the sockets were looked at.
        for _ in 0..self.connections.dirty_len() {
            let Some(slot) = self.connections.next_dirty() else { break };
            self.write(slot);
            if budget.is_spent() {
                break;
            }
        }
        self.measure_deliveries();
        if self.connections.dirty_len() > 0 {
            after_others(&mut Context::from_waker(writer));
        }
    }

    /// Writes to a connection and does what follows from its queue being shorter.
    pub(super) fn write(&mut self, slot: u32) {
        self.append_id(slot);
        let written = self.connections.write(slot);
        let over_budget = self.unanswered.over_budget();
        let Some(connection) = self.connections.at(slot) else { return };
        let who = connection.address();
        // The other end is gone: nothing that waits can be delivered, and nobody can hear `bye`.
        if written == Written::Broken {
            self.drop_connection(who);
            return;
        }
        if connection.phase == ConnectionPhase::Closing && written == Written::All {
            self.close_frame_written(who);
            return;
        }
        self.connections.resume(slot, over_budget);
        let Some(connection) = self.connections.at(slot) else { return };
        let has_room = slow_client::may_catch_up(connection.outbound.bytes(), QUEUE_LOW_BYTES);
        let (behind, asks_history) = (connection.behind > 0, connection.history.is_some());
        if has_room && asks_history {
            self.page_taken(who);
        }
        if has_room && behind {
            let now = self.timers.now();
            self.views.advance(&mut self.connections, now, slot);
            self.follow_up();
        }
        self.connections.arm(slot);
    }

    /// The kernel has taken the close frame: now the client has its time to answer.
    fn close_frame_written(&mut self, who: Address) {
        let at = self.connections.tick().saturating_add(ticks(CLOSE_WITHIN));
        let Some(connection) = self.connections.get(who) else { return };
        if connection.peer_closed {
            // Both close frames are on their way and nothing may follow them: the server ends TCP.
            self.drop_connection(who);
        } else if connection.session.floods() {
            // Waiting for its answer would be reading on.
            self.drop_connection(who);
        } else if connection.discard_input {
            // Who is not understood any more cannot be heard to answer either.
            self.linger(who);
        } else if connection.deadlines.close_by == NEVER {
            connection.deadlines.close_by = at;
            self.connections.arm(who.slot);
        }
    }

    /// Ends our half of TCP and reads what still comes: closing with unread bytes would reset the
    /// connection and take away what the client has not read yet.
    fn linger(&mut self, who: Address) {
        let at = self.connections.tick().saturating_add(ticks(LINGER_WITHIN));
        let Some(connection) = self.connections.get(who) else { return };
        // Half-closed, not closed: a reset would discard what the client has not read yet.
        if SockRef::from(&connection.stream).shutdown(std::net::Shutdown::Write).is_err() {
            self.drop_connection(who);
            return;
        }
        connection.phase = ConnectionPhase::Lingering;
        connection.deadlines.close_by = at;
        self.connections.want(who.slot);
        self.connections.arm(who.slot);
    }

    /// The connection is over, whatever its state.
    pub(super) fn drop_connection(&mut self, who: Address) {
        self.end_connection(who, false);
    }

    /// The client did not do in time what would have ended its connection.
    pub(super) fn cut_connection(&mut self, who: Address) {
        self.end_connection(who, true);
    }

    fn end_connection(&mut self, who: Address, cut: bool) {
        self.detach(who, false);
        self.count_departure(who, cut);
        if let Some(connection) = self.connections.get(who) {
            connection.phase = ConnectionPhase::Gone;
            self.connections.remove(who.slot);
            self.on_removed();
        }
    }

    /// A deadline of a connection may have come.
    pub(super) fn on_deadline(&mut self, entry: WheelEntry) {
        let (now, slow) = (self.connections.tick(), self.connections.timeouts().slow);
        let Some(connection) = self.connections.due(entry) else { return };
        let who = connection.address();
        let deadlines = &mut connection.deadlines;
        if deadlines.close_by <= now {
            // The close frame was taken, only its answer is missing: the end is still an orderly one.
            if connection.phase == ConnectionPhase::Closing && connection.outbound.is_empty() {
                self.linger(who);
            } else {
                self.cut_connection(who);
            }
            return;
        }
        // Also while closing: a client that takes nothing cannot hold its place by never taking the close frame.
        if slow_client::gives_up_at(connection.outbound.is_empty(), deadlines.progress_at, slow) <= now {
            self.too_slow(who);
            return;
        }
        if connection.phase == ConnectionPhase::Serving {
            self.on_serving_deadline(who);
        }
        self.settle(who);
    }

    fn on_serving_deadline(&mut self, who: Address) {
        let now = self.connections.tick();
        let Timeouts { ping_every, ping_within, .. } = self.connections.timeouts();
        let spread_ms = self.resend_ms();
        self.on_token_deadline(who);
        let Some(connection) = self.connections.get(who) else { return };
        // A ping behind a queue says nothing about the client; `slow_timeout` watches that one.
        let paused = connection.paused || !connection.outbound.is_empty();
        let (session, deadlines) = (&mut connection.session, &mut connection.deadlines);
        if deadlines.read_at <= now {
            deadlines.read_at = NEVER;
        }
        if deadlines.connect_by <= now {
            deadlines.connect_by = NEVER;
            session.end(Ending::ConnectTimeout, spread_ms);
        }
        if paused && deadlines.pong_by != NEVER {
            // We do not read, so the client's answer may be there; or our ping may still be here.
            deadlines.pong_by = slow_client::pong_due(now, ping_within, deadlines.unheard);
        } else if deadlines.pong_by <= now {
            deadlines.pong_by = NEVER;
            session.end(Ending::PingTimeout, spread_ms);
            self.counters.ping_timeout();
        }
        if deadlines.ping_at <= now {
            deadlines.ping_at = now.saturating_add(ping_every);
            let pong_by = slow_client::pong_due(now, ping_within, deadlines.unheard);
            if !paused
                && self.connections.ping(who.slot)
                && let Some(connection) = self.connections.get(who)
            {
                let deadlines = &mut connection.deadlines;
                deadlines.pong_by = deadlines.pong_by.min(pong_by);
            }
        }
    }

    /// The socket has not taken a byte for too long: what waits is given up, the reason is offered, and
    /// the connection ends whether or not it is taken.
    fn too_slow(&mut self, who: Address) {
        self.counters.slow();
        let Some(connection) = self.connections.get(who) else { return };
        if connection.phase != ConnectionPhase::Serving {
            self.drop_connection(who);
            return;
        }
        // What is given up was not told: the id that it has is where it stands.
        if let Some(events) = &mut connection.events {
            events.forget_id();
        }
        // First out of its rooms: a run after the queue was given up would stand behind a gap.
        self.detach(who, false);
        self.connections.give_up_queue(who.slot);
        let ending = Ending::Slow;
        let bye = ending.bye(self.resend_ms());
        self.send_bye(who, &ending, &bye);
        let at = self.connections.tick().saturating_add(ticks(CLOSE_WITHIN));
        if let Some(connection) = self.connections.get(who) {
            connection.deadlines.close_by = at;
        }
        self.connections.arm(who.slot);
    }
}
