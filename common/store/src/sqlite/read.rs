//! Pages and heads. A page's statements run in one transaction, which is one snapshot.

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use sluice_proto::ids::{Epoch, InvalidName, Key, RoomId, Seq, UserId};
use sluice_proto::limits::PAGE_MESSAGES_MAX;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection};

use super::{position, seq_of};
use crate::{Heads, Page, Pages, Range, StoredMessage, message_cost};

const STANDS: &str = "select coalesce(r.head, 0) as head, \
       coalesce((select min(m.seq) from messages m where m.room = i.value), coalesce(r.head, 0) + 1) as oldest \
     from json_each(?1) i left join rooms r on r.room = i.value order by i.key";

const AFTER: &str = "select seq, sender, key, at_ms, data from messages \
     where room = ?1 and seq > ?2 order by seq limit ?3";

const BEFORE: &str = "select seq, sender, key, at_ms, data from messages \
     where room = ?1 and seq < ?2 order by seq desc limit ?3";

const HEADS: &str = "select coalesce(r.head, 0) as head \
     from json_each(?1) i left join rooms r on r.room = i.value order by i.key";

pub(super) async fn heads(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    rooms: &[RoomId],
) -> Result<Heads, sqlx::Error> {
    let names: Vec<&str> = rooms.iter().map(RoomId::as_str).collect();
    let rows = sqlx::query(HEADS).bind(json!(names).to_string()).fetch_all(conn).await?;
    let heads: Result<Vec<Seq>, _> = rows.iter().map(|row| seq_of(row, "head")).collect();
    Ok(Heads { epoch, heads: heads? })
}

pub(super) async fn pages(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    ranges: &[Range],
    bytes_max: usize,
) -> Result<Pages, sqlx::Error> {
    // One snapshot for heads and messages: none is above its page's head.
    let mut tx = conn.begin().await?;
    let names: Vec<&str> = ranges.iter().map(|range| range.room.as_str()).collect();
    let stands = sqlx::query(STANDS).bind(json!(names).to_string()).fetch_all(&mut *tx).await?;
    let mut pages = Vec::with_capacity(ranges.len());
    // Nothing is left over: the first message goes in whatever it costs.
    let mut space = Space { left: bytes_max, untouched: true };
    for (range, row) in ranges.iter().zip(&stands) {
        let (oldest, head) = (seq_of(row, "oldest")?, seq_of(row, "head")?);
        let room = range.room.clone();
        let mut page = Page { room, oldest, head, messages: Vec::new(), deferred: false };
        if has_some(range, oldest, head) {
            if space.left > 0 || space.untouched {
                fill(&mut tx, range, &mut page, &mut space).await?;
            } else {
                page.deferred = true;
            }
        }
        // Only the first range may go beyond the budget.
        space.untouched = false;
        pages.push(page);
    }
    tx.commit().await?;
    Ok(Pages { epoch, pages })
}

/// What a reply can still take.
struct Space {
    left: usize,
    /// Nothing was taken, and it is the first range's turn.
    untouched: bool,
}

/// Whether a range holds anything; rooms are kept without holes.
fn has_some(range: &Range, oldest: Seq, head: Seq) -> bool {
    oldest <= head && range.before.map_or(range.after < head, |before| oldest < before)
}

async fn fill(
    conn: &mut SqliteConnection,
    range: &Range,
    page: &mut Page,
    space: &mut Space,
) -> Result<(), sqlx::Error> {
    let (sql, from) = range.before.map_or((AFTER, range.after), |before| (BEFORE, before));
    let query = sqlx::query(sql).bind(range.room.as_str()).bind(position(from)).bind(limit(range.limit));
    let mut rows = query.fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let message = message(&row)?;
        let cost = message_cost(message.sender.as_str(), message.key.as_str(), &message.data);
        if cost > space.left && !space.untouched {
            space.left = 0;
            page.deferred = page.messages.is_empty();
            break;
        }
        space.left = space.left.saturating_sub(cost);
        space.untouched = false;
        page.messages.push(message);
    }
    if range.before.is_some() {
        page.messages.reverse();
    }
    Ok(())
}

fn message(row: &SqliteRow) -> Result<StoredMessage, sqlx::Error> {
    let name = |e: InvalidName| sqlx::Error::Decode(e.into());
    Ok(StoredMessage {
        seq: seq_of(row, "seq")?,
        sender: UserId::parse(row.try_get("sender")?).map_err(name)?,
        key: Key::parse(row.try_get("key")?).map_err(name)?,
        at_ms: row.try_get("at_ms")?,
        data: Bytes::from(row.try_get::<Vec<u8>, _>("data")?),
    })
}

fn limit(asked: u32) -> i64 {
    let max = i64::try_from(PAGE_MESSAGES_MAX).unwrap_or(i64::MAX);
    match i64::from(asked) {
        0 => max,
        some => some.min(max),
    }
}
