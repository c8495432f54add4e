//! The transaction that publishes: a few statements, however many items. The rules are in [`Ledger`].

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluice_proto::ids::{Epoch, Seq};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection};

use super::failure::Failure;
use super::ledger::{Head, KeptKey, KnownKey, Ledger, New, PlacedGroup, name_of};
use super::{now_ms, seq_of};
use crate::{Committed, NewMessage, NoteId, StoreError};

/// What one call commits.
#[derive(Debug)]
pub(super) struct PendingGroup {
    pub(super) not_after_ms: i64,
    pub(super) items: Vec<NewMessage>,
}

const HEADS: &str = "select room, head, at_ms from rooms where room in (select value from json_each(?1))";

/// `cross join`: keys in hand first, each looked up by index.
const KEYS: &str = "select i.key as place, m.seq, m.hash from json_each(?1) i cross join messages m \
     on m.room = i.value ->> 0 and m.sender = i.value ->> 1 and m.key = i.value ->> 2";

/// Likewise, of what waits and what was cancelled.
const KEPT: &str = "select i.key as place, s.due_ms, s.hash, s.cancelled_ms from json_each(?1) i \
     cross join scheduled s on s.room = i.value ->> 0 and s.sender = i.value ->> 1 and s.key = i.value ->> 2";

/// Names and numbers as JSON; hashes and data, which are bytes, each in one piece to cut from.
const INSERT: &str = "insert into messages (room, seq, sender, key, at_ms, hash, data) \
     select i.value ->> 0, i.value ->> 1, i.value ->> 2, i.value ->> 3, i.value ->> 4, \
       substr(?2, 1 + 32 * i.key, 32), coalesce(substr(?3, 1 + (i.value ->> 5), i.value ->> 6), x'') \
     from json_each(?1) i";

const GROW: &str = "insert into rooms (room, head, at_ms) \
     select value ->> 0, value ->> 1, value ->> 2 from json_each(?1) where true \
     on conflict (room) do update set head = excluded.head, at_ms = excluded.at_ms";

const OWE: &str = "insert into outbox (at_ms, runs) values (?1, ?2) returning id";

/// One result for each group.
type Results = Vec<Result<Committed, StoreError>>;

/// Commits these groups, each in its order, one after another: all of them or nothing. Groups that are too late
/// are left out.
pub(super) async fn commit(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    groups: &[&PendingGroup],
) -> Result<Results, Failure> {
    // Takes the write lock before the first read: what the ledger learns stays true until the
    // commit.
    let mut tx = conn.begin_with("begin immediate").await?;
    match write(&mut tx, epoch, groups).await {
        Ok(results) => {
            let committing = |error| Failure { error, committing: true, undone: false };
            tx.commit().await.map_err(committing)?;
            Ok(results)
        }
        Err(error) => {
            // Said aloud, so that the connection can be used again; without it, it is closed.
            let undone = tx.rollback().await.is_ok();
            Err(Failure { error, committing: false, undone })
        }
    }
}

/// Inside the transaction: from its begin on nobody else writes, so what is read stays true, and what is in
/// time now is in time.
pub(super) async fn write(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    groups: &[&PendingGroup],
) -> Result<Results, sqlx::Error> {
    let now_ms = now_ms();
    let timely = |group: &&&PendingGroup| group.not_after_ms >= now_ms;
    let mut ledger = ledger(conn, groups.iter().filter(timely).flat_map(|group| &group.items)).await?;
    let mut results = Vec::with_capacity(groups.len());
    let mut new = Vec::new();
    for group in groups {
        if !timely(&group) {
            // Judged under the lock, like `publish_v2` (A11); the other groups of the batch go on.
            results.push(Err(StoreError::TooLate));
            continue;
        }
        // One after the other through one ledger: a group sees what those before it stored.
        let placed = ledger.place(&group.items, now_ms);
        let note = owe(conn, now_ms, &placed).await?;
        results.push(Ok(Committed { epoch, rows: placed.rows, note }));
        new.extend(placed.new);
    }
    if !new.is_empty() {
        insert(conn, &new).await?;
        grow(conn, &new, &ledger).await?;
    }
    Ok(results)
}

/// What the tables know about these items.
async fn ledger<'a>(
    conn: &mut SqliteConnection,
    items: impl Iterator<Item = &'a NewMessage>,
) -> Result<Ledger<'a>, sqlx::Error> {
    let items: Vec<&NewMessage> = items.collect();
    let mut ledger = Ledger::default();
    let rooms: BTreeSet<&str> = items.iter().map(|item| item.room.as_str()).collect();
    for row in sqlx::query(HEADS).bind(json!(rooms).to_string()).fetch_all(&mut *conn).await? {
        let head = Head { seq: seq_of(&row, "head")?, at_ms: row.try_get("at_ms")? };
        if let Some(room) = rooms.get(row.try_get::<&str, _>("room")?) {
            ledger.heads.insert(room, head);
        }
    }
    let names: Vec<_> = items.iter().map(|item| name_of(item)).collect();
    let named = |row: &SqliteRow| -> Result<_, sqlx::Error> {
        let place = usize::try_from(row.try_get::<i64, _>("place")?).ok();
        Ok(place.and_then(|place| names.get(place)).copied())
    };
    let list = json!(names).to_string();
    for row in sqlx::query(KEYS).bind(&list).fetch_all(&mut *conn).await? {
        if let Some(name) = named(&row)? {
            ledger.keys.insert(name, KnownKey { seq: seq_of(&row, "seq")?, hash: hash_of(&row)? });
        }
    }
    for row in sqlx::query(KEPT).bind(&list).fetch_all(&mut *conn).await? {
        if let Some(name) = named(&row)? {
            let waits = row.try_get::<Option<i64>, _>("cancelled_ms")?.is_none();
            let due_ms = if waits { Some(row.try_get("due_ms")?) } else { None };
            ledger.kept.insert(name, KeptKey { hash: hash_of(&row)?, due_ms });
        }
    }
    Ok(ledger)
}

pub(super) fn hash_of(row: &SqliteRow) -> Result<[u8; 32], sqlx::Error> {
    row.try_get::<&[u8], _>("hash")?.try_into().map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// The outbox row of a group.
async fn owe(
    conn: &mut SqliteConnection,
    now_ms: i64,
    placed: &PlacedGroup<'_>,
) -> Result<Option<NoteId>, sqlx::Error> {
    if placed.runs.is_empty() {
        return Ok(None);
    }
    let runs: Vec<(&str, Seq, Seq)> =
        placed.runs.iter().map(|run| (run.room.as_str(), run.first, run.last)).collect();
    let row = sqlx::query(OWE).bind(now_ms).bind(json!(runs).to_string()).fetch_one(conn).await?;
    Ok(Some(NoteId(row.try_get(0)?)))
}

async fn insert(conn: &mut SqliteConnection, new: &[New<'_>]) -> Result<(), sqlx::Error> {
    let mut data = Vec::new();
    let mut hashes = Vec::with_capacity(32 * new.len());
    let rows: Value = (new.iter())
        .map(|New { item, seq, at_ms }| {
            let (room, sender, key) = name_of(item);
            let start = data.len();
            data.extend_from_slice(&item.data);
            hashes.extend_from_slice(&item.hash);
            json!([room, seq, sender, key, at_ms, start, item.data.len()])
        })
        .collect();
    // One statement for all: SQLite's cost is per statement, not per row.
    sqlx::query(INSERT).bind(rows.to_string()).bind(hashes).bind(data).execute(conn).await?;
    Ok(())
}

async fn grow(conn: &mut SqliteConnection, new: &[New<'_>], ledger: &Ledger<'_>) -> Result<(), sqlx::Error> {
    let rooms: BTreeSet<&str> = new.iter().map(|new| new.item.room.as_str()).collect();
    let heads: Value = (rooms.iter())
        .filter_map(|room| ledger.heads.get(room).map(|head| json!([room, head.seq, head.at_ms])))
        .collect();
    sqlx::query(GROW).bind(heads.to_string()).execute(conn).await?;
    Ok(())
}
