//! Both presences against one contract, and the one on a real redis-server with its freezes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod contract;
#[macro_use]
mod events;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod secured;
#[cfg(feature = "redis")]
mod sentinel;
