//! Makes connections: settings, and the check that what they commit stays. Never hands out one that failed it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_proto::ids::Epoch;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use xxhash_rust::xxh3::xxh3_64;

use super::failure::dial_error;
use crate::StoreError;

/// `pragma synchronous` = FULL: each commit waits until the log is on the disk. EXTRA, 3, is as good.
const FULL: i64 = 2;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Waits until what it commits is on the disk.
    Durable,
    /// Commits only what may be forgotten by a crash (deletes of outbox rows, of old messages); the next
    /// durable commit takes it along.
    Forgetful,
    /// Reads only; it cannot write.
    Reading,
}

/// Everything needed to open connections to one store.
pub(super) struct Dialer {
    /// `None`: in memory, where the only connection is the store.
    path: Option<PathBuf>,
    busy_timeout: Duration,
}

impl Dialer {
    pub(super) fn new(path: Option<PathBuf>, busy_timeout: Duration) -> Self {
        Self { path, busy_timeout }
    }

    pub(super) fn in_memory(&self) -> bool {
        self.path.is_none()
    }

    /// The file, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Opens a connection to the file.
    pub(super) async fn dial(&self, kind: Kind) -> Result<SqliteConnection, StoreError> {
        let Some(path) = &self.path else {
            return Err(StoreError::Unreachable("what was kept in memory is lost: start again".to_owned()));
        };
        open(self.options(path, kind), kind).await
    }

    /// The first connection of a store, which may make the file (`create`) or is the memory.
    pub(super) async fn first(&self, create: bool) -> Result<SqliteConnection, StoreError> {
        match &self.path {
            Some(path) => {
                open(self.options(path, Kind::Durable).create_if_missing(create), Kind::Durable).await
            }
            None => {
                let options = SqliteConnectOptions::new().filename(":memory:").disable_statement_logging();
                options.connect().await.map_err(|e| dial_error(&e))
            }
        }
    }

    fn options(&self, path: &Path, kind: Kind) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(self.busy_timeout)
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        match kind {
            Kind::Durable => options
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                // Where fsync leaves things in the disk's cache (macOS), this does not.
                .pragma("fullfsync", "on")
                .pragma("checkpoint_fullfsync", "on"),
            Kind::Forgetful => options.synchronous(SqliteSynchronous::Normal),
            Kind::Reading => options.read_only(true),
        }
    }
}

async fn open(options: SqliteConnectOptions, kind: Kind) -> Result<SqliteConnection, StoreError> {
    let mut conn = options.connect().await.map_err(|e| dial_error(&e))?;
    // A setting that cannot be kept is ignored without a word (WAL on a network share).
    if kind == Kind::Durable {
        let row =
            sqlx::query("pragma journal_mode").fetch_one(&mut conn).await.map_err(|e| dial_error(&e))?;
        let journal: String = row.try_get(0).map_err(|e| dial_error(&e))?;
        let row = sqlx::query("pragma synchronous").fetch_one(&mut conn).await.map_err(|e| dial_error(&e))?;
        let synchronous: i64 = row.try_get(0).map_err(|e| dial_error(&e))?;
        check(&journal, synchronous)?;
    }
    Ok(conn)
}

/// Promise P1 stands on these.
fn check(journal: &str, synchronous: i64) -> Result<(), StoreError> {
    if journal != "wal" {
        return Err(StoreError::Misconfigured(format!(
            "the file's journal_mode is {journal} although wal was set; put it on a local file system with \
             shared memory (no network share), and end other programs that use it"
        )));
    }
    if synchronous < FULL {
        return Err(StoreError::Misconfigured(format!(
            "synchronous is {synchronous} although FULL (2) was set, a power cut would lose messages that were \
             answered ok; use an SQLite library that is built without a fixed setting"
        )));
    }
    Ok(())
}

/// The history this file holds: a random identity made with it, and what `sluice store new-epoch` changes.
pub(super) async fn read_epoch(conn: &mut SqliteConnection) -> Result<Epoch, sqlx::Error> {
    let row = sqlx::query("select epoch, identity from meta").fetch_one(conn).await?;
    let (epoch, identity): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    // 0 stands for "not known" on the wire.
    Ok(Epoch(xxh3_64(format!("{epoch}/{identity}").as_bytes()).max(1)))
}

/// Closes politely; a connection that does not is closed all the same.
pub(super) async fn close(conn: SqliteConnection) {
    if let Err(error) = conn.close().await {
        tracing::debug!(%error, "a connection of the store did not close well, its work is done all the same");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_cannot_be_written_ahead_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dialer = Dialer::new(Some(folder.path().join("store.db")), Duration::from_secs(1));
        // A way of reaching files that has no shared memory, as on a network share.
        let path = folder.path().join("store.db");
        let options = dialer.options(&path, Kind::Durable).create_if_missing(true).vfs("unix-dotfile");
        let error = open(options, Kind::Durable).await.unwrap_err().to_string();
        assert!(error.contains("journal_mode is delete although wal was set"), "{error}");
        assert!(dialer.first(true).await.is_ok());
    }

    #[test]
    fn less_than_full_is_refused() {
        for (synchronous, good) in [(0, false), (1, false), (2, true), (3, true)] {
            assert_eq!(check("wal", synchronous).is_ok(), good, "{synchronous}");
        }
    }
}
