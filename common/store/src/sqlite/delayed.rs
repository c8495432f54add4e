//! The transactions of messages that are to be published later. Firing one is a publish: its rules are those of
//! [`write`](super::publish::write).

use std::collections::HashMap;
use std::time::Duration;

use sluice_proto::ids::{Epoch, InvalidName, Key, RoomId, Seq, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection};

use super::failure::Failure;
use super::publish::{PendingGroup, hash_of, write};
use super::{now_ms, seq_of, upkeep};
use crate::{DelayedItem, DelayedOutcome, Due, Fired, NewMessage, Outcome, Run, StoreError, WaitingLimit};

const WAITING: &str =
    "select due_ms, hash, cancelled_ms from scheduled where room = ?1 and sender = ?2 and key = ?3";

const PUBLISHED: &str = "select seq, hash from messages where room = ?1 and sender = ?2 and key = ?3";

const KEEP: &str = "insert into scheduled (due_ms, part, room, sender, key, hash, data, api_key) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const CANCEL: &str = "update scheduled set cancelled_ms = ?4, data = x'' \
     where room = ?1 and sender = ?2 and key = ?3 and cancelled_ms is null returning api_key";

const NEXT: &str =
    "select due_ms from scheduled where part = ?1 and cancelled_ms is null order by due_ms limit 1";

const DUE: &str = "select id, room, sender, key, hash, data from scheduled \
     where part = ?1 and cancelled_ms is null and due_ms <= ?2 order by due_ms, id limit ?3";

const FIRED: &str = "delete from scheduled where id in (select value from json_each(?1))";

/// No further than the limit: the index is walked, not the table.
const COUNT: &str = "select count(*) as n from \
     (select 1 from scheduled where sender = ?1 and cancelled_ms is null limit ?2)";

/// The same of a key of the API.
const COUNT_OF_KEY: &str = "select count(*) as n from \
     (select 1 from scheduled where api_key = ?1 and cancelled_ms is null limit ?2)";

const FORGET: &str = "delete from scheduled where id in \
     (select id from scheduled where cancelled_ms <= ?1 order by cancelled_ms limit ?2)";

type Names<'a> = (&'a RoomId, &'a UserId, &'a Key);

/// Keeps and takes back, in order: all of it or nothing.
pub(super) async fn delay(
    conn: &mut SqliteConnection,
    not_after_ms: i64,
    limit: &WaitingLimit,
    items: &[DelayedItem],
) -> Result<Result<Vec<DelayedOutcome>, StoreError>, Failure> {
    // Takes the write lock before the first read: what is looked up stays true until the commit.
    let mut tx = conn.begin_with("begin immediate").await?;
    let now_ms = now_ms();
    if now_ms > not_after_ms {
        tx.rollback().await?;
        return Ok(Err(StoreError::TooLate));
    }
    let mut outcomes = Vec::with_capacity(items.len());
    let mut places = Places { limit, left: HashMap::new() };
    for item in items {
        outcomes.push(match item {
            DelayedItem::Schedule { message, due } => {
                keep(&mut tx, message, *due, now_ms, &mut places).await?
            }
            DelayedItem::Cancel { room, sender, key } => {
                let names = (room, sender, key);
                cancel(&mut tx, names, now_ms, &mut places).await?
            }
        });
    }
    tx.commit().await.map_err(committing)?;
    Ok(Ok(outcomes))
}

fn committing(error: sqlx::Error) -> Failure {
    Failure { error, committing: true, undone: false }
}

/// How many more messages of each sender may wait, or of a key of the API.
struct Places<'a> {
    limit: &'a WaitingLimit,
    /// Of those that were counted, once each.
    left: HashMap<&'a str, i64>,
}

impl<'a> Places<'a> {
    async fn of(
        &mut self,
        conn: &mut SqliteConnection,
        sender: &'a UserId,
    ) -> Result<Option<&mut i64>, sqlx::Error> {
        let WaitingLimit { max, api_key } = self.limit;
        if *max == 0 {
            return Ok(None);
        }
        let (counted, count) = match api_key {
            Some(api_key) => (&**api_key, COUNT_OF_KEY),
            None => (sender.as_str(), COUNT),
        };
        if !self.left.contains_key(counted) {
            let row = sqlx::query(count).bind(counted).bind(*max).fetch_one(conn).await?;
            self.left.insert(counted, i64::from(*max) - row.try_get::<i64, _>("n")?);
        }
        Ok(self.left.get_mut(counted))
    }

    /// One of this sender was taken back, that came by this key of the API, if by any.
    fn gain(&mut self, sender: &UserId, came_by: Option<&str>) {
        let counted = match self.limit.api_key.as_deref() {
            Some(api_key) => came_by.filter(|came_by| *came_by == api_key),
            None => Some(sender.as_str()),
        };
        if let Some(left) = counted.and_then(|counted| self.left.get_mut(counted)) {
            *left += 1;
        }
    }
}

async fn keep<'a>(
    conn: &mut SqliteConnection,
    message: &'a NewMessage,
    due: Due,
    now_ms: i64,
    places: &mut Places<'a>,
) -> Result<DelayedOutcome, sqlx::Error> {
    let names = (&message.room, &message.sender, &message.key);
    if let Some(row) = named(WAITING, names).fetch_optional(&mut *conn).await? {
        return Ok(if hash_of(&row)? != message.hash {
            DelayedOutcome::Conflict
        } else if row.try_get::<Option<i64>, _>("cancelled_ms")?.is_some() {
            DelayedOutcome::Cancelled
        } else {
            DelayedOutcome::Waits { due_ms: row.try_get("due_ms")? }
        });
    }
    if let Some(row) = named(PUBLISHED, names).fetch_optional(&mut *conn).await? {
        return Ok(if hash_of(&row)? == message.hash {
            DelayedOutcome::Published { seq: seq_of(&row, "seq")? }
        } else {
            DelayedOutcome::Conflict
        });
    }
    if let Some(left) = places.of(conn, &message.sender).await? {
        if *left <= 0 {
            return Ok(DelayedOutcome::TooMany);
        }
        *left -= 1;
    }
    let due_ms = match due {
        Due::At(ms) => ms,
        Due::In(ms) => now_ms.saturating_add(ms),
    };
    sqlx::query(KEEP)
        .bind(due_ms)
        .bind(i64::from(message.room.lane()))
        .bind(message.room.as_str())
        .bind(message.sender.as_str())
        .bind(message.key.as_str())
        .bind(&message.hash[..])
        .bind(&message.data[..])
        .bind(places.limit.api_key.as_deref())
        .execute(conn)
        .await?;
    Ok(DelayedOutcome::Waits { due_ms })
}

async fn cancel(
    conn: &mut SqliteConnection,
    names: Names<'_>,
    now_ms: i64,
    places: &mut Places<'_>,
) -> Result<DelayedOutcome, sqlx::Error> {
    let taken = named(CANCEL, names).bind(now_ms).fetch_optional(&mut *conn).await?;
    if let Some(row) = &taken {
        places.gain(names.1, row.try_get::<Option<String>, _>("api_key")?.as_deref());
    }
    // A cancel that is sent again finds what the first one did.
    let is_cancelled = taken.is_some() || named(WAITING, names).fetch_optional(conn).await?.is_some();
    Ok(if is_cancelled { DelayedOutcome::Cancelled } else { DelayedOutcome::NothingWaits })
}

fn named<'q>(sql: &'static str, (room, sender, key): Names<'q>) -> upkeep::Statement<'q> {
    sqlx::query(sql).bind(room.as_str()).bind(sender.as_str()).bind(key.as_str())
}

/// How long until the next one of these lanes is due.
pub(super) async fn next(conn: &mut SqliteConnection, lanes: &[u8]) -> Result<Option<Duration>, sqlx::Error> {
    let mut earliest: Option<i64> = None;
    for lane in lanes {
        if let Some(row) = sqlx::query(NEXT).bind(i64::from(*lane)).fetch_optional(&mut *conn).await? {
            let due_ms: i64 = row.try_get("due_ms")?;
            earliest = Some(earliest.map_or(due_ms, |other| other.min(due_ms)));
        }
    }
    let until = |due_ms: i64| {
        Duration::from_millis(u64::try_from(due_ms.saturating_sub(now_ms())).unwrap_or_default())
    };
    Ok(earliest.map(until))
}

/// Publishes what is due of a lane and takes it off the schedule, in one transaction.
pub(super) async fn fire(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    lane: u8,
    limit: usize,
) -> Result<Fired, Failure> {
    let mut tx = conn.begin_with("begin immediate").await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let due = sqlx::query(DUE).bind(i64::from(lane)).bind(now_ms()).bind(limit).fetch_all(&mut *tx).await?;
    let ids = due.iter().map(|row| row.try_get("id")).collect::<Result<Vec<i64>, _>>()?;
    let items = due.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let ids = serde_json::Value::from(ids).to_string();
    sqlx::query(FIRED).bind(ids).execute(&mut *tx).await?;
    let group = PendingGroup { not_after_ms: i64::MAX, items };
    let results = write(&mut tx, epoch, &[&group]).await?;
    tx.commit().await.map_err(committing)?;
    let mut fired = Fired {
        epoch,
        taken: group.items.len() as u64,
        conflicts: 0,
        runs: Vec::new(),
        locked: Vec::new(),
        note: None,
    };
    for committed in results.into_iter().flatten() {
        fired.note = committed.note;
        let mut runs = std::collections::BTreeMap::<&RoomId, (Seq, Seq)>::new();
        for (item, row) in group.items.iter().zip(&committed.rows) {
            match row.outcome {
                Outcome::Stored { seq, .. } => runs.entry(&item.room).or_insert((seq, seq)).1 = seq,
                // Nothing of this transaction waits under a key that it publishes.
                Outcome::Duplicate { .. } | Outcome::Waits { .. } => {}
                Outcome::Conflict => fired.conflicts += 1,
            }
        }
        fired.runs =
            runs.into_iter().map(|(room, (first, last))| Run { room: room.clone(), first, last }).collect();
    }
    Ok(fired)
}

fn message(row: &SqliteRow) -> Result<NewMessage, sqlx::Error> {
    let name = |error: InvalidName| sqlx::Error::Decode(error.into());
    Ok(NewMessage {
        room: RoomId::parse(row.try_get("room")?).map_err(name)?,
        sender: UserId::parse(row.try_get("sender")?).map_err(name)?,
        key: Key::parse(row.try_get("key")?).map_err(name)?,
        hash: hash_of(row)?,
        data: row.try_get::<Vec<u8>, _>("data")?.into(),
    })
}

/// How many keys went.
pub(super) async fn forget_cancelled(
    conn: &mut SqliteConnection,
    older_than: Duration,
    limit: usize,
) -> Result<u64, sqlx::Error> {
    let before = upkeep::before_now(older_than);
    upkeep::write(conn, sqlx::query(FORGET).bind(before).bind(upkeep::count(limit))).await
}
