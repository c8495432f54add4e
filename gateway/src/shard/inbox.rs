//! What comes through a shard's queue: orders from the rest of the process, messages from other shards.
//! Values only; [`super::handle`] and [`super::peers`] send them, the shard takes them.

use std::net::TcpStream;
use std::sync::Arc;

use sluice_proto::grpc::RoomRun;
use sluice_proto::ids::{Epoch, RoomId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::removals::Removals;
use super::watchers::RoomTelling;
use crate::address::Address;
use crate::drain::pace::Pace;
use crate::home::PageTo;
use crate::pushers::PusherId;
use crate::room::link::{HandOver, Need, Page, Run};
use crate::uplink::{Answered, Publish};

/// What comes through a shard's queue.
#[derive(Debug)]
pub enum Incoming {
    /// From the rest of the process.
    Order(Order),
    /// A message of another shard.
    Peer(ShardMessage),
}

/// What a shard is told by the rest of the process.
#[derive(Debug)]
pub enum Order {
    /// A client has connected; the handshake is to come.
    Socket(TcpStream),
    /// Pushed by a task: runs whose home is this shard.
    Pushed {
        /// Of all of them.
        epoch: Epoch,
        /// The stream they came on.
        by: PusherId,
        /// The runs of the push.
        runs: Vec<RoomRun>,
    },
    /// Pushed by a task: who came into rooms and left them, wherever somebody watches.
    Told(Arc<[RoomTelling]>),
    /// Redis had forgotten, and knows everything again: who watches may have missed something.
    Stale,
    /// Tell the reporter everything, as this generation; until it is told no interest is removed.
    BeginFullSet {
        /// Names the full set.
        generation: u64,
    },
    /// Everything of all shards is told, or the full set is given up.
    FullSetEnded,
    /// Tell the reporter what waits, and where it ends.
    FlushReports,
    /// Tell all clients to leave, at this pace; answer when all are told.
    Notify(Pace, Leaving, oneshot::Sender<()>),
    /// Close all connections; answer when all are gone.
    Close(Close, oneshot::Sender<()>),
    /// End what the application wants ended; answer how many there were.
    Remove(Arc<Removals>, oneshot::Sender<u32>),
    /// A drain by an operator is called off: who has not been closed stays.
    Stay,
}

/// Why clients leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// The process stops.
    Stop,
    /// An operator wants them elsewhere; the process stays.
    Drain,
}

/// How a shard closes its connections.
#[derive(Debug, Clone, Copy)]
pub struct Close {
    /// How fast connections are closed.
    pub pace: Pace,
    /// Why they are closed.
    pub leaving: Leaving,
    /// The close code.
    pub code: u16,
    /// When publishes without outcome are given up.
    pub give_up_at: Instant,
    /// When what is still there is dropped.
    pub drop_at: Instant,
}

/// From a shard to another.
#[derive(Debug)]
pub enum ShardMessage {
    /// To the home: what a shard wants of a room, and the connection that caused it.
    Need(usize, RoomId, Need, Option<Address>),
    /// To the home: a publish.
    Publish(Publish),
    /// To the home: a page is asked for.
    Ask(PageTo),
    /// From the home: the next messages of a room.
    Run(RoomId, Run),
    /// From the home: where a room stands.
    HandOver(RoomId, HandOver),
    /// From the home: the outcome of a publish.
    Answered(Answered),
    /// From the home: a page; `None` = it failed.
    Page(PageTo, Option<Page>),
    /// From the home: what a connection caused by leaving a room is done.
    Released(Address),
    /// To every home: all rooms announce their interest again.
    AnnounceAll,
}
