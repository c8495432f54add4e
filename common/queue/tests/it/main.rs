//! The queue against a real nats-server, with its outages, wipes and freezes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod jetstream;
mod server;
