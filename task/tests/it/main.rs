//! Task against real NATS, Redis and etcd; the gateways and logics it talks to are gRPC servers of the test.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod delivery;
mod duties;
mod gateway;
mod logic;
mod rig;
mod stop;
