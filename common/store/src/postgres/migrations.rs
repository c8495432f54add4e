//! Brings a database to this version's schema, and gives it a new epoch. Never takes anything away that the
//! version before still uses (see `migrations/postgres/0001_base.sql`).

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_proto::ids::Epoch;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::timeout;

use super::access::PgAccess;
use super::dial::read_epoch;
use super::failure::dial_error;
use super::others::end_others;
use super::servers::Servers;
use super::session::simple;
use crate::StoreError;

/// All migrations in order. A published migration is never edited but for its comments: a database out there has run it.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "base", include_str!("../../migrations/postgres/0001_base.sql")),
    (2, "read and trim", include_str!("../../migrations/postgres/0002_read_and_trim.sql")),
    (3, "delayed", include_str!("../../migrations/postgres/0003_delayed.sql")),
    (4, "revocations", include_str!("../../migrations/postgres/0004_revocations.sql")),
    (5, "waiting keys", include_str!("../../migrations/postgres/0005_waiting_keys.sql")),
    (6, "waiting by API key", include_str!("../../migrations/postgres/0006_waiting_by_api_key.sql")),
    (7, "copied epoch", include_str!("../../migrations/postgres/0007_copied_epoch.sql")),
    (8, "own session", include_str!("../../migrations/postgres/0008_own_session.sql")),
];

/// For the whole migration, waiting for another migrator included.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a new epoch, waiting for the other sessions to end included.
const NEW_EPOCH_TIMEOUT: Duration = Duration::from_secs(20);
/// For a farewell, whose answer nobody needs.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// One transaction; the lock makes two starting logics take turns. It is a transaction's lock because
/// session locks break behind PgBouncer. No statement below may wait long for a table while publishes queue up behind it.
const BEGIN: &str = "begin; set local statement_timeout = '25s'; set local lock_timeout = '25s'; \
     select pg_advisory_xact_lock(7310595919137407351); set local lock_timeout = '2s'; \
     create table if not exists migrations \
       (version int primary key, name text not null, at timestamptz not null default now())";

/// Runs the migrations this database has not seen. Harmless when there are none, and when several run it at once.
///
/// # Errors
/// Nothing was changed, except if the answer to the commit was lost; run it again.
pub async fn migrate(url: &str) -> Result<(), StoreError> {
    migrate_on(&Servers::new(&PgAccess::at(url))?).await
}

pub(super) async fn migrate_on(servers: &Servers) -> Result<(), StoreError> {
    let work = async {
        let mut conn = servers.open().await?;
        apply(&mut conn).await?;
        close(conn).await;
        Ok(())
    };
    timeout(MIGRATE_TIMEOUT, work).await.unwrap_or_else(|_| late("the migration", MIGRATE_TIMEOUT))
}

/// On its own connection, which is dropped on any error or cancellation and takes the transaction with it.
async fn apply(conn: &mut PgConnection) -> Result<(), StoreError> {
    simple(conn, BEGIN).await?;
    let done = sqlx::query("select version from migrations").fetch_all(&mut *conn).await;
    let done: BTreeSet<i32> =
        done.map_err(|e| dial_error(&e))?.iter().filter_map(|row| row.try_get(0).ok()).collect();
    // All in one transaction: a logic that dies half-way leaves the schema as it was.
    for (version, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| !done.contains(version)) {
        simple(conn, sql).await?;
        sqlx::query("insert into migrations (version, name) values ($1, $2)")
            .bind(version)
            .bind(name)
            .execute(&mut *conn)
            .await
            .map_err(|e| dial_error(&e))?;
        tracing::info!(version, name, "the store's schema was migrated");
    }
    // An answer that is lost here is harmless: the next start reads what was done.
    simple(conn, "commit").await
}

/// After a restore that PostgreSQL itself cannot tell (a file-system snapshot): sets a fresh epoch, then ends
/// all other sessions of the database, so that every logic reads it anew.
///
/// # Errors
/// The epoch may have been set; run it again.
pub async fn new_epoch(url: &str) -> Result<Epoch, StoreError> {
    new_epoch_with(&PgAccess::at(url)).await
}

/// [`new_epoch`] for who has a password in a file.
///
/// # Errors
/// As of [`new_epoch`].
pub async fn new_epoch_with(access: &PgAccess) -> Result<Epoch, StoreError> {
    let servers = Servers::new(access)?;
    let work = async {
        let mut conn = servers.open().await?;
        // Autocommit: whoever connects after this reads the new epoch, whoever connected before is ended.
        simple(&mut conn, "update meta set epoch = gen_random_uuid()").await?;
        let left = end_others(&mut conn).await?;
        if left > 0 {
            return Err(StoreError::Unknown(format!(
                "the epoch is new, but {left} sessions that know the former one still run: run it again"
            )));
        }
        let epoch = read_epoch(&mut conn).await?;
        close(conn).await;
        Ok(epoch)
    };
    timeout(NEW_EPOCH_TIMEOUT, work).await.unwrap_or_else(|_| late("the new epoch", NEW_EPOCH_TIMEOUT))
}

pub(super) async fn close(conn: PgConnection) {
    // Its last word to the server may wait for a network that is dead.
    if let Ok(Err(error)) = timeout(CLOSE_WITHIN, conn.close()).await {
        tracing::debug!(%error, "a store connection did not close well, its work is done all the same");
    }
}

fn late<T>(what: &str, allowed: Duration) -> Result<T, StoreError> {
    Err(StoreError::Unknown(format!(
        "{what} took longer than {} s: look for what drops packets on the way to the database, and for a session there that \
         holds its tables locked; then run it again",
        allowed.as_secs()
    )))
}
