//! The store against real servers. Each test has its own PostgreSQL, started here and stopped by its pid.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod contract;
mod epochs;
mod errors;
mod naive;
mod reading;
mod rig;
mod server;
mod storm;
mod trust;
mod upkeep;
