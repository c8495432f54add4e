//! Behaviour of the crate from outside: real sockets on loopback, real tonic at both ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod admin;
mod batcher;
mod channels;
mod config;
mod node;
mod server;
mod tls;
