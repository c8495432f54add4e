//! Both clusters against one contract, and the one on a real etcd with its outages, wipes and freezes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod contract;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod secured;
mod solo;
