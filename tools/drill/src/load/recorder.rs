//! One client's records, counters and state, kept together so that they cannot disagree. It decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use sluice_judge::record::{ClientEvent, PublishOutcome, hash_of};
use sluice_load::server_frame::{ServerError, ServerFrame};

use super::client_state::ClientState;
use super::counters::one;
use super::message::{self, OutgoingMessage};
use super::plan::ClientSpec;
use super::shared::LoadShared;
use crate::records::{Delivery, RecordWriter};

/// Code of endings that were the client's own wish: a server never sends it.
pub(super) const OWN_WISH: Option<u16> = Some(1000);

#[derive(Debug)]
pub(super) struct Recorder {
    pub state: Arc<ClientState>,
    shared: Arc<LoadShared>,
    writer: RecordWriter,
    conns: AtomicU32,
}

/// A confirmed subscription.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed<'a> {
    pub room: &'a str,
    pub after: u64,
    pub head: u64,
    pub epoch: &'a str,
    pub recovered: bool,
    /// Whether it answers a `sub`.
    pub asked: bool,
}

impl Recorder {
    /// Begins with who this is.
    pub(super) fn begin(
        shared: Arc<LoadShared>,
        state: Arc<ClientState>,
        writer: RecordWriter,
        spec: &ClientSpec,
    ) -> Self {
        let (role, kind) = (spec.role.name().to_owned(), spec.kind.name().to_owned());
        writer.note(&ClientEvent::Client { user: spec.user.clone(), role, kind });
        Self { state, shared, writer, conns: AtomicU32::new(0) }
    }

    pub(super) fn note(&self, what: &ClientEvent) -> u64 {
        self.writer.note(what)
    }

    /// A connection was welcomed; its number.
    pub(super) fn opened(&self, url: String, instance: String, epoch: String) -> u32 {
        let conn = self.conns.fetch_add(1, Relaxed) + 1;
        self.note(&ClientEvent::Open { conn, url, instance, epoch });
        conn
    }

    /// The same, and it is the one that is used from now on.
    pub(super) fn moved(&self, url: String, instance: String, epoch: String) -> u32 {
        // The first one is no return.
        if self.conns.load(Relaxed) > 0 {
            one(&self.shared.counters.reconnects);
        }
        self.state.opened(&instance);
        self.opened(url, instance, epoch)
    }

    pub(super) fn failed(&self, url: String, reason: String) {
        one(&self.shared.counters.failed_connects);
        self.note(&ClientEvent::Failed { url, reason });
    }

    /// The connection in use has ended.
    pub(super) fn closed(&self, conn: u32, code: Option<u16>, reason: &str) {
        self.state.closed();
        self.note(&ClientEvent::Closed { conn, code, reason: reason.to_owned() });
    }

    pub(super) fn subscribed(&self, conn: u32, at: Confirmed<'_>) {
        let Confirmed { room, after, head, epoch, recovered, asked } = at;
        let (room_name, epoch_name) = (room.to_owned(), epoch.to_owned());
        self.note(&ClientEvent::Subscribed {
            conn,
            room: room_name,
            after,
            head,
            epoch: epoch_name,
            recovered,
            asked,
        });
        self.state.subscribed(room, after, epoch);
    }

    pub(super) fn unsubscribed(&self, conn: u32, room: &str) {
        self.note(&ClientEvent::Unsubscribed { conn, room: room.to_owned() });
        self.state.left(room);
    }

    pub(super) fn got(&self, delivery: Delivery<'_>, data: &str) {
        // Written down before it is counted: whoever sees the number finds the line.
        let at = self.writer.got(&Delivery { hash: hash_of(data.as_bytes()), ..delivery });
        one(&self.shared.counters.delivered);
        self.state.reached(delivery.room, delivery.seq);
        if delivery.room == self.shared.beacon_room
            && let Some(sent_us) = message::sent_us(data)
        {
            self.shared.counters.deliveries.took(at, at.saturating_sub(sent_us));
        }
    }

    pub(super) fn skipped(&self, conn: u32, room: &str, from: u64, to: u64) {
        self.note(&ClientEvent::Skipped { conn, room: room.to_owned(), from, to });
        self.state.reached(room, to);
    }

    /// A message, a gap or a farewell; whether it was one of these.
    pub(super) fn heard(&self, conn: u32, frame: &ServerFrame<'_>) -> bool {
        if let Some(room) = &frame.msg {
            let from = frame.sender();
            let (seq, key) = (frame.seq.unwrap_or_default(), frame.key.as_deref());
            self.got(Delivery { conn, room, seq, from: &from, key, hash: 0 }, frame.bytes());
        } else if let Some(room) = &frame.skipped {
            let (from, to) = (frame.skipped_from().unwrap_or_default(), frame.to.unwrap_or_default());
            self.skipped(conn, room, from, to);
        }
        if let Some(drain) = &frame.drain {
            let (within_ms, reconnect_ms) = (drain.within_ms, drain.reconnect_ms);
            self.note(&ClientEvent::Drain { conn, within_ms, reconnect_ms });
        }
        if let Some(bye) = &frame.bye {
            let (code, reconnect, reconnect_ms) = (bye.code, bye.reconnect, bye.reconnect_ms);
            self.note(&ClientEvent::Bye { conn, code, reconnect, reconnect_ms });
        }
        frame.msg.is_some() || frame.skipped.is_some() || frame.drain.is_some() || frame.bye.is_some()
    }

    /// A subscription began, was resumed, or has another epoch; whether the frame says everything of it.
    pub(super) fn confirmed(&self, conn: u32, frame: &ServerFrame<'_>, asked: bool) -> bool {
        let (Some(room), Some(after), Some(head), Some(epoch), Some(recovered)) =
            (&frame.room, frame.after, frame.head, &frame.epoch, frame.recovered)
        else {
            return false;
        };
        self.subscribed(conn, Confirmed { room, after, head, epoch, recovered, asked });
        true
    }

    /// An error that answers no publish.
    pub(super) fn refused(&self, conn: u32, error: &ServerError) {
        let (code, message) = (error.code.clone(), error.message.clone());
        self.note(&ClientEvent::Error { conn, code, message });
    }

    /// Written down before it is sent: nobody can have it earlier. `first`: no resend.
    pub(super) fn sends(&self, conn: u32, message: &OutgoingMessage, first: bool) -> u64 {
        if first {
            one(&self.shared.counters.sent);
        }
        self.note(&message.send(conn))
    }

    /// `settles`: when the message was first sent, if this is the outcome that counts.
    pub(super) fn answered(&self, conn: u32, n: u64, outcome: PublishOutcome, settles: Option<u64>) {
        let counters = &self.shared.counters;
        let counter = match &outcome {
            PublishOutcome::Ok(_) => Some(&counters.acked),
            PublishOutcome::Refused(_) => Some(&counters.refused),
            PublishOutcome::GaveUp => Some(&counters.unknown),
            PublishOutcome::Again(_) => None,
        };
        let stored = matches!(outcome, PublishOutcome::Ok(_));
        let at = self.note(&ClientEvent::Answer { conn, n, outcome });
        // Only the answer that counts: another one for the same message is only written down.
        let Some(sent_us) = settles else { return };
        if let Some(counter) = counter {
            one(counter);
        }
        if stored {
            counters.acks.took(at, at.saturating_sub(sent_us));
        }
    }
}
