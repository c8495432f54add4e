//! What every Sluice service stands on: the life of its process, configuration, telemetry, metrics, the admin
//! page, gRPC with our deadlines, natural batching, the wall clock. Knows no rooms, no messages and no service
//! by name.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod admin;
pub mod batcher;
pub mod bucket;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dependency;
pub mod grpc;
pub mod http;
pub mod lines;
pub mod listen;
pub mod metrics;
pub mod process;
pub mod seeded;
pub mod systemd;
pub mod telemetry;
pub mod tls;
pub mod untrusted;
