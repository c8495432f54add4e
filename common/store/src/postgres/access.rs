//! Where PostgreSQL is and who comes, and what to do where TLS fails.

use sluice_access::{SecretUrl, TlsNames};

/// Where PostgreSQL is, and who comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgAccess {
    /// `postgres://user:password@host:port,host:port/database`
    pub url: SecretUrl,
    /// A file that holds the password, instead; "" = none. Read for each connection.
    pub password_file: String,
}

impl PgAccess {
    /// Who needs no password, or has it in the URL.
    #[must_use]
    pub fn at(url: impl Into<SecretUrl>) -> Self {
        Self { url: url.into(), password_file: String::new() }
    }
}

const NAMES: TlsNames = TlsNames {
    url: "postgres.url",
    ca: "sslrootcert=FILE of postgres.url",
    identity: "sslcert=FILE and sslkey=FILE of postgres.url",
    plain: "sslmode=disable in postgres.url",
};

/// What a failed handshake asks an operator for.
pub(super) fn tls_fix(said: &str) -> Option<String> {
    NAMES.fix(said)
}
