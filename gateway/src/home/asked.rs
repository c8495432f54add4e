//! What a home asks of logic, gathered over its rooms. Each call goes out with what it is for, and the
//! driver brings the same value back with the reply. Pure.

use sluice_proto::ids::{Epoch, RoomId, Seq};

use super::PageTo;
use crate::room::Call;
use crate::uplink::lane;

/// A call to make. Bring the value back: [`Asked::Publish`] to `published`, the others to their namesakes.
#[derive(Debug)]
pub enum Asked {
    /// One try of a lane's batch.
    Publish(PublishAsked),
    /// Store interest, then read heads.
    Subscribe(RoomsAsked),
    /// Remove interest.
    Remove(RoomsAsked),
    /// Read the heads of rooms.
    Heads(RoomsAsked),
    /// Read pages.
    Read(ReadAsked),
}

/// One try of a lane's batch.
#[derive(Debug)]
pub struct PublishAsked {
    /// Which lane.
    pub lane: u8,
    /// What to send.
    pub call: lane::Call,
}

/// Rooms, each with the number of the question it asked.
#[derive(Debug, Default)]
pub struct RoomsAsked(pub Vec<(RoomId, Call)>);

impl RoomsAsked {
    /// The rooms in the order of the reply.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.0.iter().map(|(room, _)| room)
    }
}

/// Ranges to read, each with who asked.
#[derive(Debug, Default)]
pub struct ReadAsked(pub Vec<RangeAsked>);

/// One range.
#[derive(Debug, Clone)]
pub struct RangeAsked {
    /// Which room.
    pub room: RoomId,
    /// Messages with a higher seq.
    pub after: Seq,
    /// Who asked.
    pub(super) reader: Reader,
}

/// Who asked for a range.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    /// The room repairs itself.
    Room(Call),
    /// All who joined the aligned page.
    Aligned(Epoch),
    /// One subscription.
    Single(PageTo),
}
