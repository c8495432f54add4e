//! Servers at which a link over TLS must fail, each for another reason.

use tempfile::TempDir;

use crate::authority::{Authority, TlsFiles};
use crate::server::{ServerKind, TestServer};

/// A server, and the files that a client is given for it.
pub struct LinkEnd {
    /// The server; it runs.
    pub server: TestServer,
    /// Its authority, and what the client shows.
    pub files: TlsFiles,
}

/// All of them.
pub struct WrongEnds {
    /// Its certificate is for `server.example`.
    pub elsewhere: LinkEnd,
    /// Its certificate has expired.
    pub expired: LinkEnd,
    /// It does not speak TLS.
    pub plain: LinkEnd,
    /// Nothing is wrong with it, for a client that speaks TLS.
    pub tls: LinkEnd,
    _dir: TempDir,
}

impl WrongEnds {
    /// Starts them; `tls_server` starts one that shows this certificate and wants to see one of the same authority.
    pub async fn of(kind: ServerKind, tls_server: impl AsyncFn(&TlsFiles) -> TestServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = |of: &str| Authority::in_dir(dir.path(), of);
        let end = async |files: TlsFiles| LinkEnd { server: tls_server(&files).await, files };
        let good = authority("ours").issue("127.0.0.1");
        Self {
            elsewhere: end(authority("elsewhere").issue("server.example")).await,
            expired: end(authority("old").issue_expired("127.0.0.1")).await,
            plain: LinkEnd { server: TestServer::start(kind).await, files: good.clone() },
            tls: end(good).await,
            _dir: dir,
        }
    }
}
