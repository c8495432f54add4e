//! What crosses the pipe between the measuring process and its workers, one JSON object per line: the job first,
//! then commands one way and snapshots the other. No behaviour.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_load::samples::Quantiles;

/// The job of a worker, its first line of input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Clients of a gateway, or of a floor.
    Load(Load),
    /// A server that only writes.
    Floor(Floor),
    /// Clients that behave, and time everything.
    Honest(Place),
    /// A bad neighbour.
    Habit(String, Place),
}

/// Where clients go, and with whose names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub address: SocketAddr,
    /// Signs their tokens.
    pub secret: String,
    /// What names of users and rooms begin with.
    pub tag: String,
}

/// Where clients connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Entrance {
    /// In clear.
    Address(SocketAddr),
    /// As the URL says, `ws://` or `wss://`; which authority is trusted beside the public ones, PEM.
    Url(String, Option<PathBuf>),
}

impl From<SocketAddr> for Entrance {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// Clients. Publishers and subscribers in one worker share a clock, so that deliveries can be timed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Signs the tokens of the clients.
    pub secret: String,
    /// Rooms are named `<tag>.<number>`, so that each run has its own.
    pub tag: String,
    /// How many rooms; client n uses room n modulo this, a publisher all in turn.
    pub rooms: usize,
    pub subscribers: Option<Subscribers>,
    pub publishers: Option<Publishers>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subscribers {
    pub to: Entrance,
    pub connections: usize,
    /// Whether every 16th client checks that seq is contiguous.
    pub check: bool,
    /// Whether deliveries are timed; needs the publishers in the same worker.
    pub timed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Publishers {
    pub to: Entrance,
    pub connections: usize,
    /// Bytes of `data`, JSON quotes included.
    pub data_bytes: usize,
    pub pace: Pace,
    /// A key of the API that is there: publishes are calls, one at a time on each connection. `None`: frames to a
    /// gateway.
    pub api_key: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// Each connection keeps this many publishes unanswered.
    Closed { depth: usize },
    /// This many publishes a second over all connections, whatever the answers do.
    Open { per_s: u32 },
}

/// The bare loop that a gateway is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub rooms: usize,
    pub data_bytes: usize,
    /// So many messages of a room come at once.
    pub burst: u32,
    /// Messages a second over all rooms; `None` = as many as the sockets take.
    pub per_s: Option<u32>,
}

/// What the measuring process says to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Begin to publish, or to write.
    Go,
    /// Send a snapshot, for progress.
    Peek,
    /// Send a snapshot and forget the latencies so far: a window begins or ends.
    Mark,
}

/// What a worker says when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// From the first connect until all clients were greeted and subscribed, seconds.
    pub took_s: f64,
    /// Floor: where it listens.
    pub address: Option<SocketAddr>,
}

/// Counters since the start of the worker, and latencies since the last mark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Since the start of the worker, seconds.
    pub at_s: f64,
    pub published: u64,
    pub acked: u64,
    pub delivered: u64,
    /// Reads of subscribers that brought something: delivered / reads is how much was coalesced on the way.
    pub reads: u64,
    /// Breaks in the order of seq that were not announced by `skipped`.
    pub gaps: u64,
    /// Frames that say that messages will not come.
    pub skipped: u64,
    /// Errors, byes and closes.
    pub troubles: u64,
    /// The first of them.
    pub trouble: Option<String>,
    pub ack: Option<Quantiles>,
    pub delivery: Option<Quantiles>,
}

impl Snapshot {
    /// Adds another worker's part; latencies are those of the one that has any.
    pub(crate) fn add(&mut self, other: Self) {
        self.at_s = self.at_s.max(other.at_s);
        self.published += other.published;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.reads += other.reads;
        self.gaps += other.gaps;
        self.skipped += other.skipped;
        self.troubles += other.troubles;
        self.trouble = self.trouble.take().or(other.trouble);
        self.ack = self.ack.or(other.ack);
        self.delivery = self.delivery.or(other.delivery);
    }
}
