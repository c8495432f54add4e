//! Revoked tokens: arguments in, answers out. The rule is in `revoke_v1`.

use sluice_proto::ids::UserId;
use sluice_proto::revocation::Revocation;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Answer, Statement};
use super::read::senseless;
use crate::{RevocationPage, StoreError, revocations};

const REVOKE: &str = "select $1 as name, issued_until, place from revoke_v1($1, $2) \
     where (select durable_v1($3))";

/// One snapshot of the page and of where all of them end; a page without any is one row of nulls.
const AFTER: &str = "select h.place as head, r.name, r.issued_until, r.place \
     from revocations_head h left join lateral \
       (select * from revocations where place > $1 order by place limit $2) r on true \
     where (select own_session_v1($3)) order by r.place";

const UP_TO: &str = "select coalesce(max(issued_until), 0) as issued_until from revocations \
     where place <= $1 and (select own_session_v1($2))";

const OF: &str = "select r.issued_until from unnest($1::text[]) with ordinality a(name, ord) \
     left join revocations r on r.name = a.name where (select own_session_v1($2)) order by a.ord";

pub(super) fn revoke(user: &UserId, issued_until_s: Option<u32>) -> Statement<'static> {
    sqlx::query(REVOKE).bind(user.as_str().to_owned()).bind(issued_until_s.map(i64::from))
}

pub(super) fn revoked(answer: &Answer) -> Result<Revocation, StoreError> {
    first(answer, revocation)
}

pub(super) fn after(position: u64, limit: usize) -> Statement<'static> {
    sqlx::query(AFTER).bind(revocations::signed(position)).bind(i64::try_from(limit).unwrap_or(i64::MAX))
}

pub(super) fn page(answer: &Answer) -> Result<RevocationPage, StoreError> {
    let read = || -> Result<RevocationPage, sqlx::Error> {
        let head = answer.rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let head = revocations::position(head.try_get("head")?)?;
        let is_one = |row: &&PgRow| !matches!(row.try_get::<Option<i64>, _>("place"), Ok(None));
        let page = answer.rows.iter().filter(is_one).map(revocation).collect::<Result<_, _>>()?;
        Ok(RevocationPage { epoch: answer.epoch, head, page })
    };
    read().map_err(senseless)
}

pub(super) fn up_to(position: u64) -> Statement<'static> {
    sqlx::query(UP_TO).bind(revocations::signed(position))
}

pub(super) fn latest(answer: &Answer) -> Result<u32, StoreError> {
    first(answer, |row| revocations::seconds(row.try_get("issued_until")?))
}

pub(super) fn of(users: &[UserId]) -> Statement<'static> {
    sqlx::query(OF).bind(users.iter().map(|user| user.as_str().to_owned()).collect::<Vec<_>>())
}

pub(super) fn seconds(answer: &Answer, count: usize) -> Result<Vec<Option<u32>>, StoreError> {
    let second = |row: &PgRow| {
        let second: Option<i64> = row.try_get("issued_until")?;
        second.map(revocations::seconds).transpose()
    };
    let seconds = answer.rows.iter().map(second).collect::<Result<Vec<_>, _>>().map_err(senseless)?;
    if seconds.len() == count { Ok(seconds) } else { Err(senseless(sqlx::Error::RowNotFound)) }
}

fn first<T>(answer: &Answer, read: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Result<T, StoreError> {
    answer.rows.first().ok_or(sqlx::Error::RowNotFound).and_then(read).map_err(senseless)
}

fn revocation(row: &PgRow) -> Result<Revocation, sqlx::Error> {
    revocations::read(row.try_get("name")?, row.try_get("issued_until")?, row.try_get("place")?)
}
