//! Makes connections: settings, checks that the server can be trusted, epoch. Never hands out a connection
//! that failed one of them.

use sluice_proto::ids::Epoch;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection, Row};

use super::config::PgConfig;
use super::epochs::{EpochReading, Epochs, epoch_of};
use super::failure::dial_error;
use super::servers::{PgAccess, Servers};
use crate::StoreError;

/// Oldest server the schema was proven on.
const SERVER_VERSION_MIN: i32 = 150_000;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Waits until the server has synced what it commits.
    Durable,
    /// Changes nothing: the server ends its statement soon after the connection is dropped.
    Reading,
    /// Commits only what may be forgotten by a crash (deletes of outbox rows, of old messages).
    Forgetful,
}

/// Settings of every session. Isolation: the fresh snapshot per statement in `publish_v1` exists under READ
/// COMMITTED only. The tcp settings let the server find a dead client within 15 s.
const SETTINGS: &str = "set statement_timeout = '3s'; set lock_timeout = '2s'; \
     set idle_in_transaction_session_timeout = '5s'; \
     set default_transaction_isolation = 'read committed'; \
     set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 3; set tcp_keepalives_count = 3; \
     set tcp_user_timeout = 15000";

/// What a connection of [`Kind::Durable`] sets besides: a room that somebody else keeps locked holds the other rooms of its
/// group up for this long, and the lane that shares the connection. Far above what commits of two logics wait for each other.
const DURABLE: &str = "set lock_timeout = '500ms'";

/// What a connection of [`Kind::Forgetful`] sets besides.
const FORGETFUL: &str = "set synchronous_commit = off";

/// What a connection of [`Kind::Reading`] sets besides: a question whose asker has left does not occupy the server until
/// its timeout. Never for commits: one that waits for its standby would become visible without it. Not every system that
/// the server runs on can look whether a socket is closed.
const READING: &str = "do $$ begin set client_connection_check_interval = '250ms'; \
     exception when invalid_parameter_value then null; end $$";

const CHECK: &str = "select current_setting('server_version_num')::int as version, \
     pg_is_in_recovery() as standby, current_setting('fsync') as fsync, \
     current_setting('synchronous_commit') as synchronous_commit, \
     current_setting('default_transaction_isolation') as isolation";

const EPOCH: &str = "select m.epoch::text as meta, s.system_identifier::text as system, \
     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) as timeline \
     from meta m, pg_control_system() s";

/// An open connection that may serve while its generation is the current one.
pub(super) struct ServingConnection {
    pub(super) conn: PgConnection,
    pub(super) epoch: Epoch,
    pub(super) generation: u64,
}

/// Everything needed to open connections to one database.
pub(super) struct Dialer {
    pub(super) config: PgConfig,
    servers: Servers,
    pub(super) epochs: Epochs,
}

impl Dialer {
    pub(super) fn new(config: PgConfig) -> Result<Self, StoreError> {
        let servers = Servers::new(&config.access())?;
        Ok(Self { config, servers, epochs: Epochs::default() })
    }

    /// Whom it dials.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Opens a checked connection and learns its epoch. The caller sets the deadline.
    pub(super) async fn dial(&self, kind: Kind) -> Result<ServingConnection, StoreError> {
        let mut conn = self.servers.open().await?;
        // After the checks of `open`: those are about the server, this is our choice.
        match kind {
            Kind::Durable => simple(&mut conn, DURABLE).await?,
            Kind::Reading => simple(&mut conn, READING).await?,
            Kind::Forgetful => simple(&mut conn, FORGETFUL).await?,
        }
        loop {
            // Before the reading: if the generation has grown meanwhile, this reading may be the
            // older one.
            let before = self.epochs.generation();
            let epoch = read_epoch(&mut conn).await?;
            match self.epochs.observe(before, epoch) {
                EpochReading::Generation(generation) => {
                    return Ok(ServingConnection { conn, epoch, generation });
                }
                EpochReading::ReadAgain => {}
            }
        }
    }
}

/// Opens a durable connection to this server, if it can be trusted.
pub(super) async fn open_one(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut conn = PgConnection::connect_with(options).await.map_err(|e| dial_error(&e))?;
    simple(&mut conn, SETTINGS).await?;
    // Asked once in the life of a connection: a prepared statement would stay on the server.
    let row = sqlx::query(CHECK).persistent(false).fetch_one(&mut conn).await.map_err(|e| dial_error(&e))?;
    check(&row)?;
    Ok(conn)
}

/// Opens one connection as a service would, once; what the server says of itself.
///
/// # Errors
/// Why it cannot be used.
pub async fn probe(access: PgAccess) -> Result<String, StoreError> {
    let mut conn = Servers::new(&access)?.open().await?;
    let said =
        "select 'PostgreSQL ' || current_setting('server_version') || ', database ' || current_database()";
    let said: String =
        sqlx::query_scalar(said).persistent(false).fetch_one(&mut conn).await.map_err(|e| dial_error(&e))?;
    conn.close().await.map_err(|e| dial_error(&e))?;
    Ok(said)
}

pub(super) async fn read_epoch(conn: &mut PgConnection) -> Result<Epoch, StoreError> {
    let row = sqlx::query(EPOCH).persistent(false).fetch_one(conn).await.map_err(|e| dial_error(&e))?;
    let text = |column| row.try_get::<&str, _>(column).map_err(|e| dial_error(&e));
    Ok(epoch_of(text("meta")?, text("system")?, text("timeline")?))
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
