//! What the store holds, read from the store itself: nothing that is drilled is asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use sluice_judge::record::{self, hash_of};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, PgConnection, Row, SqliteConnection};
use tokio::time::timeout;

/// Longest question but for the messages themselves.
const ASK: Duration = Duration::from_secs(10);
/// Longest reading of all messages.
const READ: Duration = Duration::from_secs(300);

const HEADS: &str = "select room, head from rooms where substr(room, 1, length($1)) = $1";
const OUTBOX: &str = "select count(*) from outbox";
const IDLE: &str = "select count(*) from pg_stat_activity \
                    where datname = current_database() and state like 'idle in transaction%'";

/// A connection to the store, for the rooms of one load.
pub struct StoreReader {
    connection: StoreConnection,
    prefix: String,
}

enum StoreConnection {
    Postgres(PgConnection),
    /// One file, opened for reading alone.
    Sqlite(SqliteConnection),
}

impl StoreReader {
    /// Connects to `postgres://…`, or to `sqlite:FILE`. Rooms are those whose names begin with `prefix`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn connect(url: &str, prefix: &str) -> anyhow::Result<Self> {
        let connection = async {
            anyhow::Ok(match url.strip_prefix("sqlite:") {
                Some(file) => {
                    let options = SqliteConnectOptions::new().filename(file).read_only(true);
                    StoreConnection::Sqlite(options.disable_statement_logging().connect().await?)
                }
                None => {
                    let options: PgConnectOptions = url.parse()?;
                    StoreConnection::Postgres(options.disable_statement_logging().connect().await?)
                }
            })
        };
        let connection =
            timeout(ASK, connection).await.context("the store does not answer")?.context("the store")?;
        Ok(Self { connection, prefix: prefix.to_owned() })
    }

    /// The last seq given out of each room.
    ///
    /// # Errors
    /// What the store said.
    pub async fn heads(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let prefix = &self.prefix;
        let heads: Vec<(String, i64)> = match &mut self.connection {
            StoreConnection::Postgres(connection) => {
                in_time(sqlx::query_as(HEADS).bind(prefix).fetch_all(connection)).await?
            }
            StoreConnection::Sqlite(connection) => {
                in_time(sqlx::query_as(HEADS).bind(prefix).fetch_all(connection)).await?
            }
        };
        Ok(heads.into_iter().map(|(room, head)| (room, unsigned(head))).collect())
    }

    /// Rows of the outbox.
    ///
    /// # Errors
    /// What the store said.
    pub async fn outbox_rows(&mut self) -> anyhow::Result<u64> {
        Ok(unsigned(match &mut self.connection {
            StoreConnection::Postgres(connection) => {
                in_time(sqlx::query_scalar(OUTBOX).fetch_one(connection)).await?
            }
            StoreConnection::Sqlite(connection) => {
                in_time(sqlx::query_scalar(OUTBOX).fetch_one(connection)).await?
            }
        }))
    }

    /// Sessions of others that hold a transaction open and do nothing; a file has none.
    ///
    /// # Errors
    /// What the store said.
    pub async fn idle_in_transaction(&mut self) -> anyhow::Result<Option<u64>> {
        let StoreConnection::Postgres(connection) = &mut self.connection else { return Ok(None) };
        in_time(sqlx::query_scalar(IDLE).fetch_one(connection)).await.map(unsigned).map(Some)
    }

    /// Writes every message to `path`, in order of room and seq; says how many.
    ///
    /// # Errors
    /// What the store or the disk said.
    pub async fn dump(&mut self, path: &Path) -> anyhow::Result<u64> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let (mut out, mut count) = (BufWriter::new(file), 0);
        let mut write = |row: record::StoreRow| {
            serde_json::to_writer(&mut out, &row)?;
            count += 1;
            out.write_all(b"\n").context("store.jsonl")
        };
        let read = async {
            match &mut self.connection {
                StoreConnection::Postgres(connection) => {
                    let mut rows = sqlx::query(
                        "select room, seq, sender, key, data, (extract(epoch from at) * 1000)::bigint as at_ms \
                         from messages where substr(room, 1, length($1)) = $1 order by room collate \"C\", seq",
                    )
                    .bind(&self.prefix)
                    .fetch(connection);
                    while let Some(row) = rows.try_next().await? {
                        write(of_postgres(&row)?)?;
                    }
                }
                StoreConnection::Sqlite(connection) => {
                    let mut rows = sqlx::query(
                        "select room, seq, sender, key, data, at_ms from messages \
                         where substr(room, 1, length($1)) = $1 order by room, seq",
                    )
                    .bind(&self.prefix)
                    .fetch(connection);
                    while let Some(row) = rows.try_next().await? {
                        write(of_sqlite(&row)?)?;
                    }
                }
            }
            anyhow::Ok(())
        };
        timeout(READ, read).await.context("the store takes too long")??;
        out.flush()?;
        Ok(count)
    }
}

async fn in_time<T>(ask: impl Future<Output = sqlx::Result<T>>) -> anyhow::Result<T> {
    Ok(timeout(ASK, ask).await.context("the store does not answer")??)
}

fn of_postgres(row: &PgRow) -> sqlx::Result<record::StoreRow> {
    Ok(record::StoreRow {
        room: row.try_get("room")?,
        seq: unsigned(row.try_get("seq")?),
        sender: row.try_get("sender")?,
        key: row.try_get("key")?,
        hash: hash_of(row.try_get("data")?),
        at_ms: row.try_get("at_ms")?,
    })
}

fn of_sqlite(row: &SqliteRow) -> sqlx::Result<record::StoreRow> {
    Ok(record::StoreRow {
        room: row.try_get("room")?,
        seq: unsigned(row.try_get("seq")?),
        sender: row.try_get("sender")?,
        key: row.try_get("key")?,
        hash: hash_of(row.try_get("data")?),
        at_ms: row.try_get("at_ms")?,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
