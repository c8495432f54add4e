//! Lists of rooms, and of messages that wait for their time. Each is one statement, which is one snapshot.

use futures::TryStreamExt;
use sluice_proto::ids::{Epoch, InvalidName, Key, RoomId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::seq_of;
use crate::{RoomList, RoomQuery, RoomSummary, ScheduledList, ScheduledMessage, ScheduledQuery};

/// One row more than asked for says whether others follow.
const ROOMS: &str = "select r.room, r.head, m.at_ms from \
       (select room, head from rooms where room > ?1 and room >= ?2 and (?3 is null or room < ?3) and head > 0 \
        order by room limit ?4) r \
     left join messages m on m.room = r.room and m.seq = r.head order by r.room";

const SCHEDULED: &str = "select sender, key, due_ms, data from scheduled \
     where room = ?1 and cancelled_ms is null and (?2 is null or (sender, key) > (?2, ?3)) \
     order by sender, key limit ?4";

pub(super) async fn rooms(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    query: &RoomQuery,
) -> Result<RoomList, sqlx::Error> {
    let rows = sqlx::query(ROOMS)
        .bind(&query.after)
        .bind(&query.prefix)
        .bind(query.end())
        .bind(i64::from(query.limit) + 1)
        .fetch_all(conn)
        .await?;
    let more = rows.len() > query.limit as usize;
    let rooms = rows.iter().take(query.limit as usize).map(room).collect::<Result<_, _>>()?;
    Ok(RoomList { epoch, rooms, more })
}

fn room(row: &SqliteRow) -> Result<RoomSummary, sqlx::Error> {
    let room = RoomId::parse(row.try_get("room")?).map_err(bad_name)?;
    Ok(RoomSummary { room, head: seq_of(row, "head")?, at_ms: row.try_get("at_ms")? })
}

pub(super) async fn scheduled(
    conn: &mut SqliteConnection,
    query: &ScheduledQuery,
) -> Result<ScheduledList, sqlx::Error> {
    let (sender, key) = query.after.as_ref().map(|(sender, key)| (sender.as_str(), key.as_str())).unzip();
    let asked = sqlx::query(SCHEDULED)
        .bind(query.room.as_str())
        .bind(sender)
        .bind(key)
        .bind(i64::from(query.limit) + 1);
    let mut rows = asked.fetch(conn);
    let (mut messages, mut bytes) = (Vec::<ScheduledMessage>::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let message = message(&row)?;
        bytes += message.data.len();
        let full = messages.len() == query.limit as usize || bytes > query.bytes_max;
        // The first one goes in whatever it costs, or a reader of large messages would never get on.
        if full && !messages.is_empty() {
            return Ok(ScheduledList { messages, more: true });
        }
        messages.push(message);
    }
    Ok(ScheduledList { messages, more: false })
}

fn message(row: &SqliteRow) -> Result<ScheduledMessage, sqlx::Error> {
    Ok(ScheduledMessage {
        sender: UserId::parse(row.try_get("sender")?).map_err(bad_name)?,
        key: Key::parse(row.try_get("key")?).map_err(bad_name)?,
        due_ms: row.try_get("due_ms")?,
        data: row.try_get::<Vec<u8>, _>("data")?.into(),
    })
}

fn bad_name(error: InvalidName) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
