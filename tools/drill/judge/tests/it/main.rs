//! The judge against synthetic histories: good ones are green, and each way to break a promise is found by its name.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod broken;
mod folder;
mod good;
mod property;
mod records;
mod script;
mod simulation;
