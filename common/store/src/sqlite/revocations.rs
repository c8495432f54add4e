//! The transactions of revoked tokens.

use serde_json::json;
use sluice_proto::ids::{Epoch, UserId};
use sluice_proto::revocation::Revocation;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection};

use super::failure::Failure;
use super::{now_ms, upkeep};
use crate::{RevocationPage, revocations};

const NEXT: &str = "update revocations_head set place = place + 1 returning place";

const REVOKE: &str = "insert into revocations (name, issued_until, place) values (?1, ?2, ?3) \
     on conflict (name) do update \
       set issued_until = max(issued_until, excluded.issued_until), place = excluded.place \
     returning name, issued_until, place";

const HEAD: &str = "select place from revocations_head";

const AFTER: &str =
    "select name, issued_until, place from revocations where place > ?1 order by place limit ?2";

const UP_TO: &str =
    "select coalesce(max(issued_until), 0) as issued_until from revocations where place <= ?1";

const OF: &str =
    "select r.issued_until from json_each(?1) a left join revocations r on r.name = a.value order by a.key";

pub(super) async fn revoke(
    conn: &mut SqliteConnection,
    user: &UserId,
    issued_until_s: Option<u32>,
) -> Result<Revocation, Failure> {
    // Takes the write lock first: positions are committed in their order.
    let mut tx = conn.begin_with("begin immediate").await?;
    let position: i64 = sqlx::query(NEXT).fetch_one(&mut *tx).await?.try_get("place")?;
    // After all waits, or tokens issued meanwhile would be good.
    let until = issued_until_s.map_or_else(|| now_ms().div_euclid(1_000), i64::from);
    let row = sqlx::query(REVOKE).bind(user.as_str()).bind(until).bind(position).fetch_one(&mut *tx).await?;
    let revocation = revocation(&row)?;
    tx.commit().await.map_err(|error| Failure { error, committing: true, undone: false })?;
    Ok(revocation)
}

pub(super) async fn after(
    conn: &mut SqliteConnection,
    epoch: Epoch,
    position: u64,
    limit: usize,
) -> Result<RevocationPage, sqlx::Error> {
    // One snapshot for both.
    let mut tx = conn.begin().await?;
    let head: i64 = sqlx::query(HEAD).fetch_one(&mut *tx).await?.try_get("place")?;
    let query = sqlx::query(AFTER).bind(revocations::signed(position)).bind(upkeep::count(limit));
    let page = query.fetch_all(&mut *tx).await?.iter().map(revocation).collect::<Result<_, _>>()?;
    tx.commit().await?;
    Ok(RevocationPage { epoch, head: revocations::position(head)?, page })
}

pub(super) async fn up_to(conn: &mut SqliteConnection, position: u64) -> Result<u32, sqlx::Error> {
    let row = sqlx::query(UP_TO).bind(revocations::signed(position)).fetch_one(conn).await?;
    revocations::seconds(row.try_get("issued_until")?)
}

pub(super) async fn of(
    conn: &mut SqliteConnection,
    users: &[UserId],
) -> Result<Vec<Option<u32>>, sqlx::Error> {
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let rows = sqlx::query(OF).bind(json!(names).to_string()).fetch_all(conn).await?;
    let second = |row: &SqliteRow| {
        let second: Option<i64> = row.try_get("issued_until")?;
        second.map(revocations::seconds).transpose()
    };
    rows.iter().map(second).collect()
}

fn revocation(row: &SqliteRow) -> Result<Revocation, sqlx::Error> {
    revocations::read(row.try_get("name")?, row.try_get("issued_until")?, row.try_get("place")?)
}
