//! Logic: authenticates, authorises, commits. The only writer of rooms and messages, and the only SQL client.
//!
//! Stateless, any number of them. Knows no sockets of clients, keeps nothing that the store does not have, and
//! makes no publish wait for the fan-out.

pub mod api;
pub mod app;
pub mod auth;
pub mod config;
pub mod defaults;
#[cfg(feature = "servers")]
pub mod deps;
mod disconnect;
mod due;
pub mod error;
mod jwks;
mod last;
pub mod metrics;
mod missed;
mod notices;
mod presence;
pub mod probe;
mod publish;
mod read;
mod revocations;
mod rpc;
#[cfg(feature = "servers")]
mod server_probes;
pub mod stages;
mod sweep;
mod tickets;
