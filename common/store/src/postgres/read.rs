//! Pages and heads: arguments in, answers out.

use bytes::Bytes;
use sluice_proto::ids::{Key, RoomId, Seq, UserId};
use sluice_proto::limits::PAGE_MESSAGES_MAX;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Answer, Statement};
use crate::{Heads, Page, Pages, Range, StoreError, StoredMessage};

const READ: &str = "select ord, head, oldest, deferred, seq, sender, key, at_ms, data \
     from read_v1($1, $2, $3, $4, $5) where (select own_session_v1($6))";

const HEADS: &str = "select coalesce(r.head, 0) as head \
     from unnest($1) with ordinality a(room, ord) left join rooms r on r.room = a.room \
     where (select own_session_v1($2)) order by a.ord";

pub(super) fn pages_statement(ranges: &[Range], bytes_max: usize) -> Statement<'static> {
    sqlx::query(READ)
        .bind(ranges.iter().map(|r| r.room.as_str().to_owned()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| position(r.after)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| r.before.map(position)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|r| limit(r.limit)).collect::<Vec<_>>())
        .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
}

pub(super) fn heads_statement(rooms: &[RoomId]) -> Statement<'static> {
    sqlx::query(HEADS).bind(rooms.iter().map(|room| room.as_str().to_owned()).collect::<Vec<_>>())
}

pub(super) fn now_statement() -> Statement<'static> {
    sqlx::query("select ms_v1(clock_timestamp()) as now where (select own_session_v1($1))")
}

pub(super) fn now(answer: &Answer) -> Result<i64, StoreError> {
    let row = answer.rows.first().ok_or(sqlx::Error::RowNotFound);
    row.and_then(|row| row.try_get("now")).map_err(senseless)
}

pub(super) fn pages(answer: &Answer, ranges: &[Range]) -> Result<Pages, StoreError> {
    let read = || -> Result<Pages, sqlx::Error> {
        let mut pages = Vec::with_capacity(ranges.len());
        let mut messages = Vec::new();
        for row in &answer.rows {
            // A row without seq closes a page.
            if row.try_get::<Option<i64>, _>("seq")?.is_some() {
                messages.push(message(row)?);
                continue;
            }
            let range = ranges.get(pages.len()).ok_or(sqlx::Error::RowNotFound)?;
            let mut messages = std::mem::take(&mut messages);
            if range.before.is_some() {
                // History is read from its end, and shown oldest first.
                messages.reverse();
            }
            pages.push(Page {
                room: range.room.clone(),
                oldest: seq_of(row, "oldest")?,
                head: seq_of(row, "head")?,
                messages,
                deferred: row.try_get("deferred")?,
            });
        }
        if pages.len() == ranges.len() {
            Ok(Pages { epoch: answer.epoch, pages })
        } else {
            Err(sqlx::Error::RowNotFound)
        }
    };
    read().map_err(senseless)
}

pub(super) fn heads(answer: &Answer) -> Result<Heads, StoreError> {
    let heads: Result<Vec<Seq>, _> = answer.rows.iter().map(|row| seq_of(row, "head")).collect();
    Ok(Heads { epoch: answer.epoch, heads: heads.map_err(senseless)? })
}

fn message(row: &PgRow) -> Result<StoredMessage, sqlx::Error> {
    let name = |e: sluice_proto::ids::InvalidName| sqlx::Error::Decode(e.into());
    Ok(StoredMessage {
        seq: seq_of(row, "seq")?,
        sender: UserId::parse(row.try_get("sender")?).map_err(name)?,
        key: Key::parse(row.try_get("key")?).map_err(name)?,
        at_ms: row.try_get("at_ms")?,
        data: Bytes::from(row.try_get::<Vec<u8>, _>("data")?),
    })
}

/// An answer that cannot be understood; reading changes nothing.
pub(super) fn senseless(error: sqlx::Error) -> StoreError {
    StoreError::Unknown(format!("the store's answer makes no sense: {error}"))
}

pub(super) fn seq_of(row: &PgRow, column: &str) -> Result<Seq, sqlx::Error> {
    let seq: i64 = row.try_get(column)?;
    Seq::try_from(seq).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// A position as the database counts; one beyond its numbers is beyond every room.
fn position(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn limit(asked: u32) -> i32 {
    let max = i32::try_from(PAGE_MESSAGES_MAX).unwrap_or(i32::MAX);
    match i32::try_from(asked) {
        Ok(0) | Err(_) => max,
        Ok(some) => some.min(max),
    }
}
