//! Who is connected and in which rooms, told to logic: changes in batches, merged by key while logic or
//! Redis is away; everything at once (a full set) when Redis forgot, when this instance has a new id, and
//! every ten minutes. Never waits with a change while nothing is in flight.
//!
//! [`change`] says what can change, `pending` merges what waits, [`reporter`] tells it.

pub mod change;
mod pending;
pub mod reporter;

use sluice_proto::grpc::StatusChange;
use tokio::sync::oneshot;

/// From a shard, in its order.
#[derive(Debug)]
pub enum Report {
    /// Changes since the last report.
    Changes(Vec<StatusChange>),
    /// A part of everything this shard has, for the full set of this generation.
    FullSetPart(u64, Vec<StatusChange>),
    /// That was everything, for the full set of this generation.
    FullSetEnd(u64),
    /// Changes were forgotten, as there were too many: only a full set can tell.
    Lost,
    /// Answer when everything before this is told, or given up.
    Mark(oneshot::Sender<()>),
    /// The end of what waited, as was asked.
    End,
}
