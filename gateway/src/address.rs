//! What shards say to each other. Only runs and hints may be dropped when a queue is full; everything
//! else is a level (the last value, sent when there is space) or bounded by its sender.

/// A shard of this gateway, 0…N-1.
pub type ShardIx = u16;

/// A connection: its shard, its slot there, and a generation because slots are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// Shard that owns the connection.
    pub shard: ShardIx,
    /// Slot in that shard's slab.
    pub slot: u32,
    /// Differs for each connection in a slot.
    pub generation: u32,
}

/// The home shard of a lane, of its rooms and of its publishes.
#[must_use]
pub fn home_of(lane: u8, shards: ShardIx) -> ShardIx {
    u16::from(lane) % shards.max(1)
}
