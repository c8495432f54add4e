//! Why a gateway does not start. The texts are for people and name the fix; what goes wrong for one client
//! is told to that client.

use sluice_service::config::ConfigError;
use sluice_service::telemetry::BadLevel;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A source of the configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration contradicts itself: one sentence each.
    #[error("{}", .0.join("\n"))]
    Contradictions(Vec<String>),
    /// The log level cannot be read.
    #[error(transparent)]
    Log(#[from] BadLevel),
    /// An address of etcd is none.
    #[error("{0}")]
    Url(String),
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] std::io::Error),
    /// A shard's thread or runtime did not start.
    #[error("cannot start shard {shard}: {source}")]
    Shard {
        /// Which.
        shard: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StartError {
    /// 2 when somebody has to change the configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Contradictions(_) | Self::Log(_) | Self::Url(_) => 2,
            Self::Bind(_) | Self::Shard { .. } => 1,
        }
    }
}
