//! The promises of Sluice, tested against the real processes on real NATS, etcd, Redis and PostgreSQL.
//!
//! Clients record what they were told and what they received; [`record::Record::judge`] compares that with
//! the table. Every wait is for a condition and has a bound.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test's runtime")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at what it is about")]

mod by_hand;
mod command;
mod deploys;
mod history;
mod input;
mod kit;
mod outages;
mod record;
mod resume;
mod slow;
