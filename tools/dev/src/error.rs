//! What can go wrong, in words that say what to do next.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_store::StoreError;
use sluice_store::sqlite::BackupError;

use crate::folder::Kind;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an address of this machine alone.
    #[error(
        "{0} can be reached by others, and `sluice dev` lets everybody in: it listens on loopback only. On a network run \
         `sluice serve`, or the three services, sluice-gateway, sluice-logic and sluice-task (deploy/config.md)"
    )]
    NotLoopback(IpAddr),
    /// There is nothing to connect to.
    #[error("at least one gateway is needed")]
    NoGateway,
    /// Two processes would write one file.
    #[error("`{kind}` runs in {} already: stop it first, or choose another folder with {}", path.display(), option(*kind))]
    InUse {
        /// What runs there.
        kind: Kind,
        /// Which folder.
        path: PathBuf,
    },
    /// Nothing was kept there yet.
    #[error("no `sluice serve` and no `sluice dev` has kept messages in {}: name its folder with --dir", .0.display())]
    NoStore(PathBuf),
    /// The port that was asked for belongs to somebody else.
    #[error("port {0} is taken; choose another with --port, or leave --port out")]
    PortTaken(u16),
    /// No port is free.
    #[error(transparent)]
    NoPort(#[from] sluice_launcher::Error),
    /// A file or folder cannot be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The remembered state cannot be read.
    #[error("{} cannot be read ({reason}); remove it, and clients get new anonymous names", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no copy, or none was put back.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The configuration contradicts itself: one sentence each.
    #[error("{}", .0.join("\n"))]
    Contradictions(Vec<String>),
    /// A service or the page did not start.
    #[error("{0}: {1}")]
    Start(String, String),
}

/// How another folder is chosen.
fn option(kind: Kind) -> &'static str {
    match kind {
        Kind::Dev => "--dir",
        Kind::Serve => "--set dir=FOLDER",
    }
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// 2 when somebody has to ask for something else, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotLoopback(_)
            | Self::NoGateway
            | Self::InUse { .. }
            | Self::NoStore(_)
            | Self::Contradictions(_)
            | Self::PortTaken(_) => 2,
            Self::State { .. } | Self::Store(StoreError::Misconfigured(_)) => 2,
            Self::NoPort(_) | Self::File { .. } | Self::Store(_) | Self::Backup(_) | Self::Start(..) => 1,
        }
    }
}

/// Why a service is not restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such place.
    #[error("there is no {0:?}; there are: {1}")]
    Unknown(String, String),
    /// It is being restarted already.
    #[error("{0} is being restarted already")]
    Busy(String),
    /// Everything stops.
    #[error("everything stops")]
    Stopping,
    /// It did not come back in time: its stop as it is configured, and a start.
    #[error("{0} was not ready again within {1:?}; its log says why")]
    Late(String, Duration),
}
