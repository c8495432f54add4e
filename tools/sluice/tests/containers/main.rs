//! The images, the compose files and `sluice roll` on a real Docker Engine: `make test-containers`. Everything runs one
//! after the other, on the ports that the compose files publish; what a test brought up it takes down again.
#![cfg(feature = "servers")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod cluster;
mod engine;
mod everything;
mod image;
mod load;
mod one;
mod secure;
mod serve;
