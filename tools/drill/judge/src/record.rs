//! The records of a run: what is in the files of its folder. Plain data; [`crate`] judges it, the drill writes it.
//!
//! A folder holds `run.json` ([`RunRecord`]), any number of `client-*.jsonl` (lines of [`RecordEntry`]), `faults.jsonl` (lines of
//! [`FaultRecord`]), `delayed.jsonl` (lines of [`DelayedRecord`]),
//! `revocations.jsonl` (lines of [`RevocationRecord`]), `store.jsonl` (lines of [`StoreRow`]), `leftovers.json` ([`Leftovers`]), `samples.jsonl` (lines of [`Sample`])
//! and `logs/` (what the processes said). All times are microseconds of one monotonic clock that starts with the run.
//! Hashes are [`hash_of`] the bytes of `data`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Hash of a message's `data` bytes as sent or received.
#[must_use]
pub fn hash_of(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data)
}

/// One line of a client's file: `[at_us, client, what]`. Lines of one client are in the order in which things happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEntry(pub u64, pub u32, pub ClientEvent);

/// What happened at a client. `conn` counts the client's connections from 1; `n` counts its messages from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientEvent {
    /// The client begins; `user` is what others see as `from`. First line of every client.
    Client {
        /// Its name.
        user: String,
        /// What it does, for people: `sender`, `observer`, `churn`, `slow`, `stopped`, `beacon`, …
        role: String,
        /// How it is written: `library`, `plain`, `events`, `event-source`, `api`, `js`, `python`.
        kind: String,
    },
    /// A connection was welcomed.
    Open {
        /// Which connection.
        conn: u32,
        /// The URL it was made to.
        url: String,
        /// The instance that welcomed it.
        instance: String,
        /// The store's epoch as told.
        epoch: String,
    },
    /// A connection could not be made.
    Failed {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// A `sub` was sent.
    Sub {
        /// Over which connection.
        conn: u32,
        /// To which room.
        room: String,
        /// From where; `None` = from now.
        after: Option<u64>,
        /// The epoch given with it.
        epoch: Option<String>,
    },
    /// A subscription began, was resumed, or (`asked: false`) was told of another epoch.
    Subscribed {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// The effective position: the next message is `after + 1`.
        after: u64,
        /// Last seq known to exist.
        head: u64,
        /// The epoch of both.
        epoch: String,
        /// Whether the position asked for was kept.
        recovered: bool,
        /// Whether it answers a `sub` of this client.
        asked: bool,
    },
    /// A subscription ended, by the client's wish or by an error.
    Unsubscribed {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
    },
    /// A publish was put on the wire, or for the library handed to it (`conn` 0). The same `n` again is a resend. Of a
    /// backend: it begins to call; what it sends under one `conn` it sends one after the other, each once the former is
    /// answered.
    Send {
        /// Over which connection; 0 = the library decides.
        conn: u32,
        /// Which of the client's messages.
        n: u64,
        /// To which room.
        room: String,
        /// Its key; `None`: published without.
        key: Option<String>,
        /// Hash of its data.
        hash: u64,
        /// Length of its data.
        bytes: u32,
    },
    /// A publish was answered.
    Answer {
        /// Over which connection; 0 = the library's final answer.
        conn: u32,
        /// Which message.
        n: u64,
        /// How.
        outcome: PublishOutcome,
    },
    /// A message came.
    Got {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// Its position.
        seq: u64,
        /// Who published it.
        from: String,
        /// Its key, when its publisher chose one.
        key: Option<String>,
        /// Hash of its data.
        hash: u64,
    },
    /// Messages `from…to` were said to be gone.
    Skipped {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A page of history.
    History {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// Asked before this seq; `None` = the newest.
        before: Option<u64>,
        /// Oldest first.
        messages: Vec<PageMessage>,
    },
    /// The gateway asked to move.
    Drain {
        /// Over which connection.
        conn: u32,
        /// The gateway closes within this time.
        within_ms: u64,
        /// When to come back.
        reconnect_ms: u64,
    },
    /// Last words.
    Bye {
        /// Over which connection.
        conn: u32,
        /// Close code to come.
        code: u16,
        /// Whether to come back.
        reconnect: bool,
        /// When to come back.
        reconnect_ms: Option<u64>,
    },
    /// A user came into a room that is watched.
    UserJoined {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// Who came.
        user: String,
        /// When, as told, milliseconds since 1970.
        at_ms: i64,
    },
    /// A user left a room that is watched.
    UserLeft {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
        /// Who left.
        user: String,
        /// When, as told, milliseconds since 1970.
        at_ms: i64,
    },
    /// Joins and leaves of a room that is watched may have been missed.
    Stale {
        /// Over which connection.
        conn: u32,
        /// Of which room.
        room: String,
    },
    /// A connection ended.
    Closed {
        /// Which.
        conn: u32,
        /// Close code; `None` = it broke off.
        code: Option<u16>,
        /// Reason given, or what broke.
        reason: String,
    },
    /// The client stopped reading on purpose.
    Paused {
        /// Which connection.
        conn: u32,
    },
    /// It reads again.
    Unpaused {
        /// Which connection.
        conn: u32,
    },
    /// An error frame that answers no publish.
    Error {
        /// Over which connection.
        conn: u32,
        /// Its code.
        code: String,
        /// Its text.
        message: String,
    },
    /// The client ended by its own wish; nothing is expected of it after this. Whoever ends after
    /// [`RunRecord::settled_us`] has everything that anybody knew of by then.
    End,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishOutcome {
    /// Stored at this position.
    Ok(u64),
    /// `retry:false`, with its code.
    Refused(String),
    /// `retry:true`, with its code; `not_sent` = certainly not stored.
    Again(String),
    /// The client stopped asking without an answer.
    GaveUp,
}

/// A message as a page of history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageMessage {
    /// Its position.
    pub seq: u64,
    /// Who published it.
    pub from: String,
    /// Its key, when its publisher chose one.
    pub key: Option<String>,
    /// Hash of its data.
    pub hash: u64,
}

/// One fault: a line of `faults.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Round of the run it belongs to, from 1.
    pub round: u32,
    /// What was done, one name per kind, as tables show it: `term gateway`, `kill logic`, `freeze task 5s`, `wipe redis`, `cut gateway→logic`.
    pub kind: String,
    /// To whom: `gateway-1`, `redis`, `gateway→logic`.
    pub target: String,
    /// When it began.
    pub began_us: u64,
    /// When everything was whole again: the replacement ready, the process thawed, the network healed.
    pub healed_us: u64,
    /// Whether it hit: the process was there, the connections existed. A fault that hit nothing makes a run inconclusive.
    pub hit: bool,
    /// How the process ended, when it did.
    pub exit: Option<ProcessExit>,
    /// From this seq position on a restored store forgot; only for `restore`: when the copy was taken.
    pub copied_us: Option<u64>,
    /// A sentence more, for people.
    pub note: String,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// Exit code; `None` = by a signal.
    pub code: Option<i32>,
    /// From the signal to its end.
    pub took_ms: u64,
    /// Longest it may have taken; 0 = not judged (SIGKILL).
    pub budget_ms: u64,
}

/// A message as the store holds it at the end: a line of `store.jsonl`, in order of room and seq.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRow {
    /// Room.
    pub room: String,
    /// Position.
    pub seq: u64,
    /// Who published it.
    pub sender: String,
    /// Under which key; minted ones begin with `~`.
    pub key: String,
    /// Hash of its data.
    pub hash: u64,
    /// When, milliseconds since 1970 by the store's clock.
    pub at_ms: i64,
}

/// A message that was to be published later: a line of `delayed.jsonl`, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedRecord {
    /// Room.
    pub room: String,
    /// Who scheduled it.
    pub user: String,
    /// Under which key.
    pub key: String,
    /// Hash of its data.
    pub hash: u64,
    /// When it is due as answered, milliseconds since 1970 by the store's clock; `None` = it has no answer, and may be
    /// published or not.
    pub due_ms: Option<i64>,
    /// Published this much later it is late, milliseconds.
    pub late_ms: i64,
    /// What became of its cancel, if it was to be cancelled.
    pub cancel: Option<CancelOutcome>,
}

/// The answer to a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// It is not published.
    Cancelled,
    /// It was published already.
    TooLate,
    /// There was none.
    Unknown,
}

/// A user who was disconnected, and whose tokens were revoked: a line of `revocations.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRecord {
    /// Who.
    pub user: String,
    /// When the call began that was answered.
    pub called_us: u64,
    /// When it was answered: all gateways had been told.
    pub answered_us: u64,
    /// Every connection ends within this from the call on.
    pub within_us: u64,
    /// The connections that the user had when the call began.
    pub connections: Vec<RevokedConnection>,
    /// How often the token was tried in vain after the answer.
    pub refused: u64,
    /// Which instance welcomed the token all the same, and when that try began.
    pub accepted: Vec<(String, u64)>,
}

/// A connection of a user who was disconnected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedConnection {
    /// The instance that had it.
    pub instance: String,
    /// When it ended, for whatever reason; `None` = it did not.
    pub closed_us: Option<u64>,
    /// With which close code; `None` = it broke off.
    pub code: Option<u16>,
}

/// What is left when everything is at rest, and what presence said: `leftovers.json`. `None` = not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leftovers {
    /// Last seq given out of each room, from the store's own table of rooms.
    pub heads: BTreeMap<String, u64>,
    /// Outbox rows left.
    pub outbox_rows: Option<u64>,
    /// PostgreSQL sessions idle in a transaction.
    pub idle_in_transaction: Option<u64>,
    /// Keys in etcd that belong to no running instance.
    pub stray_etcd_keys: Option<Vec<String>>,
    /// Fields in Redis that belong to no running instance or open connection.
    pub stray_redis_fields: Option<Vec<String>>,
    /// Open files of each service process: before the load, and at rest after it.
    pub files: BTreeMap<String, (u64, u64)>,
    /// Users and connections per room as asked at the end, and how many were open.
    pub presence: Vec<PresenceAsked>,
}

/// What presence said of a room after healing, beside what was true. Users who had not read everything by then are in
/// neither: a slow reader has not read the end of its connection either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceAsked {
    /// Room.
    pub room: String,
    /// User → connections as answered.
    pub said: BTreeMap<String, u32>,
    /// User → connections that were open and subscribed to the room.
    pub open: BTreeMap<String, u32>,
}

/// How things stood at one moment: a line of `samples.jsonl`, four a second. For pictures; nothing is judged by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When.
    pub at_us: u64,
    /// Open connections of each gateway, by the name of its place (`gateway-1`); one that does not answer is missing.
    pub connections: BTreeMap<String, u64>,
    /// Publishes answered `ok` since the load began.
    pub acked: u64,
    /// Messages delivered since the load began.
    pub delivered: u64,
    /// 99 of 100 publishes answered in the last window were answered within this; 0 = none was.
    pub p99_us: u64,
}

/// What was asked of a run: `run.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The command line.
    pub command: String,
    /// Scenario.
    pub scenario: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Commit or version of what was drilled.
    pub build: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// How long the load lasted.
    pub load_us: u64,
    /// When sending ended: nobody hears a beacon after it. 0 = not said.
    pub sent_until_us: u64,
    /// When the last fault was healed and loads had ended: 10 s later every subscriber must have everything.
    pub settled_us: u64,
    /// Clients asked for.
    pub clients: u32,
    /// Publishes a second asked for, all senders together.
    pub rate_per_s: u32,
    /// Room that beacons publish to at a steady pace and everybody who measures silence subscribes to.
    pub beacon_room: String,
    /// Beacon messages a second.
    pub beacon_per_s: u32,
    /// Who is away for less than this never left for those who watch, milliseconds. 0 = nobody watches.
    pub leave_grace_ms: u64,
    /// Gateways cut short who was live and has fallen behind by more messages than this. 0 = as they do by themselves.
    pub max_behind: u64,
    /// What the names of a bad neighbour's rooms and users begin with, one for each. Neighbours write nothing down: what
    /// they publish to rooms of their own is nobody's phantom.
    pub neighbours: Vec<String>,
    /// The run was interrupted: nothing can be said.
    pub interrupted: bool,
}
