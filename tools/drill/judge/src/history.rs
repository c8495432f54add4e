//! A run in memory, compact enough for tens of millions of deliveries: 32 bytes for each, names as numbers, messages
//! known by who sent them, under which key, with which hash. It judges nothing.

pub mod lines;
mod loading;
pub mod names;
mod store;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::record::{ClientEvent, DelayedRecord, FaultRecord, Leftovers, RevocationRecord, RunRecord};
pub use loading::Loading;
pub use names::{NONE, Names};

/// Messages younger than this are never trimmed by retention, whatever is configured: the product's shortest.
pub const KEPT_US: u64 = 3_600 * 1_000_000;

/// Everything that was written down.
#[derive(Debug, Default)]
pub struct History {
    /// What was asked for.
    pub run: RunRecord,
    /// Faults, in order of their beginning.
    pub faults: Vec<FaultRecord>,
    /// When the store went back in time.
    pub restores: Vec<Restore>,
    /// What was left at rest, if it was looked at.
    pub leftovers: Option<Leftovers>,
    /// Heads as in `leftovers`, by room.
    pub heads: BTreeMap<u32, u64>,
    /// Names of rooms.
    pub rooms: Names,
    /// Names of users.
    pub users: Names,
    /// Keys.
    pub keys: Names,
    /// Epochs and error codes.
    pub words: Names,
    /// Epochs as told by servers, in the order of their first sight.
    pub epochs: Vec<(u64, u32)>,
    /// All clients.
    pub clients: Vec<ClientHistory>,
    /// All messages sent, delivered or stored, by what they are.
    pub messages: Vec<MessageIdentity>,
    /// Messages as clients sent them.
    pub sent: Vec<SentMessage>,
    /// Each time one was put on the wire.
    pub sendings: Vec<Sending>,
    /// Each answer to a publish.
    pub answers: Vec<PublishAnswer>,
    /// The store at the end, by room and seq.
    pub rows: Vec<StoredRow>,
    /// Where in `rows` each room is.
    pub by_room: Vec<Range<usize>>,
    /// Whether there was a `store.jsonl`.
    pub has_store: bool,
    /// Messages that were to be published later, by room, user and key.
    pub delayed: BTreeMap<(u32, u32, u32), DelayedRecord>,
    /// Users who were disconnected.
    pub revocations: Vec<RevocationRecord>,
    /// Answers to what was not sent: index of the client, its step, which `n`.
    pub strays: Vec<(u32, u32, u64)>,
    /// Files that end in the middle of a line.
    pub cut_files: Vec<String>,
    /// Time of the last line.
    pub end_us: u64,
}

/// A client and what happened at it.
#[derive(Debug)]
pub struct ClientHistory {
    /// Its number in the records.
    pub id: u32,
    /// Its user.
    pub user: u32,
    /// What it does.
    pub role: String,
    /// Whether a library speaks for it: then connections are the library's business. So it is with a backend, whose
    /// publish is one sending however often it calls.
    pub library: bool,
    /// What happened, in order.
    pub steps: Vec<ClientStep>,
}

impl ClientHistory {
    /// Whether it reads late or never on purpose: nothing is expected to reach it in time.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        matches!(self.role.as_str(), "slow" | "stopped" | "paused")
    }
}

/// One line of a client.
#[derive(Debug)]
pub struct ClientStep {
    /// When.
    pub at_us: u64,
    /// What.
    pub act: StepKind,
}

/// What happened; numbers in place of names.
#[derive(Debug)]
pub enum StepKind {
    /// A message came.
    Got {
        /// Its position.
        seq: u64,
        /// Its room.
        room: u32,
        /// Which message.
        message: u32,
        /// Over which connection.
        conn: u32,
    },
    /// One of [`History::sendings`].
    Send(u32),
    /// One of [`History::answers`].
    Answer(u32),
    /// A `sub`.
    Sub(Box<SubSent>),
    /// An answer to it, or news of another epoch.
    Subscribed(Box<SubAnswered>),
    /// A told gap.
    Skipped(Box<SkippedRange>),
    /// The end of a subscription.
    Unsubscribed {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: u32,
    },
    /// A page of history.
    Page(Box<HistoryPage>),
    /// Anything rarer, as it was written.
    Other(Box<ClientEvent>),
}

/// As [`ClientEvent::Sub`].
#[derive(Debug, Clone, Copy)]
pub struct SubSent {
    /// Over which connection.
    pub conn: u32,
    /// To which room.
    pub room: u32,
    /// From where.
    pub after: Option<u64>,
    /// The epoch given, or [`NONE`].
    pub epoch: u32,
}

/// As [`ClientEvent::Subscribed`].
#[derive(Debug, Clone, Copy)]
pub struct SubAnswered {
    /// Over which connection.
    pub conn: u32,
    /// Of which room.
    pub room: u32,
    /// The position in force.
    pub after: u64,
    /// Last seq known to exist.
    pub head: u64,
    /// Epoch of both.
    pub epoch: u32,
    /// Whether the position asked for was kept.
    pub recovered: bool,
    /// Whether it answers a `sub`.
    pub asked: bool,
}

/// As [`ClientEvent::Skipped`].
#[derive(Debug, Clone, Copy)]
pub struct SkippedRange {
    /// Over which connection.
    pub conn: u32,
    /// Of which room.
    pub room: u32,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// As [`ClientEvent::History`].
#[derive(Debug)]
pub struct HistoryPage {
    /// Over which connection.
    pub conn: u32,
    /// Of which room.
    pub room: u32,
    /// Asked before this seq.
    pub before: Option<u64>,
    /// Seq and message, as they came.
    pub messages: Vec<(u64, u32)>,
}

/// A message by what it is. Minted keys are nobody's choice: they count as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageIdentity {
    /// Who published it.
    pub user: u32,
    /// The key that its publisher chose, or [`NONE`].
    pub key: u32,
    /// Hash of its data.
    pub hash: u64,
    /// First of [`History::sent`] that is this message, or [`NONE`].
    pub sent: u32,
    /// First of [`History::rows`] that is this message, or [`NONE`].
    pub row: u32,
}

/// A message as a client sent it, however often.
#[derive(Debug, Clone, Copy)]
pub struct SentMessage {
    /// Index of the client.
    pub client: u32,
    /// Which of its messages.
    pub n: u64,
    /// To which room.
    pub room: u32,
    /// Which message.
    pub message: u32,
    /// When it was first put on the wire.
    pub first_us: u64,
    /// When the client stopped asking; 0 = never.
    pub gave_up_us: u64,
    /// Its last sending.
    pub last: u32,
    /// Another client's sending of the same, or [`NONE`].
    pub next: u32,
}

/// A message put on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Which of [`History::sent`].
    pub sent: u32,
    /// Over which connection; 0 = the library decides.
    pub conn: u32,
    /// Which step of its client.
    pub step: u32,
    /// Length of its data.
    pub bytes: u32,
    /// Its answer, or [`NONE`].
    pub answer: u32,
    /// The sending of the same before it, or [`NONE`].
    pub before: u32,
}

/// An answer to a publish.
#[derive(Debug, Clone, Copy)]
pub struct PublishAnswer {
    /// Which of [`History::sent`].
    pub sent: u32,
    /// Over which connection.
    pub conn: u32,
    /// Which step of its client.
    pub step: u32,
    /// When.
    pub at_us: u64,
    /// How.
    pub fate: Fate,
}

/// As [`crate::record::PublishOutcome`], codes as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Stored.
    Ok(u64),
    /// Refused for good.
    Refused(u32),
    /// To be sent again.
    Again(u32),
    /// Not asked for any more.
    GaveUp,
}

/// A row of the store.
#[derive(Debug, Clone, Copy)]
pub struct StoredRow {
    /// Room.
    pub room: u32,
    /// Position.
    pub seq: u64,
    /// Which message.
    pub message: u32,
    /// The key of the row, minted or chosen.
    pub key: u32,
    /// The store's time.
    pub at_ms: i64,
    /// When somebody first knew of it by an `ok` or a delivery; `u64::MAX` = never.
    pub known_us: u64,
    /// Another row with the same message, or [`NONE`].
    pub next: u32,
}

/// The store went back to a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// What was there then is there again.
    pub copied_us: u64,
    /// When it was put back.
    pub healed_us: u64,
}

impl History {
    /// Whether something first known at this time may have gone with a store that was put back.
    #[must_use]
    pub fn may_be_lost(&self, at_us: u64) -> bool {
        self.restores.iter().any(|restore| restore.copied_us < at_us && at_us <= restore.healed_us)
    }

    /// Whether retention may have removed this position, known at this time.
    #[must_use]
    pub fn may_be_trimmed(&self, room: u32, seq: u64, at_us: u64) -> bool {
        // Both: old enough to go, and below what is there. A hole above the oldest is nobody's retention.
        at_us.saturating_add(KEPT_US) <= self.end_us && seq < self.oldest(room)
    }

    /// The epoch of the store as it is at the end; [`NONE`] if nobody was told.
    #[must_use]
    pub fn last_epoch(&self) -> u32 {
        self.epochs.last().map_or(NONE, |(_, epoch)| *epoch)
    }

    /// The sendings of a message, the last first.
    pub fn sendings_of(&self, sent: &SentMessage) -> impl Iterator<Item = (u32, &Sending)> {
        let mut at = sent.last;
        std::iter::from_fn(move || {
            let sending = self.sendings.get(at as usize)?;
            let found = (at, sending);
            at = sending.before;
            Some(found)
        })
    }

    /// How a sending was answered.
    #[must_use]
    pub fn fate(&self, sending: &Sending) -> Option<Fate> {
        self.answers.get(sending.answer as usize).map(|answer| answer.fate)
    }

    /// Whether this answer says for certain that its sending stored nothing.
    #[must_use]
    pub fn is_not_stored(&self, fate: Option<Fate>) -> bool {
        match fate {
            Some(Fate::Refused(_)) => true,
            // Any other `retry:true` leaves it open whether it was stored.
            Some(Fate::Again(code)) => self.words.name(code) == "not_sent",
            Some(Fate::Ok(_) | Fate::GaveUp) | None => false,
        }
    }

    /// Who sent this message to this room, and as which of theirs.
    pub fn sent_as(&self, room: u32, message: u32) -> impl Iterator<Item = (u32, &SentMessage)> {
        let mut at = self.messages.get(message as usize).map_or(NONE, |message| message.sent);
        let all = std::iter::from_fn(move || {
            let sent = self.sent.get(at as usize)?;
            let found = (at, sent);
            at = sent.next;
            Some(found)
        });
        all.filter(move |(_, sent)| sent.room == room)
    }
}
