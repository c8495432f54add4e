//! What a session hands to its driver after a frame: the machine decides, the shard does
//! (`shard/requests.rs`).

use sluice_proto::ids::{Epoch, RoomId, Seq, UserId};
use sluice_proto::wire::codec::HistoryRange;

use crate::uplink::Publish;

/// The `id` of a request, as JSON text.
pub type RequestId = Option<Box<str>>;

/// What the driver has to do after a frame.
#[derive(Debug)]
pub enum Todo {
    /// Nothing: it was answered, or needs no answer.
    Nothing,
    /// Ask logic who this is; then [`Session::identified`](super::machine::Session::identified). No frame is taken until then.
    Authenticate {
        /// Empty: a new anonymous user.
        token: String,
    },
    /// Ask logic about a token beside the one that it has; then [`Session::vouched`](super::machine::Session::vouched). No
    /// frame is taken until then.
    Vouch {
        /// The token.
        token: String,
        /// It came with a `sub`, and is not for all of the connection.
        for_room: bool,
    },
    /// Grants are others: rooms that they do not open are left, and `info` is reported anew where it has changed.
    Regranted {
        /// The token says something else of its user.
        changes_info: bool,
    },
    /// Hand to the lane; the outcome comes back through [`Session::answered`](super::machine::Session::answered).
    Publish(Publish),
    /// Subscribe; the answer is the driver's.
    Subscribe {
        /// The room.
        room: RoomId,
        /// The last position seen.
        after: Option<Seq>,
        /// Epoch of `after`; one that could not be read differs from every epoch.
        epoch: Option<Result<Epoch, ()>>,
        /// Also told who comes and goes.
        watches: bool,
        /// The `id` to echo in the answer.
        id: RequestId,
    },
    /// Unsubscribe; the answer is the driver's.
    Unsubscribe {
        /// The room.
        room: RoomId,
        /// The `id` to echo in the answer.
        id: RequestId,
    },
    /// Read messages; the answer is the driver's.
    History {
        /// The room.
        room: RoomId,
        /// The messages that are asked for.
        range: HistoryRange,
        /// The most that is asked for.
        limit: u32,
        /// The `id` to echo in the answer.
        id: RequestId,
    },
    /// Ask who is there; the answer is the driver's.
    Presence {
        /// The room.
        room: RoomId,
        /// Only users that sort after this one.
        after: Option<UserId>,
        /// The most that is asked for.
        limit: u32,
        /// The `id` to echo in the answer.
        id: RequestId,
    },
}
