//! Outbox and retention. Nothing here must survive a crash.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_proto::ids::{RoomId, Seq};
use sqlx::{Connection, Row as _, SqliteConnection};

use super::{now_ms, seq_of};
use crate::{NoteId, Retention, Run, StaleNote};

/// Rooms looked at in one step of retention: an index probe each, some milliseconds.
const TRIM_ROOMS: i64 = 1_000;

const NOTED: &str = "delete from outbox where id in (select value from json_each(?1))";

const STALE: &str = "select id, at_ms, runs from outbox where at_ms <= ?1 order by id limit ?2";

const DROP_OLD: &str =
    "delete from outbox where id in (select id from outbox where at_ms <= ?1 order by id limit ?2)";

/// How far a step looks.
const PART: &str = "select count(*) as seen, coalesce(max(room), '') as last \
     from (select room from rooms where room > ?1 order by room limit ?2)";

/// Rooms of that part whose oldest message may go.
const RIPE: &str = "select r.room, r.head from rooms r cross join messages m \
       on m.room = r.room and m.seq = (select min(x.seq) from messages x where x.room = r.room) \
     where r.room > ?1 and r.room <= ?2 and m.at_ms < ?3 and (m.at_ms < ?4 or m.seq <= r.head - ?5) \
     order by r.room";

const OLDEST: &str = "select seq, at_ms from messages where room = ?1 order by seq limit ?2";

const CUT: &str = "delete from messages where id in (select m.id from json_each(?1) c cross join messages m \
     on m.room = c.value ->> 0 and m.seq <= c.value ->> 1)";

pub(super) async fn noted(conn: &mut SqliteConnection, notes: &[NoteId]) -> Result<(), sqlx::Error> {
    let ids: Value = notes.iter().map(|note| json!(note.0)).collect();
    write(conn, sqlx::query(NOTED).bind(ids.to_string())).await?;
    Ok(())
}

pub(super) async fn stale(
    conn: &mut SqliteConnection,
    older_than: Duration,
    limit: usize,
) -> Result<Vec<StaleNote>, sqlx::Error> {
    let query = sqlx::query(STALE).bind(before_now(older_than)).bind(count(limit));
    let decode = |e: serde_json::Error| sqlx::Error::Decode(e.into());
    let mut notes = Vec::new();
    for row in query.fetch_all(conn).await? {
        let runs: Vec<(String, Seq, Seq)> = serde_json::from_str(row.try_get("runs")?).map_err(decode)?;
        let runs = runs.iter().map(|(room, first, last)| {
            let room = RoomId::parse(room).map_err(|e| sqlx::Error::Decode(e.into()))?;
            Ok(Run { room, first: *first, last: *last })
        });
        notes.push(StaleNote {
            id: NoteId(row.try_get("id")?),
            at_ms: row.try_get("at_ms")?,
            runs: runs.collect::<Result<_, sqlx::Error>>()?,
        });
    }
    Ok(notes)
}

/// How many rows went.
pub(super) async fn drop_old(
    conn: &mut SqliteConnection,
    older_than: Duration,
    limit: usize,
) -> Result<u64, sqlx::Error> {
    write(conn, sqlx::query(DROP_OLD).bind(before_now(older_than)).bind(count(limit))).await
}

/// What a step of retention found to delete.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Per room, the last seq to go.
    rooms: Vec<(String, Seq)>,
    /// The last room that was done; "" = all were, begin with the first.
    pub(super) next_from: String,
}

/// Looks for what may go in the next rooms after `from`, at most `limit` messages. What may go today may go later too, so
/// looking and cutting need not be one transaction, and nobody waits for the looking.
pub(super) async fn ripe(
    conn: &mut SqliteConnection,
    from: &str,
    policy: &Retention,
    limit: usize,
) -> Result<Cuts, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let part = sqlx::query(PART).bind(from).bind(TRIM_ROOMS).fetch_one(&mut *tx).await?;
    let (seen, last): (i64, String) = (part.try_get("seen")?, part.try_get("last")?);
    let rule = TrimRule::of(policy);
    let candidates = sqlx::query(RIPE)
        .bind(from)
        .bind(&last)
        .bind(rule.young_ms)
        .bind(rule.old_ms)
        .bind(rule.count)
        .fetch_all(&mut *tx)
        .await?;
    let mut cuts = Cuts { rooms: Vec::new(), next_from: from.to_owned() };
    let mut left = limit;
    for row in candidates {
        let (room, head): (String, i64) = (row.try_get("room")?, row.try_get("head")?);
        let oldest = sqlx::query(OLDEST).bind(&room).bind(count(left)).fetch_all(&mut *tx).await?;
        let mut gone = 0;
        let mut cut = None;
        for row in &oldest {
            // Always the oldest and without a gap: a room keeps `oldest…head`.
            if !rule.lets_go(row.try_get("seq")?, row.try_get("at_ms")?, head) {
                break;
            }
            gone += 1;
            cut = Some(seq_of(row, "seq")?);
        }
        left -= gone;
        cuts.rooms.extend(cut.map(|seq| (room.clone(), seq)));
        if left == 0 {
            // Perhaps not done with this room: the next step begins with it.
            return Ok(cuts);
        }
        cuts.next_from = room;
    }
    tx.commit().await?;
    // Round and round: the end of the rooms leads to their beginning.
    cuts.next_from = if seen < TRIM_ROOMS { String::new() } else { last };
    Ok(cuts)
}

/// Deletes it; how many messages went.
pub(super) async fn cut(conn: &mut SqliteConnection, cuts: &Cuts) -> Result<u64, sqlx::Error> {
    if cuts.rooms.is_empty() {
        return Ok(0);
    }
    write(conn, sqlx::query(CUT).bind(json!(cuts.rooms).to_string())).await
}

/// A policy at an instant.
struct TrimRule {
    /// Stored since then: stays, whatever the policy says.
    young_ms: i64,
    /// Stored before: goes. 0 without an age.
    old_ms: i64,
    /// So many newest stay. Very many without a count.
    count: i64,
}

impl TrimRule {
    fn of(policy: &Retention) -> Self {
        Self {
            young_ms: before_now(policy.dedupe_min),
            old_ms: policy.age.map_or(0, before_now),
            count: policy.count.and_then(|n| i64::try_from(n).ok()).unwrap_or(i64::MAX),
        }
    }

    fn lets_go(&self, seq: i64, at_ms: i64, head: i64) -> bool {
        at_ms < self.young_ms && (at_ms < self.old_ms || seq <= head.saturating_sub(self.count))
    }
}

/// One statement, its own transaction, which takes the lock before it reads; how many rows it changed.
pub(super) async fn write(conn: &mut SqliteConnection, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
    let mut tx = conn.begin_with("begin immediate").await?;
    let done = statement.execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

pub(super) type Statement<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

pub(super) fn before_now(ago: Duration) -> i64 {
    now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
