//! The publish statement: arguments in, outcomes out. The rules are in `publish_v2` itself.

use sluice_proto::ids::RoomId;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Answer, Statement};
use super::read::{senseless, seq_of};
use crate::{Committed, NewMessage, NoteId, Outcome, Row, StoreError};

const PUBLISH: &str = "select ord, seq, outcome, ms_v1(at) as at_ms, note, due \
     from publish_v2($1, timestamptz 'epoch' + $2 * interval '1 millisecond', $3, $4, $5, $6, $7) \
     where (select durable_v1($8))";

/// Of `$1` times 16 bytes.
const PROBE: &str = "select probe_v1($1) where (select durable_v1($2))";

/// 32 KiB that cannot be compressed: more than the free space of pages that are not full.
const THOROUGH_BLOCKS: i32 = 2048;

/// Which of these rooms exist and are locked by somebody.
const LOCKED: &str = "with free as materialized \
       (select room from rooms where room = any ($1) for no key update skip locked) \
     select r.room from rooms r where r.room = any ($1) and not exists (select from free f where f.room = r.room) \
     and (select own_session_v1($2))";

/// Year 9999: what the server can add to 1970 without overflow, and later than anybody waits.
const NOT_AFTER_MAX_MS: i64 = 253_402_300_799_000;

/// As the statements take it.
#[expect(clippy::cast_precision_loss, reason = "milliseconds up to the year 9999 are exact in an f64")]
pub(super) fn not_after(ms: i64) -> f64 {
    ms.clamp(0, NOT_AFTER_MAX_MS) as f64
}

pub(super) fn statement(lane: u8, not_after_ms: i64, items: &[NewMessage]) -> Statement<'_> {
    sqlx::query(PUBLISH)
        .bind(i16::from(lane))
        .bind(not_after(not_after_ms))
        .bind(items.iter().map(|m| m.room.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|m| m.sender.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|m| m.key.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|m| &m.hash[..]).collect::<Vec<_>>())
        .bind(items.iter().map(|m| &m.data[..]).collect::<Vec<_>>())
}

pub(super) fn probe(thorough: bool) -> Statement<'static> {
    sqlx::query(PROBE).bind(if thorough { THOROUGH_BLOCKS } else { 1 })
}

pub(super) fn locked_statement(rooms: &[RoomId]) -> Statement<'_> {
    sqlx::query(LOCKED).bind(rooms.iter().map(RoomId::as_str).collect::<Vec<_>>())
}

pub(super) fn locked(answer: &Answer) -> Result<Vec<RoomId>, StoreError> {
    let room =
        |row: &PgRow| RoomId::parse(row.try_get("room")?).map_err(|error| sqlx::Error::Decode(error.into()));
    answer.rows.iter().map(room).collect::<Result<_, _>>().map_err(senseless)
}

/// Reads the answer to a group of `count` items. One that makes no sense is a bug, and the group's outcome unknown.
pub(super) fn committed(answer: &Answer, count: usize) -> Result<Committed, StoreError> {
    let read = || -> Result<Committed, sqlx::Error> {
        let mut rows: Vec<Option<Row>> = vec![None; count];
        let mut note = None;
        for row in &answer.rows {
            let ord: i32 = row.try_get("ord")?;
            // By its number, not by its place in the answer: SQL promises no order that we did not
            // ask for.
            let place = usize::try_from(ord - 1).ok().and_then(|place| rows.get_mut(place));
            *place.ok_or(sqlx::Error::RowNotFound)? = Some(Row { outcome: outcome_of(row)? });
            note = note.or(row.try_get::<Option<i64>, _>("note")?.map(NoteId));
        }
        let rows = rows.into_iter().collect::<Option<Vec<_>>>().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Committed { epoch: answer.epoch, rows, note })
    };
    read().map_err(|error| {
        tracing::error!(alarm = true, %error, "ALARM: the store's answer to a group makes no sense");
        StoreError::Unknown(error.to_string())
    })
}

fn outcome_of(row: &PgRow) -> Result<Outcome, sqlx::Error> {
    Ok(match row.try_get::<i32, _>("outcome")? {
        0 => Outcome::Stored { seq: seq_of(row, "seq")?, at_ms: row.try_get("at_ms")? },
        1 => Outcome::Duplicate { seq: seq_of(row, "seq")? },
        3 => Outcome::Waits { due_ms: row.try_get("due")? },
        _ => Outcome::Conflict,
    })
}
