//! Why task does not start. Failures of its work are not here: each costs latency only and is counted where it
//! happens.

use sluice_service::config::ConfigError;
use sluice_service::telemetry::BadLevel;

/// Why task does not start. The texts are for people and name the fix.
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
    /// An address of NATS, Redis or etcd is none.
    #[error("{0}")]
    Url(String),
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] std::io::Error),
}

impl StartError {
    /// 2 when somebody has to change the configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Contradictions(_) | Self::Log(_) | Self::Url(_) => 2,
            Self::Bind(_) => 1,
        }
    }
}
