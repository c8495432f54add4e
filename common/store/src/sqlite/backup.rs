//! A copy of the file while a process uses it, and what is made of one. A copy is whole or not there: it is written beside
//! its place, read again, synced and then renamed.
//!
//! A backup is marked. Whoever opens it as a store begins a new epoch, so that no client goes on at a position of what was
//! lost since: positions never run backwards in silence, also where a backup was put in place by hand.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_proto::ids::Epoch;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::interval;

use super::migrations::APPLICATION;
use super::{SqliteStore, dial, now_ms};
use crate::StoreError;

/// Between two looks how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a lock of the file; readers wait for none but while its log is recovered.
const BUSY: Duration = Duration::from_secs(10);

/// What tells a backup from a store in use; in no store that is used.
const MARK: &str = "create table if not exists backup (at_ms integer not null) strict; delete from backup";

/// How far a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes written.
    pub bytes: u64,
    /// Of about so many: the copy has none of the gaps of the file.
    pub of: u64,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Rooms that were ever published to.
    pub rooms: i64,
    /// Messages kept.
    pub messages: i64,
    /// Of the file.
    pub bytes: u64,
}

/// Why there is no copy. Nothing was left in its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It would be overwritten.
    #[error("{} is there already: name another file, or move this one away", .0.display())]
    Exists(PathBuf),
    /// No store, or no backup.
    #[error("{} {what}", path.display())]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// The copy is not what was written.
    #[error("{} is damaged: {said}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite found.
        said: String,
    },
    /// A file cannot be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("{what} {}: {source}", path.display())]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: sqlx::Error,
    },
    /// The restored store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { what, path, source }
}

fn sqlite(what: &'static str, path: &Path) -> impl FnOnce(sqlx::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Sqlite { what, path, source }
}

/// Copies the store in `database`, which a process may use meanwhile, to `target`: all that was committed before the call.
/// Commits do not wait for it; the log beside the file grows while it lasts.
///
/// # Errors
/// [`BackupError`]; then there is no `target`, and what was written beside it is gone.
pub async fn backup(
    database: &Path,
    target: &Path,
    progress: impl FnMut(BackupProgress),
) -> Result<Backup, BackupError> {
    if !database.exists() {
        return Err(BackupError::Unfit {
            path: database.to_owned(),
            what: "is not there: no store was kept in it",
        });
    }
    must_be_free(target)?;
    let part = Part::beside(target);
    copy(database, &part.0, progress).await?;
    let backup = seal(&part.0).await?;
    private(&part.0)?;
    part.put(target).await?;
    Ok(backup)
}

/// Puts a backup where no store is, and begins a new epoch in it.
///
/// # Errors
/// [`BackupError`]. Where it failed after the file was put in place, opening it begins the epoch all the same.
pub async fn restore(source: &Path, database: &Path) -> Result<(Backup, Epoch), BackupError> {
    must_be_free(database)?;
    // A log that was left there belongs to what was moved away: replayed over the backup it would be its ruin.
    for end in ["-wal", "-journal"] {
        must_be_free(&with_end(database, end))?;
    }
    let backup = check(source).await?;
    let part = Part::beside(database);
    tokio::fs::copy(source, &part.0).await.map_err(file("cannot copy to", &part.0))?;
    // A copy has the permissions of its original: a backup that is kept read-only would be no store.
    private(&part.0)?;
    part.put(database).await?;
    Ok((backup, SqliteStore::new_epoch(database).await?))
}

/// If this is a backup, makes it a store that is used: another history than the one it is a copy of, from here on.
pub(super) async fn put_in_use(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if !is_marked(conn).await? {
        return Ok(());
    }
    let mut tx = conn.begin_with("begin immediate").await?;
    sqlx::raw_sql("drop table backup; update meta set epoch = lower(hex(randomblob(16)))")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    tracing::warn!("The store is a backup that was put in use: a new epoch has begun, and clients are told.");
    Ok(())
}

async fn is_marked(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let marks = "select count(*) from sqlite_schema where type = 'table' and name = 'backup'";
    Ok(sqlx::query_scalar::<_, i64>(marks).fetch_one(conn).await? > 0)
}

/// Everything that was ever said is in it: for its owner alone.
fn private(path: &Path) -> Result<(), BackupError> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(file("cannot set permissions of", path))
}

fn must_be_free(path: &Path) -> Result<(), BackupError> {
    // A link that leads nowhere is there too.
    if path.symlink_metadata().is_ok() { Err(BackupError::Exists(path.to_owned())) } else { Ok(()) }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// A file that is being written; removed unless it was put in place.
struct Part(PathBuf);

impl Part {
    /// In the same folder, so that it can be renamed; of this process and moment, so that two do not meet: what was killed
    /// in a container had the same number.
    fn beside(target: &Path) -> Self {
        let end = format!(".{}-{}.part", std::process::id(), now_ms());
        Self(with_end(target, &end))
    }

    /// Synced, renamed, and the folder synced: after a power cut it is there, whole, or it never was.
    async fn put(self, target: &Path) -> Result<(), BackupError> {
        let (part, target) = (self, target.to_owned());
        let put = move || {
            let synced = File::open(&part.0).and_then(|file| file.sync_all());
            synced.map_err(file("cannot sync", &part.0))?;
            // Once more: the copy took a while.
            must_be_free(&target)?;
            std::fs::rename(&part.0, &target).map_err(file("cannot rename to", &target))?;
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(file("cannot sync", folder))
        };
        let joined = tokio::task::spawn_blocking(put).await;
        joined.unwrap_or_else(|error| Err(file("cannot sync", Path::new("the copy"))(error.into())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            std::fs::remove_file(with_end(&self.0, end)).ok(); // mostly there is none
        }
    }
}

async fn copy(
    database: &Path,
    part: &Path,
    mut progress: impl FnMut(BackupProgress),
) -> Result<(), BackupError> {
    let Some(to) = part.to_str() else {
        return Err(BackupError::Unfit {
            path: part.to_owned(),
            what: "is no name that SQLite takes: use UTF-8",
        });
    };
    let mut conn = open_store(database).await?;
    let failed = |error| sqlite("cannot copy", database)(error);
    let size = "select page_count * page_size from pragma_page_count, pragma_page_size";
    let of: i64 = sqlx::query_scalar(size).fetch_one(&mut conn).await.map_err(failed)?;
    let of = u64::try_from(of).unwrap_or_default();
    let mut look = interval(LOOK);
    {
        // One read transaction: what is committed meanwhile is not in it.
        let copied = sqlx::query("vacuum into ?1").bind(to).execute(&mut conn);
        tokio::pin!(copied);
        loop {
            tokio::select! {
                biased;
                copied = &mut copied => break copied.map(drop).map_err(|error| sqlite("cannot copy", database)(error))?,
                _ = look.tick() => {
                    let bytes = std::fs::metadata(part).map_or(0, |part| part.len());
                    progress(BackupProgress { bytes, of });
                }
            }
        }
    }
    dial::close(conn).await;
    Ok(())
}

/// Opens somebody's store to read it.
async fn open_store(path: &Path) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    let options = options.pragma("temp_store", "memory").disable_statement_logging();
    let mut conn = options.connect().await.map_err(sqlite("cannot open", path))?;
    let application = sqlx::query_scalar::<_, i64>("pragma application_id").fetch_one(&mut conn).await;
    if application.map_err(sqlite("cannot read", path))? != APPLICATION {
        return Err(BackupError::Unfit { path: path.to_owned(), what: "is no store of Sluice" });
    }
    Ok(conn)
}

/// Reads a copy again, and marks it.
async fn seal(part: &Path) -> Result<Backup, BackupError> {
    let options = SqliteConnectOptions::new().filename(part).disable_statement_logging();
    let mut conn = options.connect().await.map_err(sqlite("cannot open", part))?;
    let failed = |error| sqlite("cannot write", part)(error);
    sqlx::raw_sql(MARK).execute(&mut conn).await.map_err(failed)?;
    let mark = sqlx::query("insert into backup (at_ms) values (?1)").bind(now_ms());
    mark.execute(&mut conn).await.map_err(|error| sqlite("cannot write", part)(error))?;
    let backup = look(&mut conn, part).await?;
    dial::close(conn).await;
    Ok(backup)
}

/// Whether this is a backup, and whole.
async fn check(source: &Path) -> Result<Backup, BackupError> {
    let mut conn = open_store(source).await?;
    if !is_marked(&mut conn).await.map_err(sqlite("cannot read", source))? {
        let what = "is no backup that `sluice store backup FILE` made: put it in place by hand, then run `sluice store new-epoch`";
        return Err(BackupError::Unfit { path: source.to_owned(), what });
    }
    let backup = look(&mut conn, source).await?;
    dial::close(conn).await;
    Ok(backup)
}

async fn look(conn: &mut SqliteConnection, path: &Path) -> Result<Backup, BackupError> {
    let said: String = sqlx::query_scalar("pragma quick_check(1)")
        .fetch_one(&mut *conn)
        .await
        .map_err(sqlite("cannot read", path))?;
    if said != "ok" {
        return Err(BackupError::Damaged { path: path.to_owned(), said });
    }
    let counts = "select (select count(*) from rooms), (select count(*) from messages)";
    let (rooms, messages) =
        sqlx::query_as(counts).fetch_one(conn).await.map_err(sqlite("cannot read", path))?;
    let bytes = std::fs::metadata(path).map_err(file("cannot look at", path))?.len();
    Ok(Backup { rooms, messages, bytes })
}
