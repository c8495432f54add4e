//! Why a call failed, and the one place where that becomes a gRPC status. Publishes are not here: their
//! failures are outcomes of items.

use sluice_presence::PresenceError;
use sluice_proto::ids::InvalidName;
use sluice_service::config::ConfigError;
use sluice_service::telemetry::BadLevel;
use sluice_store::{Class, StoreError};
use tonic::Status;

use crate::auth::AuthError;
use crate::publish::validate::InvalidCall;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request breaks a rule of the schema: a mistake in the caller.
    #[error("{0}")]
    Invalid(String),
    /// The token was refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis failed.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// This process cannot answer now; another one may.
    #[error("{0}")]
    NotNow(String),
}

impl From<InvalidName> for CallError {
    fn from(error: InvalidName) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<InvalidCall> for CallError {
    fn from(error: InvalidCall) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::Invalid(_) => Self::invalid_argument(text),
            CallError::Auth(_) => Self::unauthenticated(text),
            CallError::Presence(_) | CallError::NotNow(_) => Self::unavailable(text),
            CallError::Store(error) => match error.class() {
                Class::Reject => Self::invalid_argument(text),
                Class::Retry | Class::Unknown | Class::TooLate => Self::unavailable(text),
            },
        }
    }
}

/// Why logic does not start. The texts are for people and name the fix.
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
    /// The store cannot be used as it is configured.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] std::io::Error),
}

impl StartError {
    /// 2 when somebody has to change the configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Contradictions(_) | Self::Log(_) | Self::Url(_) | Self::Store(_) => 2,
            Self::Bind(_) => 1,
        }
    }
}
