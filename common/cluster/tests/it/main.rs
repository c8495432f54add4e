//! The cluster against a real etcd, with its outages, wipes and freezes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod etcd;
mod server;
