//! Messages that are to be published later: arguments in, answers out. The rules are in `delay_v3` and `fire_due_v2`.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_proto::ids::{RoomId, Seq};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Answer, Statement};
use super::publish::not_after;
use super::read::{senseless, seq_of};
use super::upkeep::interval;
use crate::{
    DelayedItem, DelayedOutcome, Due, Fired, LockedRooms, NewMessage, NoteId, Run, StoreError, WaitingLimit,
};

const DELAY: &str = "select ord, outcome, due, seq from delay_v3(timestamptz 'epoch' + $1 * interval '1 millisecond', \
     $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) where (select durable_v1($12))";

const NEXT: &str = "select next_due_v1($1) as in_ms where (select own_session_v1($2))";

const FIRE: &str =
    "select room, seq, outcome, note from fire_due_v2($1, $2, $3, $4) where (select durable_v1($5))";

/// Of [`FIRE`]: a room that somebody has locked.
const LOCKED: i32 = 4;

const FORGET: &str = "with gone as (delete from scheduled where id in \
       (select id from scheduled where cancelled < clock_timestamp() - $1 order by cancelled limit $2) \
       and (select forgetful_v1($3)) returning 1) \
     select count(*) as n from gone";

pub(super) fn statement<'q>(
    lane: u8,
    not_after_ms: i64,
    limit: &'q WaitingLimit,
    items: &'q [DelayedItem],
) -> Statement<'q> {
    let names = || {
        items.iter().map(|item| match item {
            DelayedItem::Schedule { message, .. } => (&message.room, &message.sender, &message.key),
            DelayedItem::Cancel { room, sender, key } => (room, sender, key),
        })
    };
    let messages = || items.iter().map(message_of);
    let due = |item: &DelayedItem| match item {
        DelayedItem::Schedule { due: Due::At(ms), .. } => Some(*ms),
        DelayedItem::Schedule { due: Due::In(_), .. } | DelayedItem::Cancel { .. } => None,
    };
    let delay = |item: &DelayedItem| match item {
        DelayedItem::Schedule { due: Due::In(ms), .. } => Some(*ms),
        DelayedItem::Schedule { due: Due::At(_), .. } | DelayedItem::Cancel { .. } => None,
    };
    sqlx::query(DELAY)
        .bind(not_after(not_after_ms))
        .bind(i16::from(lane))
        .bind(i32::try_from(limit.max).unwrap_or(i32::MAX))
        .bind(limit.api_key.as_deref())
        .bind(names().map(|(room, ..)| room.as_str()).collect::<Vec<_>>())
        .bind(names().map(|(_, sender, _)| sender.as_str()).collect::<Vec<_>>())
        .bind(names().map(|(.., key)| key.as_str()).collect::<Vec<_>>())
        .bind(messages().map(|message| message.map_or(&[][..], |m| &m.hash[..])).collect::<Vec<_>>())
        .bind(messages().map(|message| message.map_or(&[][..], |m| &m.data[..])).collect::<Vec<_>>())
        .bind(items.iter().map(due).collect::<Vec<_>>())
        .bind(items.iter().map(delay).collect::<Vec<_>>())
}

fn message_of(item: &DelayedItem) -> Option<&NewMessage> {
    match item {
        DelayedItem::Schedule { message, .. } => Some(message),
        DelayedItem::Cancel { .. } => None,
    }
}

/// Reads the answer to `count` items. One that makes no sense is a bug, and what was done unknown.
pub(super) fn outcomes(answer: &Answer, count: usize) -> Result<Vec<DelayedOutcome>, StoreError> {
    let read = || -> Result<Vec<DelayedOutcome>, sqlx::Error> {
        let mut outcomes = vec![None; count];
        for row in &answer.rows {
            let ord: i32 = row.try_get("ord")?;
            // By its number: the answer comes in the order of the keys.
            let place = usize::try_from(ord - 1).ok().and_then(|place| outcomes.get_mut(place));
            *place.ok_or(sqlx::Error::RowNotFound)? = Some(outcome_of(row)?);
        }
        outcomes.into_iter().collect::<Option<Vec<_>>>().ok_or(sqlx::Error::RowNotFound)
    };
    read().map_err(senseless)
}

fn outcome_of(row: &PgRow) -> Result<DelayedOutcome, sqlx::Error> {
    Ok(match row.try_get::<i32, _>("outcome")? {
        0 => DelayedOutcome::Waits { due_ms: row.try_get("due")? },
        1 => DelayedOutcome::Published { seq: seq_of(row, "seq")? },
        2 => DelayedOutcome::Conflict,
        3 => DelayedOutcome::Cancelled,
        5 => DelayedOutcome::TooMany,
        _ => DelayedOutcome::NothingWaits,
    })
}

pub(super) fn next(lanes: &[u8]) -> Statement<'static> {
    sqlx::query(NEXT).bind(lanes.iter().map(|lane| i16::from(*lane)).collect::<Vec<_>>())
}

pub(super) fn next_due(answer: &Answer) -> Result<Option<Duration>, StoreError> {
    let row = answer.rows.first().ok_or(sqlx::Error::RowNotFound);
    let in_ms: Option<i64> = row.and_then(|row| row.try_get("in_ms")).map_err(senseless)?;
    Ok(in_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
}

pub(super) fn fire(lane: u8, limit: usize, locked: &LockedRooms) -> Statement<'_> {
    sqlx::query(FIRE)
        .bind(i16::from(lane))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .bind(locked.without.iter().map(RoomId::as_str).collect::<Vec<_>>())
        .bind(locked.wait_for.as_ref().map(RoomId::as_str))
}

/// What was published, as runs: those that are new of a room have positions without a hole.
pub(super) fn fired(answer: &Answer) -> Result<Fired, StoreError> {
    let read = || -> Result<Fired, sqlx::Error> {
        let mut runs: BTreeMap<String, (Seq, Seq)> = BTreeMap::new();
        let (mut conflicts, mut note, mut locked) = (0, None, Vec::new());
        let name = |room: &str| RoomId::parse(room).map_err(|error| sqlx::Error::Decode(error.into()));
        for row in &answer.rows {
            match row.try_get::<i32, _>("outcome")? {
                0 => {
                    let seq = seq_of(row, "seq")?;
                    let run = runs.entry(row.try_get("room")?).or_insert((seq, seq));
                    *run = (run.0.min(seq), run.1.max(seq));
                }
                1 => {}
                LOCKED => locked.push(name(row.try_get("room")?)?),
                _ => conflicts += 1,
            }
            note = note.or(row.try_get::<Option<i64>, _>("note")?.map(NoteId));
        }
        let run = |(room, (first, last)): (String, _)| {
            Ok::<_, sqlx::Error>(Run { room: name(&room)?, first, last })
        };
        let runs = runs.into_iter().map(run).collect::<Result<_, _>>()?;
        let taken = (answer.rows.len() - locked.len()) as u64;
        Ok(Fired { epoch: answer.epoch, taken, conflicts, runs, locked, note })
    };
    read().map_err(senseless)
}

pub(super) fn forget_cancelled(older_than: Duration, limit: usize) -> Statement<'static> {
    sqlx::query(FORGET).bind(interval(older_than)).bind(i64::try_from(limit).unwrap_or(i64::MAX))
}
