//! What a copy into a database reads of the file, page by page in the order of keys. It holds the file's lock until it is
//! dropped, and writes nothing but the migrations that an older file lacks.

use std::path::Path;

use sluice_proto::ids::Epoch;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::failure::dial_error;
use super::lock::FileLock;
use super::{OpenedFile, SqliteConfig, dial};
use crate::StoreError;
use crate::copy::{CopiedDelayed, CopiedMessage, CopiedNote, CopiedRevocation, CopiedRoom, Counts};

const COUNTS: &str = "select (select count(*) from rooms) as rooms, \
     (select coalesce(sum(head), 0) from rooms) as positions, \
     (select count(*) from messages) as messages, \
     (select coalesce(sum(length(data)), 0) from messages) as bytes, \
     (select count(*) from scheduled) as scheduled, \
     (select count(*) from outbox) as owed, \
     (select count(*) from revocations) as revocations, \
     (select place from revocations_head) as revocation_place";

const NEWEST: &str = "select coalesce(max(at_ms), 0) from rooms";
const ROOMS: &str = "select room, head from rooms where room > ?1 order by room limit ?2";
const MESSAGES: &str = "select id, room, seq, sender, key, hash, at_ms, data from messages \
     where id > ?1 order by id limit ?2";
const DELAYED: &str = "select id, due_ms, part, room, sender, key, hash, data, cancelled_ms, api_key from scheduled \
     where id > ?1 order by id limit ?2";
const NOTES: &str = "select id, at_ms, runs from outbox where id > ?1 order by id limit ?2";
const REVOCATIONS: &str =
    "select name, issued_until, place from revocations where place > ?1 order by place limit ?2";
const PLACE: &str = "select place from revocations_head";

/// A file that is copied.
pub(crate) struct Source {
    conn: SqliteConnection,
    epoch: Epoch,
    /// Nobody publishes into what is being copied.
    _lock: Option<FileLock>,
}

impl Source {
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let config = SqliteConfig::at(path);
        let OpenedFile { lock, conn, epoch, .. } =
            OpenedFile::new(config.path, config.call_timeout, false).await?;
        Ok(Self { conn, epoch, _lock: lock })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) async fn counts(&mut self) -> Result<Counts, StoreError> {
        sqlx::query_as(COUNTS).fetch_one(&mut self.conn).await.map_err(|e| dial_error(&e))
    }

    /// The time of the newest message, milliseconds since 1970.
    pub(crate) async fn newest_ms(&mut self) -> Result<i64, StoreError> {
        sqlx::query_scalar(NEWEST).fetch_one(&mut self.conn).await.map_err(|e| dial_error(&e))
    }

    pub(crate) async fn rooms(&mut self, after: &str, limit: u32) -> Result<Vec<CopiedRoom>, StoreError> {
        let query = sqlx::query(ROOMS).bind(after).bind(limit);
        rows(query.fetch_all(&mut self.conn).await, |row| {
            Ok(CopiedRoom { room: row.try_get("room")?, head: row.try_get("head")? })
        })
    }

    pub(crate) async fn messages(
        &mut self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<CopiedMessage>, StoreError> {
        let query = sqlx::query(MESSAGES).bind(after).bind(limit);
        rows(query.fetch_all(&mut self.conn).await, |row| {
            Ok(CopiedMessage {
                id: row.try_get("id")?,
                room: row.try_get("room")?,
                seq: row.try_get("seq")?,
                sender: row.try_get("sender")?,
                key: row.try_get("key")?,
                hash: row.try_get("hash")?,
                at_ms: row.try_get("at_ms")?,
                data: row.try_get("data")?,
            })
        })
    }

    pub(crate) async fn delayed(&mut self, after: i64, limit: u32) -> Result<Vec<CopiedDelayed>, StoreError> {
        let query = sqlx::query(DELAYED).bind(after).bind(limit);
        rows(query.fetch_all(&mut self.conn).await, |row| {
            Ok(CopiedDelayed {
                id: row.try_get("id")?,
                due_ms: row.try_get("due_ms")?,
                part: row.try_get("part")?,
                room: row.try_get("room")?,
                sender: row.try_get("sender")?,
                key: row.try_get("key")?,
                hash: row.try_get("hash")?,
                data: row.try_get("data")?,
                cancelled_ms: row.try_get("cancelled_ms")?,
                api_key: row.try_get("api_key")?,
            })
        })
    }

    pub(crate) async fn notes(&mut self, after: i64, limit: u32) -> Result<Vec<CopiedNote>, StoreError> {
        let query = sqlx::query(NOTES).bind(after).bind(limit);
        rows(query.fetch_all(&mut self.conn).await, |row| {
            let decode = |e: serde_json::Error| sqlx::Error::Decode(e.into());
            let runs: Vec<(String, i64, i64)> = serde_json::from_str(row.try_get("runs")?).map_err(decode)?;
            Ok(CopiedNote {
                id: row.try_get("id")?,
                at_ms: row.try_get("at_ms")?,
                firsts: runs.iter().map(|(_, first, _)| *first).collect(),
                lasts: runs.iter().map(|(.., last)| *last).collect(),
                rooms: runs.into_iter().map(|(room, ..)| room).collect(),
            })
        })
    }

    pub(crate) async fn revocations(
        &mut self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<CopiedRevocation>, StoreError> {
        let query = sqlx::query(REVOCATIONS).bind(after).bind(limit);
        rows(query.fetch_all(&mut self.conn).await, |row| {
            Ok(CopiedRevocation {
                name: row.try_get("name")?,
                issued_until: row.try_get("issued_until")?,
                place: row.try_get("place")?,
            })
        })
    }

    pub(crate) async fn revocation_place(&mut self) -> Result<i64, StoreError> {
        sqlx::query_scalar(PLACE).fetch_one(&mut self.conn).await.map_err(|e| dial_error(&e))
    }

    pub(crate) async fn close(self) {
        dial::close(self.conn).await;
    }
}

fn rows<T>(
    found: Result<Vec<SqliteRow>, sqlx::Error>,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, StoreError> {
    let read = found.and_then(|rows| rows.iter().map(read).collect());
    read.map_err(|e| dial_error(&e))
}
