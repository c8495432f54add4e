//! Task as gateways and logics see it, which are gRPC servers of the test: each body runs as `memory::…` on the parts inside
//! one process, and as `real::…` on NATS, Redis and etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod rig;
mod delivery;
mod duties;
mod firing;
mod gateway;
mod logic;
mod memory;
mod missed;
#[cfg(feature = "servers")]
mod real;
#[cfg(all(feature = "servers", not(feature = "seeded-bugs")))]
mod release;
mod standby;
mod stop;
