//! Why a call failed, and the one thing that matters about it: was anything stored?
//!
//! Never claims "not stored" on a guess.

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Certainly not stored; the same call may succeed later.
    Retry,
    /// Certainly not stored, and an item of the group will never be ("poison"): run the items singly.
    Reject,
    /// May or may not be stored; a retry with the same keys finds out.
    Unknown,
    /// Certainly not stored, and past `not_after_ms` it never will be.
    TooLate,
}

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No connection, or no turn on one, before the deadline; nothing was sent.
    #[error("the store was not reached: {0}")]
    Unreachable(String),
    /// The server is not one to trust, or cannot be used as it is configured. The text names the fix.
    #[error("the store must not be used like this: {0}")]
    Misconfigured(String),
    /// The server refused, also to be connected to, or gave up and rolled back.
    #[error("the store refused ({sqlstate}): {message}")]
    RolledBack {
        /// SQLSTATE, five characters; of SQLite the extended result code.
        sqlstate: String,
        /// What the server said.
        message: String,
    },
    /// An item that can never be stored.
    #[error("the store rejects an item ({sqlstate}): {message}")]
    Poison {
        /// SQLSTATE, five characters; of SQLite the extended result code.
        sqlstate: String,
        /// What the server said.
        message: String,
    },
    /// The time after which nothing may be stored had passed.
    #[error("too late to store")]
    TooLate,
    /// The connection broke or the deadline passed after the statement may have been sent.
    #[error("the store's answer was lost: {0}")]
    Unknown(String),
    /// [`Store::close`](crate::Store::close) was called.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What can be done about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) | Self::Misconfigured(_) | Self::RolledBack { .. } | Self::Closed => {
                Class::Retry
            }
            Self::Poison { .. } => Class::Reject,
            Self::TooLate => Class::TooLate,
            Self::Unknown(_) => Class::Unknown,
        }
    }

    /// Whether this call certainly stored nothing.
    #[must_use]
    pub fn definitely_not_stored(&self) -> bool {
        self.class() != Class::Unknown
    }
}
