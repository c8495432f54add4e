//! What the SQLite store can be told, with defaults and their arithmetic.

use std::path::PathBuf;
use std::time::Duration;

/// Where the store is and how much to ask of it.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file; made if it is not there, its folder is not. `None`: memory, which keeps no promise.
    pub path: Option<PathBuf>,
    /// Connections that read, at least 1. Commits never wait for them. Default 4. In memory there is
    /// one connection for everything.
    pub read_connections: usize,
    /// Longest a call takes, waiting for its turn included. Default 4 s, as with PostgreSQL. Half of it is the
    /// longest wait for a lock that some other program holds on the file, so that the certain answer comes first.
    pub call_timeout: Duration,
}

impl Default for SqliteConfig {
    /// A store in memory.
    fn default() -> Self {
        Self { path: None, read_connections: 4, call_timeout: Duration::from_secs(4) }
    }
}

impl SqliteConfig {
    /// The defaults, for this file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }
}
