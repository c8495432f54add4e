//! The drill: load on a running Sluice, faults in the middle of it, an independent judge at the end.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod bites;
pub mod clock;
pub mod doors;
pub mod fault;
pub mod links;
pub mod load;
pub mod place;
pub mod proxy;
pub mod records;
mod redis_link;
pub mod run;
pub mod scenario;
pub mod seed;
pub mod target;
