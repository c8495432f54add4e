//! Both queues against one contract, and the one on a real nats-server with its freezes and losses.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod contract;
#[cfg(feature = "jetstream")]
mod jetstream;
mod memory;
#[cfg(feature = "jetstream")]
mod operator;
#[cfg(feature = "jetstream")]
mod secured;
