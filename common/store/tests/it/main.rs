//! The store against real servers and real files: `cases` is what every store must do, run for each by its name
//! (`postgres::storm::…`, `sqlite::storm::…`); what only one of them knows stands in its folder. Each test has a
//! store of its own, started here and stopped by its pid.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[macro_use]
mod cases;
#[cfg(feature = "postgres")]
mod postgres;
mod rig;
#[cfg(feature = "sqlite")]
mod sqlite;
