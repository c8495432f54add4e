//! The gateway: holds client sockets. No business rules, no durable state: everything it knows can be
//! rebuilt. It speaks gRPC and etcd only, never SQL, Redis or NATS.

pub mod address;
pub mod agent_check;
pub mod app;
pub mod calls;
pub mod config;
pub mod defaults;
#[cfg(feature = "servers")]
pub mod deps;
pub mod disconnect;
pub mod drain;
pub mod ending;
pub mod fair_queue;
pub mod files;
pub mod handshake;
pub mod headroom;
pub mod home;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod push;
pub mod pushers;
pub mod refusals;
pub mod repair;
pub mod revocations;
pub mod room;
pub mod rules;
#[cfg(feature = "servers")]
mod server_probes;
pub mod session;
pub mod shard;
pub mod slow_client;
pub mod stages;
pub mod status;
pub mod subscription;
pub mod tick;
pub mod uplink;
pub mod view;
