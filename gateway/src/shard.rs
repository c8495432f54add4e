//! A shard: one thread with its own runtime that owns its connections and what they are subscribed to.
//! Nothing in it is locked and nothing in it is shared.

pub mod inbound;
pub mod wheel;
