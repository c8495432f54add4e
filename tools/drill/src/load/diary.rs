//! One client's records, counters and standing, kept together so that they cannot disagree. It decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use sluice_checker::record::{Outcome, What, hash_of};

use super::letter::{self, Letter};
use super::plan::Part;
use super::standing::Standing;
use super::tally::one;
use super::world::World;
use crate::records::{Delivery, Scribe};

/// Code of endings that were the client's own wish: a server never sends it.
pub(super) const OWN_WISH: Option<u16> = Some(1000);

#[derive(Debug)]
pub(super) struct Diary {
    pub standing: Arc<Standing>,
    world: Arc<World>,
    scribe: Scribe,
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

impl Diary {
    /// Begins with who this is.
    pub(super) fn begin(world: Arc<World>, standing: Arc<Standing>, scribe: Scribe, part: &Part) -> Self {
        let (role, kind) = (part.role.name().to_owned(), part.kind.name().to_owned());
        scribe.note(&What::Client { user: part.user.clone(), role, kind });
        Self { standing, world, scribe, conns: AtomicU32::new(0) }
    }

    pub(super) fn note(&self, what: &What) -> u64 {
        self.scribe.note(what)
    }

    /// A connection was welcomed; its number.
    pub(super) fn opened(&self, url: String, instance: String, epoch: String) -> u32 {
        let conn = self.conns.fetch_add(1, Relaxed) + 1;
        self.note(&What::Open { conn, url, instance, epoch });
        conn
    }

    /// The same, and it is the one that is used from now on.
    pub(super) fn moved(&self, url: String, instance: String, epoch: String) -> u32 {
        if self.conns.load(Relaxed) > 0 {
            one(&self.world.tally.reconnects);
        }
        self.standing.opened(&instance);
        self.opened(url, instance, epoch)
    }

    pub(super) fn failed(&self, url: String, reason: String) {
        one(&self.world.tally.failed_connects);
        self.note(&What::Failed { url, reason });
    }

    /// The connection in use has ended.
    pub(super) fn closed(&self, conn: u32, code: Option<u16>, reason: &str) {
        self.standing.closed();
        self.note(&What::Closed { conn, code, reason: reason.to_owned() });
    }

    pub(super) fn subscribed(&self, conn: u32, at: Confirmed<'_>) {
        let Confirmed { room, after, head, epoch, recovered, asked } = at;
        let (room_name, epoch_name) = (room.to_owned(), epoch.to_owned());
        self.note(&What::Subscribed {
            conn,
            room: room_name,
            after,
            head,
            epoch: epoch_name,
            recovered,
            asked,
        });
        self.standing.subscribed(room, after, epoch);
    }

    pub(super) fn unsubscribed(&self, conn: u32, room: &str) {
        self.note(&What::Unsubscribed { conn, room: room.to_owned() });
        self.standing.left(room);
    }

    pub(super) fn got(&self, delivery: Delivery<'_>, data: &str) {
        let at = self.scribe.got(&Delivery { hash: hash_of(data.as_bytes()), ..delivery });
        one(&self.world.tally.delivered);
        self.standing.reached(delivery.room, delivery.seq);
        if delivery.room == self.world.beacon_room
            && let Some(sent_us) = letter::sent_us(data)
        {
            self.world.tally.deliveries.took(at, at.saturating_sub(sent_us));
        }
    }

    pub(super) fn skipped(&self, conn: u32, room: &str, from: u64, to: u64) {
        self.note(&What::Skipped { conn, room: room.to_owned(), from, to });
        self.standing.reached(room, to);
    }

    /// Written down before it is sent: nobody can have it earlier. `first`: no resend.
    pub(super) fn sends(&self, conn: u32, letter: &Letter, first: bool) -> u64 {
        if first {
            one(&self.world.tally.sent);
        }
        self.note(&letter.send(conn))
    }

    /// `settles`: when the message was first sent, if this is the outcome that counts.
    pub(super) fn answered(&self, conn: u32, n: u64, outcome: Outcome, settles: Option<u64>) {
        let tally = &self.world.tally;
        let counter = match &outcome {
            Outcome::Ok(_) => Some(&tally.acked),
            Outcome::Refused(_) => Some(&tally.refused),
            Outcome::GaveUp => Some(&tally.unknown),
            Outcome::Again(_) => None,
        };
        let stored = matches!(outcome, Outcome::Ok(_));
        let at = self.note(&What::Answer { conn, n, outcome });
        let Some(sent_us) = settles else { return };
        if let Some(counter) = counter {
            one(counter);
        }
        if stored {
            tally.acks.took(at, at.saturating_sub(sent_us));
        }
    }
}
