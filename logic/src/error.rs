//! Why a call failed, and the one place where that becomes a gRPC status. Publishes are not here: their
//! failures are outcomes of items.

use sluice_presence::PresenceError;
use sluice_proto::ids::InvalidName;
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
    /// A ticket that stands for nothing, any more.
    #[error("this ticket was used, has expired, or never was one: POST /ticket gives another")]
    NoTicket,
    /// Redis, which keeps the tickets, did not answer.
    #[error("tickets cannot be kept or taken now: {0}")]
    TicketsAway(PresenceError),
    /// Too many of the same kind are under way.
    #[error("{0}")]
    Full(String),
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
            CallError::Auth(_) | CallError::NoTicket => Self::unauthenticated(text),
            // Neither: it says nothing of this process, and another logic has the same Redis.
            CallError::TicketsAway(_) => Self::failed_precondition(text),
            // Not `unavailable`: callers would take it for a word about this process, and let it rest.
            CallError::Full(_) => Self::resource_exhausted(text),
            CallError::Presence(_) | CallError::NotNow(_) => Self::unavailable(text),
            CallError::Store(error) => match error.class() {
                Class::Reject => Self::invalid_argument(text),
                Class::Retry | Class::Unknown | Class::TooLate => Self::unavailable(text),
            },
        }
    }
}
