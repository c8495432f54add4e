//! A wait with an end: for the last words to something that may never answer.
//!
//! Only bounds; what to do about it is the caller's.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Waits for `future`, but not longer than `limit`; then it is dropped.
///
/// For everything whose own graceful end is not to be trusted: a pool that waits for ever to be closed, a
/// flush that hangs while disconnected.
///
/// # Errors
/// [`Late`], which says who: log it, go on.
pub async fn bounded<F: Future>(limit: Duration, name: &'static str, future: F) -> Result<F::Output, Late> {
    tokio::time::timeout(limit, future).await.map_err(|_| Late { name, limit })
}

/// Something took longer than it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The name of the task.
    pub name: &'static str,
    /// What it was given.
    pub limit: Duration,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not done within {:?}", self.name, self.limit)
    }
}

impl Error for Late {}
