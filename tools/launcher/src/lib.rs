//! Starts a whole private Sluice: real NATS, etcd, Redis and PostgreSQL on free loopback ports, and any number of
//! gateways, logics and tasks as real processes. `sluice cluster` and the tests are both made of it.
//!
//! Every pid it shows is the server's own. Every child has its own process group, so that Ctrl-C reaches the
//! launcher alone, which then stops the children in order. It never ends a process that it did not start, but for
//! what an earlier launcher that was killed left in the same folder, and it never signals a pid that it has already
//! reaped. Children end also when the launcher is killed.
//!
//! ```no_run
//! # async fn example() -> Result<(), sluice_launcher::Error> {
//! use sluice_launcher::{Cluster, Options, Service};
//! let cluster = Cluster::start(Options { gateways: 2, logics: 2, tasks: 1, ..Options::default() }).await?;
//! let logic = cluster.logic(0);
//! logic.term();
//! let exit = logic.wait_exit(std::time::Duration::from_secs(8)).await?;
//! assert_eq!(exit.status.code(), Some(0));
//! cluster.start_replacement(Service::Logic).await?;
//! cluster.stop().await;
//! # Ok(()) }
//! ```

mod access;
pub mod certs;
mod cluster;
mod defaults;
mod doors;
mod engines;
mod error;
mod family;
mod find;
mod folder;
mod guard;
mod held;
mod leader;
mod log_reader;
mod node;
mod options;
mod port;
pub mod probe;
mod process;
pub mod provider;
mod record;
mod service;
mod store;
pub mod token;

pub use access::Credentials;
pub use cluster::{Cluster, Event, Stopped};
pub use doors::Doors;
pub use engines::{Engines, RedisKind};
pub use error::Error;
pub use find::service_binary;
pub use log_reader::LogReading;
pub use node::{Addresses, Node};
pub use options::{Options, Setting};
pub use port::Port;
pub use process::{Exit, Process};
pub use service::Service;

/// A signal for a child: [`Process::signal`].
pub use nix::sys::signal::Signal;
