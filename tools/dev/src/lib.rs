//! Gateway, logic and task in one process, on what is embedded: SQLite for PostgreSQL, memory for NATS, Redis and etcd.
//! `sluice dev` and `sluice serve` are made of it, and so can tests be.
//!
//! The services are the very libraries that run as processes of their own, each with its own lifecycle inside an outer
//! one, so that one of them can be restarted while the others serve. In development everybody is let in, and nothing but
//! loopback is listened on; in production ([`Dev::serve`]) tokens are needed. No rule of delivery lives here.
//!
//! ```no_run
//! # async fn example() -> Result<(), sluice_dev::Error> {
//! use sluice_dev::{Dev, Options};
//! use sluice_lifecycle::{Lifecycle, StopReason};
//! let (lifecycle, engine) = Lifecycle::new(sluice_dev::plan());
//! let started = async {
//!     let dev = Dev::start(Options { gateways: 3, ..Options::in_memory("folder") }, &lifecycle).await?;
//!     println!("{}", dev.gateways()[0].ws);
//!     dev.restart("gateway-2").await.ok();
//!     lifecycle.stop(StopReason::Manual("done".into()));
//!     Ok::<_, sluice_dev::Error>(())
//! };
//! let (_report, started) = tokio::join!(engine.run(), started);
//! started
//! # }
//! ```

mod dev_config;
mod embedded;
mod error;
mod event;
mod folder;
mod identities;
mod options;
mod page;
mod ports;
mod secret;
mod serve;
mod shared_store;
mod stages;
mod start;
mod supervised;
mod supervisor;

pub use error::{Error, Refused};
pub use event::Event;
pub use folder::{Kind, State, StoppedStore, backup, new_epoch, restore};
pub use options::Options;
pub use serve::{Example, ServeConfig, write_example};
pub use stages::plan;
pub use supervisor::{Dev, Gateway, Logic, Restarted};

/// What a request that changes something has to carry: a page of another site cannot send it unasked.
pub const HEADER: (&str, &str) = ("x-sluice-dev", "1");
