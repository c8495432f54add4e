//! The vocabulary of Sluice: what crosses a process boundary. No I/O here.
//!
//! [`ids`] holds the names, [`grants`] what they are covered by, [`wire`] the client protocol (see `WIRE.md`), [`json`] what a
//! message may hold, [`revocation`] which tokens are refused by whom, [`grpc`] the messages between the services, [`limits`]
//! the constants of the wire version: equal in every process, because two
//! instances that judge an input differently would reorder a sender.

pub mod grants;
pub mod ids;
pub mod json;
pub mod limits;
pub mod revocation;
pub mod wire;

/// Messages and services between gateway, logic and task, generated from `schema/*.proto`.
#[expect(missing_docs, clippy::all, reason = "generated code; the documentation is in the schema")]
pub mod grpc {
    tonic::include_proto!("sluice.v1");
}

/// Messages and service for backends, generated from `schema/api.proto`.
#[expect(missing_docs, reason = "generated code; the documentation is in the schema")]
pub mod api {
    tonic::include_proto!("sluice.api.v1");

    /// The schema, as reflection tells it.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));
}

/// In the place of a code beside "not stored": somebody keeps the room locked in the store, so the next try may well find
/// it locked too.
pub const ROOM_LOCKED: &str = "room_locked";
