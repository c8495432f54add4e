//! Brings a file to this version's schema. Never touches a file that is not a store's.

use std::collections::BTreeSet;

use sqlx::{Connection, Row, SqliteConnection};

use super::failure::dial_error;
use crate::StoreError;

/// All migrations in order. A published migration is never edited but for its comments: a file out there has run it.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "base", include_str!("../../migrations/sqlite/0001_base.sql")),
    (2, "delayed", include_str!("../../migrations/sqlite/0002_delayed.sql")),
    (3, "revocations", include_str!("../../migrations/sqlite/0003_revocations.sql")),
    (4, "waiting keys", include_str!("../../migrations/sqlite/0004_waiting_keys.sql")),
    (5, "waiting by API key", include_str!("../../migrations/sqlite/0005_waiting_by_api_key.sql")),
];

/// `pragma application_id` of a store: "SLUC".
pub(super) const APPLICATION: i64 = 0x534c_5543;

/// Runs the migrations this file has not seen, in one transaction.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    // Before the first write: somebody else's database must stay as it is.
    if !is_ours(conn).await.map_err(|e| dial_error(&e))? {
        return Err(StoreError::Misconfigured(
            "the file of sqlite.path belongs to another program: use another path".to_owned(),
        ));
    }
    apply(conn).await.map_err(|e| dial_error(&e))
}

/// A store's file, or an empty one.
async fn is_ours(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("pragma application_id").fetch_one(&mut *conn).await?;
    if row.try_get::<i64, _>(0)? == APPLICATION {
        return Ok(true);
    }
    let row = sqlx::query("select count(*) from sqlite_schema").fetch_one(&mut *conn).await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}

async fn apply(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    // Takes the write lock at once: a transaction that reads first and writes then can fail with
    // BUSY without a wait.
    let mut tx = conn.begin_with("begin immediate").await?;
    let table =
        "create table if not exists migrations (version integer primary key, name text not null) strict";
    sqlx::raw_sql(table).execute(&mut *tx).await?;
    let done = sqlx::query("select version from migrations").fetch_all(&mut *tx).await?;
    let done: BTreeSet<i32> = done.iter().filter_map(|row| row.try_get(0).ok()).collect();
    for (version, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| !done.contains(version)) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        sqlx::query("insert into migrations (version, name) values (?1, ?2)")
            .bind(version)
            .bind(name)
            .execute(&mut *tx)
            .await?;
        tracing::info!(version, name, "the store's schema was migrated");
    }
    tx.commit().await
}
