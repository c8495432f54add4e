//! Presence against a real redis-server, with its outages, wipes and freezes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod redis;
mod server;
