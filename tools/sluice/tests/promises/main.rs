//! The promises of Sluice, tested on real processes: each body runs as `real::…` on a cluster with its own NATS, etcd, Redis
//! and PostgreSQL, and as `dev::…` on `sluice dev`, which is one process on embedded parts. What only one of them has stands
//! in its module: outages of servers, a frozen or killed service, settings and the command `sluice cluster` are `real`.
//!
//! Clients record what they were told and what they received; [`record::judge`] compares that with the table. Every wait
//! is for a condition and has a bound.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test's runtime")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at what it is about")]

#[macro_use]
mod kit;
#[cfg(feature = "dev")]
mod api_examples;
mod by_hand;
mod delayed;
mod deploys;
#[cfg(feature = "dev")]
mod dev;
mod history;
mod input;
#[cfg(feature = "dev")]
#[path = "../dev/rig.rs"]
#[allow(dead_code, reason = "the tests of one process need more of it")]
mod one_process;
mod pages;
mod real;
mod record;
mod resume;
mod slow;
