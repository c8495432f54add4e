//! What every program has in common, service or tool: how it reads its arguments, what it prints, which build it
//! is, where its secret is.
//! Knows no service, keeps no state and never ends the process.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod arguments;
pub mod build;
pub mod output;
pub mod secret;
