//! What can go wrong while launching, in words that say what to do next.

use std::path::PathBuf;
use std::time::Duration;

/// Why a cluster or one of its processes could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server or service binary is not on this machine.
    #[error("{name} was not found (looked in {looked}); {hint}")]
    NotFound {
        /// The program.
        name: String,
        /// Where it was looked for.
        looked: String,
        /// How to get it.
        hint: &'static str,
    },
    /// The folder is in use by another cluster.
    #[error("{0} is in use by another running cluster")]
    FolderInUse(PathBuf),
    /// A folder or file could not be made, read or removed.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process could not be started at all.
    #[error("{name} could not be started: {source}")]
    Spawn {
        /// Which.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); the end of its log:\n{log}")]
    Died {
        /// Which.
        name: String,
        /// Exit code or signal.
        status: std::process::ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A process lives but did not get ready.
    #[error("{name} was not ready after {after:?}: {last}; the end of its log:\n{log}")]
    NotReady {
        /// Which.
        name: String,
        /// How long was waited.
        after: Duration,
        /// The last thing it answered.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// A process still runs after the time it was given.
    #[error("{name} (pid {pid}) still runs after {after:?}")]
    StillRunning {
        /// Which.
        name: String,
        /// Its pid.
        pid: u32,
        /// How long was waited.
        after: Duration,
    },
    /// No free port was found.
    #[error("no free loopback port found: {0}")]
    NoPort(String),
    /// The cluster is being stopped.
    #[error("the cluster is stopping")]
    Stopping,
    /// No process with that index exists.
    #[error("there is no {}", .0.name(*.1))]
    NoSuch(crate::service::Service, usize),
    /// A setting could not be understood.
    #[error(
        "{0:?} is no setting: write SERVICE.KEY=VALUE, for example gateway.drain.rate_per_s=5, logic-1.log.level=debug (instances are counted from 1) or all.etcd.lease_ttl_s=2"
    )]
    Setting(String),
    /// Something that must not happen, said by the system.
    #[error("{0}")]
    System(String),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
