//! Lists: arguments in, answers out.

use bytes::Bytes;
use sluice_proto::ids::{InvalidName, Key, RoomId, UserId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Answer, Statement};
use super::read::{senseless, seq_of};
use crate::{RoomList, RoomQuery, RoomSummary, ScheduledList, ScheduledMessage, ScheduledQuery, StoreError};

/// One row more than asked for says whether others follow.
const ROOMS: &str = "select r.room, r.head, ms_v1(m.at) as at_ms from \
       (select room, head from rooms where room > $1 and room >= $2 and ($3::text is null or room < $3) and head > 0 \
        order by room limit $4) r \
     left join messages m on m.room = r.room and m.seq = r.head where (select own_session_v1($5)) order by r.room";

/// As many as fit, the first one always; `waiting` counts one more than asked for, if there is one.
const SCHEDULED: &str = "select sender, key, ms_v1(due) as due_ms, data, waiting from \
       (select s.*, sum(octet_length(data)) over (order by sender, key) as bytes, count(*) over () as waiting from \
         (select sender, key, due, data from scheduled \
          where room = $1 and cancelled is null and ($2::text is null or (sender, key) > ($2, $3)) \
          order by sender, key limit $4) s) t \
     where (bytes <= $5 or bytes = octet_length(data)) and (select own_session_v1($6)) order by sender, key";

pub(super) fn rooms_statement(query: &RoomQuery) -> Statement<'static> {
    sqlx::query(ROOMS)
        .bind(query.after.clone())
        .bind(query.prefix.clone())
        .bind(query.end())
        .bind(i64::from(query.limit) + 1)
}

pub(super) fn rooms(answer: &Answer, query: &RoomQuery) -> Result<RoomList, StoreError> {
    let read: Result<Vec<RoomSummary>, _> = answer.rows.iter().map(room).collect();
    let mut rooms = read.map_err(senseless)?;
    let more = rooms.len() > query.limit as usize;
    rooms.truncate(query.limit as usize);
    Ok(RoomList { epoch: answer.epoch, rooms, more })
}

fn room(row: &PgRow) -> Result<RoomSummary, sqlx::Error> {
    let room = RoomId::parse(row.try_get("room")?).map_err(bad_name)?;
    Ok(RoomSummary { room, head: seq_of(row, "head")?, at_ms: row.try_get("at_ms")? })
}

pub(super) fn scheduled_statement(query: &ScheduledQuery) -> Statement<'static> {
    let (sender, key) =
        query.after.as_ref().map(|(sender, key)| (sender.to_string(), key.to_string())).unzip();
    sqlx::query(SCHEDULED)
        .bind(query.room.to_string())
        .bind(sender)
        .bind(key)
        .bind(i64::from(query.limit) + 1)
        .bind(i64::try_from(query.bytes_max).unwrap_or(i64::MAX))
}

pub(super) fn scheduled(answer: &Answer, query: &ScheduledQuery) -> Result<ScheduledList, StoreError> {
    let read = || -> Result<ScheduledList, sqlx::Error> {
        let waiting = answer.rows.first().map(|row| row.try_get::<i64, _>("waiting")).transpose()?;
        let mut messages = answer.rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        messages.truncate(query.limit as usize);
        let more = waiting.and_then(|waiting| usize::try_from(waiting).ok()).unwrap_or(0) > messages.len();
        Ok(ScheduledList { messages, more })
    };
    read().map_err(senseless)
}

fn message(row: &PgRow) -> Result<ScheduledMessage, sqlx::Error> {
    Ok(ScheduledMessage {
        sender: UserId::parse(row.try_get("sender")?).map_err(bad_name)?,
        key: Key::parse(row.try_get("key")?).map_err(bad_name)?,
        due_ms: row.try_get("due_ms")?,
        data: Bytes::from(row.try_get::<Vec<u8>, _>("data")?),
    })
}

fn bad_name(error: InvalidName) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
