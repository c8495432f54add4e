//! Task: moves committed messages from the queue to the gateways that want them, and drives owed work.
//!
//! No SQL, no client sockets, no state worth keeping: a notice that is lost here costs latency only. Never looks
//! into a message and never waits for a gateway that lags.

pub mod app;
pub mod config;
mod consumer;
pub mod defaults;
#[cfg(feature = "servers")]
pub mod deps;
mod duties;
mod fanout;
mod last;
pub mod metrics;
mod outlet;
#[cfg(feature = "servers")]
mod server_probes;
pub mod stages;
