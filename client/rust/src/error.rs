//! What a call can fail with.

use sluice_proto::wire::WireError;

use crate::tokens::TokenError;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// Where to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server let nobody in, or said that coming back makes no sense.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server lets nobody in without a token, and there is none.
    #[error("the server lets nobody in without a token")]
    TokenNeeded,
    /// The program's function gave no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server answered this request with an error that is final.
    #[error("{}: {}", .0.code.as_str(), .0.message)]
    Answer(WireError),
    /// The connection ended before the answer came. Publishes never end like this: they are sent again.
    #[error("the connection ended before the answer came")]
    Disconnected,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// Too many requests without an answer.
    #[error("too many requests wait for an answer")]
    Busy,
    /// The value cannot be written as JSON, or a name breaks a rule.
    #[error("{0}")]
    Invalid(String),
}
