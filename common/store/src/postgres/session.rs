//! A session of a server that can be trusted with promise P1: its settings, and what is checked of the server.

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection, Row};

use super::failure::dial_error;
use crate::StoreError;

/// Oldest server the schema was proven on.
const SERVER_VERSION_MIN: i32 = 150_000;

/// Settings of every session. Isolation: the fresh snapshot per statement in `publish_v2` exists under READ
/// COMMITTED only. The tcp settings let the server find a dead client within 15 s.
const SETTINGS: &str = "set statement_timeout = '3s'; set lock_timeout = '2s'; \
     set idle_in_transaction_session_timeout = '5s'; \
     set default_transaction_isolation = 'read committed'; \
     set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 3; set tcp_keepalives_count = 3; \
     set tcp_user_timeout = 15000";

const CHECK: &str = "select current_setting('server_version_num')::int as version, \
     pg_is_in_recovery() as standby, current_setting('fsync') as fsync, \
     current_setting('synchronous_commit') as synchronous_commit, \
     current_setting('default_transaction_isolation') as isolation";

/// Opens a durable connection to this server, if it can be trusted.
pub(super) async fn open(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut conn = PgConnection::connect_with(options).await.map_err(|e| dial_error(&e))?;
    simple(&mut conn, SETTINGS).await?;
    // Asked once in the life of a connection: a prepared statement would stay on the server.
    let row = sqlx::query(CHECK).persistent(false).fetch_one(&mut conn).await.map_err(|e| dial_error(&e))?;
    check(&row)?;
    Ok(conn)
}

/// Runs statements that have no parameters and whose rows nobody needs.
pub(super) async fn simple(conn: &mut PgConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::raw_sql(sql).execute(conn).await.map_err(|e| dial_error(&e))?;
    Ok(())
}

/// Promise P1 stands on these. Each text names what to change.
fn check(row: &PgRow) -> Result<(), StoreError> {
    let text = |column| row.try_get::<&str, _>(column).map_err(|e| dial_error(&e));
    let version: i32 = row.try_get("version").map_err(|e| dial_error(&e))?;
    if version < SERVER_VERSION_MIN {
        return wrong(format!("PostgreSQL is version {}, use 15 or later", version / 10_000));
    }
    if row.try_get("standby").map_err(|e| dial_error(&e))? {
        return wrong("the server is a standby; point postgres.url at the primary, or promote it".to_owned());
    }
    if text("fsync")? != "on" {
        return wrong(
            "fsync is off, a power cut would lose messages that were answered ok; \
             set fsync = on in postgresql.conf and reload"
                .to_owned(),
        );
    }
    let synchronous = text("synchronous_commit")?;
    if !["on", "remote_apply"].contains(&synchronous) {
        return wrong(format!(
            "synchronous_commit is {synchronous}, a crash would lose messages that were answered ok; \
             set synchronous_commit = on for the server and the role (alter role … reset synchronous_commit)"
        ));
    }
    let isolation = text("isolation")?;
    if isolation != "read committed" {
        return wrong(format!(
            "default_transaction_isolation is {isolation} although the session set read committed; \
             let nothing between logic and PostgreSQL change session settings (PgBouncer: pool_mode = session)"
        ));
    }
    Ok(())
}

fn wrong(text: String) -> Result<(), StoreError> {
    Err(StoreError::Misconfigured(text))
}
