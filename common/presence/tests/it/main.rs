//! All presences against one contract, and those on real servers with what happens to these.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod contract;
#[macro_use]
mod events;
#[cfg(feature = "redis")]
mod cluster;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod secured;
#[cfg(feature = "redis")]
mod sentinel;
