//! Logic as its callers see it: over gRPC, on stores that fail on purpose and on the real ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod delayed;
mod fake;
mod jwks;
#[cfg(feature = "servers")]
mod lives;
mod missed;
#[cfg(feature = "servers")]
mod outage;
#[cfg(feature = "servers")]
mod password;
mod presence;
#[cfg(feature = "servers")]
mod process;
mod publish;
mod read;
#[cfg(all(feature = "servers", not(feature = "seeded-bugs")))]
mod release;
mod revoked;
mod rig;
mod standby;
mod stop;
#[cfg(feature = "servers")]
mod stores;
mod tickets;
