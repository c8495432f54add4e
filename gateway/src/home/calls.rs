//! What a home asks of logic, gathered over its rooms. Each call goes out with what it is for, and the
//! driver brings the same value back with the reply. Pure.

use sluice_proto::ids::{Epoch, RoomId, Seq};

use crate::room::CallId;
use crate::room::link::ShardId;
use crate::subscription::{ConnKey, SubKey};
use crate::uplink::lane;

/// A call to make. Bring the value back: [`HomeCall::Publish`] to `published`, the others to their namesakes.
#[derive(Debug)]
pub enum HomeCall {
    /// One try of a lane's batch.
    Publish(PublishCall),
    /// Store interest, then read heads.
    Subscribe(RoomsCall),
    /// Remove interest.
    Remove(RoomsCall),
    /// Read the heads of rooms.
    Heads(RoomsCall),
    /// Read pages.
    Read(ReadCall),
}

/// One try of a lane's batch.
#[derive(Debug)]
pub struct PublishCall {
    /// The lane of the batch.
    pub lane: u8,
    /// The batch to send.
    pub call: lane::BatchCall,
}

/// Rooms, each with the number of the question it asked.
#[derive(Debug, Default)]
pub struct RoomsCall(pub Vec<(RoomId, CallId)>);

impl RoomsCall {
    /// The rooms in the order of the reply.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.0.iter().map(|(room, _)| room)
    }
}

/// Ranges to read, each with who asked.
#[derive(Debug, Default)]
pub struct ReadCall(pub Vec<ReadTarget>);

/// One range of a Read and who waits for it.
#[derive(Debug, Clone)]
pub struct ReadTarget {
    /// The room.
    pub room: RoomId,
    /// Messages with a higher seq.
    pub after: Seq,
    /// Who asked for the range.
    pub(super) reader: ReadFor,
}

/// Whose turn it is in the queues to logic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A connection, by shard and slot there.
    Connection(ShardId, ConnKey),
    /// A room that repairs itself, or announces itself again.
    Room(RoomId),
}

/// Who asked for a range.
#[derive(Debug, Clone)]
pub(super) enum ReadFor {
    /// The room repairs itself.
    Room(CallId),
    /// All who joined the page.
    Page(PageOf),
}

/// A page that is asked for, and whoever joins gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PageOf {
    /// The aligned page of a room after a position.
    Aligned(RoomId, Epoch, Seq),
    /// From a subscription's own position.
    Single(RoomId, Epoch, Seq, ShardId, SubKey),
}
