//! Outbox and retention: arguments in, answers out. Nothing here must survive a crash.

use std::time::Duration;

use sluice_proto::ids::{RoomId, Seq};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;

use super::pool::{Answer, Statement};
use super::read::senseless;
use crate::{NoteId, Retention, Run, StaleNote, StoreError};

/// Rooms looked at in one step of retention: a few index probes each, some tens of milliseconds.
const TRIM_ROOMS: i32 = 1_000;

const NOTED: &str = "delete from outbox where id = any ($1) and (select forgetful_v1($2))";

const STALE: &str = "select id, ms_v1(at) as at_ms, rooms, firsts, lasts from outbox \
     where at < clock_timestamp() - $1 and (select own_session_v1($3)) order by id limit $2";

const DROP_OLD: &str = "with gone as (delete from outbox where id in \
       (select id from outbox where at < clock_timestamp() - $1 order by id limit $2) \
       and (select forgetful_v1($3)) returning 1) \
     select count(*) as n from gone";

const TRIM: &str =
    "select next_from, removed from trim_v1($1, $2, $3, $4, $5, $6) where (select forgetful_v1($7))";

pub(super) fn noted(notes: &[NoteId]) -> Statement<'static> {
    sqlx::query(NOTED).bind(notes.iter().map(|note| note.0).collect::<Vec<_>>())
}

pub(super) fn stale(older_than: Duration, limit: usize) -> Statement<'static> {
    sqlx::query(STALE).bind(interval(older_than)).bind(count(limit))
}

pub(super) fn drop_old(older_than: Duration, limit: usize) -> Statement<'static> {
    sqlx::query(DROP_OLD).bind(interval(older_than)).bind(count(limit))
}

pub(super) fn trim(from: &str, policy: &Retention, limit: usize) -> Statement<'static> {
    sqlx::query(TRIM)
        .bind(from.to_owned())
        .bind(TRIM_ROOMS)
        .bind(policy.age.map(interval))
        .bind(policy.count.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
        .bind(interval(policy.dedupe_min))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
}

pub(super) fn stale_notes(answer: &Answer) -> Result<Vec<StaleNote>, StoreError> {
    answer.rows.iter().map(|row| stale_note(row).map_err(senseless)).collect()
}

/// How many rows went.
pub(super) fn dropped(answer: &Answer) -> Result<u64, StoreError> {
    only(answer, |row| counted(row, "n"))
}

/// Where to go on, and how many messages went.
pub(super) fn trimmed(answer: &Answer) -> Result<(String, u64), StoreError> {
    only(answer, |row| Ok((row.try_get("next_from")?, counted(row, "removed")?)))
}

fn only<T>(answer: &Answer, read: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Result<T, StoreError> {
    answer.rows.first().ok_or(sqlx::Error::RowNotFound).and_then(read).map_err(senseless)
}

fn stale_note(row: &PgRow) -> Result<StaleNote, sqlx::Error> {
    let rooms: Vec<String> = row.try_get("rooms")?;
    let firsts: Vec<i64> = row.try_get("firsts")?;
    let lasts: Vec<i64> = row.try_get("lasts")?;
    let seq = |n: i64| Seq::try_from(n).map_err(|e| sqlx::Error::Decode(e.into()));
    let runs = rooms.iter().zip(firsts).zip(lasts).map(|((room, first), last)| {
        let room = RoomId::parse(room).map_err(|e| sqlx::Error::Decode(e.into()))?;
        Ok(Run { room, first: seq(first)?, last: seq(last)? })
    });
    Ok(StaleNote {
        id: NoteId(row.try_get("id")?),
        at_ms: row.try_get("at_ms")?,
        runs: runs.collect::<Result<_, sqlx::Error>>()?,
    })
}

fn counted(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let n: i64 = row.try_get(column)?;
    u64::try_from(n).map_err(|e| sqlx::Error::Decode(e.into()))
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// At most 1,000 years: what the server can subtract from now.
pub(super) fn interval(duration: Duration) -> PgInterval {
    const MAX: Duration = Duration::from_secs(1_000 * 365 * 24 * 3600);
    let micros = i64::try_from(duration.min(MAX).as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds: micros }
}
