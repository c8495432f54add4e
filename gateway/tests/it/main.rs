//! The gateway from outside: its machines against models, its drivers on in-memory parts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod delivery;
mod edge;
mod publish;
#[cfg(all(feature = "servers", not(feature = "seeded-bugs")))]
mod release;
