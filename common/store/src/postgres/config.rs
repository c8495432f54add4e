//! What the PostgreSQL store can be told, with defaults and their arithmetic.

use std::time::Duration;

use sluice_access::SecretUrl;
use sluice_proto::limits::LANES;

use super::access::PgAccess;

/// How to reach PostgreSQL and how much to ask of it.
#[derive(Debug, Clone)]
pub struct PgConfig {
    /// `postgres://user:password@host:port/database`; must lead to the primary, which is looked for where it names
    /// several hosts, `host:port,host:port`.
    pub url: SecretUrl,
    /// A file that holds the password, instead; "" = none. Read for each connection.
    pub password_file: String,
    /// Connections that commit, 1…16; lanes share them as `lane % lane_connections`.
    ///
    /// Default 8: four connections bound to rooms already take 54,000 rows/s on two cores, twice that leaves room for
    /// round trips to a remote server. 8 + 4 + 3 = 15 connections each let six logics (three, while all are
    /// rolled at once) live with PostgreSQL's default `max_connections` of 100.
    pub lane_connections: usize,
    /// Connections that read, at least 1. Commits never wait for them. Default 4.
    pub read_connections: usize,
    /// Longest a call takes, waiting for its turn and connecting included. Default 4 s: above
    /// the server's `statement_timeout` of 3 s, so that the server's own, certain answer comes first.
    pub call_timeout: Duration,
    /// Longest part of that spent on connecting. Default 3 s.
    pub connect_timeout: Duration,
}

impl PgConfig {
    /// The defaults, for this URL.
    #[must_use]
    pub fn new(url: impl Into<SecretUrl>) -> Self {
        Self {
            url: url.into(),
            password_file: String::new(),
            lane_connections: 8,
            read_connections: 4,
            call_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(3),
        }
    }

    pub(super) fn access(&self) -> PgAccess {
        PgAccess { url: self.url.clone(), password_file: self.password_file.clone() }
    }

    /// Connections for lanes, as used.
    pub(super) fn lanes(&self) -> usize {
        self.lane_connections.clamp(1, usize::from(LANES))
    }
}
