//! `sluice dev` and `sluice serve` as people and programs use it: the real binary, real sockets, real signals, a real browser.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at what it is about")]

mod backup;
mod balancer;
mod browser;
#[cfg(feature = "servers")]
mod drilled;
mod emptied;
mod epoch;
mod events;
mod figures;
mod full;
mod kill;
mod later;
mod page;
mod reader;
mod readme;
mod refusals;
mod restart;
mod rig;
mod secure;
mod serve;
#[path = "../shared/sink.rs"]
mod sink;
mod status;
mod stdout;
mod stop;
