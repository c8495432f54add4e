//! Makes connections: settings, checks that the server can be trusted, epoch. Never hands out a connection
//! that failed one of them.

use sluice_proto::ids::Epoch;
use sqlx::{Connection, PgConnection, Row};

use super::access::PgAccess;
use super::config::PgConfig;
use super::epochs::{EpochReading, Epochs, epoch_of};
use super::failure::{OWN_SESSION, dial_error};
use super::servers::Servers;
use super::session::simple;
use crate::StoreError;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Waits until the server has synced what it commits.
    Durable,
    /// Changes nothing: the server ends its statement soon after the connection is dropped.
    Reading,
    /// Takes away what was used: outbox rows, old messages. That a crash may forget it says each statement.
    Upkeep,
}

/// What a connection of [`Kind::Durable`] sets besides: a room that somebody else keeps locked holds the other rooms of its
/// group up for this long, and the lane that shares the connection. Far above what commits of two logics wait for each other.
const DURABLE: &str = "set lock_timeout = '500ms'";

/// What a connection of [`Kind::Reading`] sets besides: a question whose asker has left does not occupy the server until
/// its timeout. Never for commits: one that waits for its standby would become visible without it. Not every system that
/// the server runs on can look whether a socket is closed.
const READING: &str = "do $$ begin set client_connection_check_interval = '250ms'; \
     exception when invalid_parameter_value then null; end $$";

/// By this a statement knows the session its connection was checked in, and that nobody else was given it.
const MARK: &str = "select set_config('sluice.session', gen_random_uuid()::text, false)";

/// By way of JSON, as the two of a copy may not be there yet: a new epoch can be had before a migration.
const EPOCH: &str = "select m.epoch::text as meta, s.system_identifier::text as system, \
     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) as timeline, \
     to_jsonb(m) ->> 'copied_epoch' as copied_epoch, to_jsonb(m) ->> 'copied_into' as copied_into \
     from meta m, pg_control_system() s";

/// An open connection that may serve while its generation is the current one.
pub(super) struct ServingConnection {
    pub(super) conn: PgConnection,
    pub(super) epoch: Epoch,
    pub(super) generation: u64,
    /// The last parameter of every statement.
    pub(super) session: String,
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
            Kind::Upkeep => {}
        }
        let session = mark(&mut conn).await?;
        loop {
            // Before the reading: if the generation has grown meanwhile, this reading may be the
            // older one.
            let before = self.epochs.generation();
            let epoch = read_epoch(&mut conn).await?;
            match self.epochs.observe(before, epoch) {
                EpochReading::Generation(generation) => {
                    return Ok(ServingConnection { conn, epoch, generation, session });
                }
                EpochReading::ReadAgain => {}
            }
        }
    }
}

/// Opens two connections as a service would, once; what the server says of itself.
///
/// # Errors
/// Why it cannot be used.
pub async fn probe(access: PgAccess) -> Result<String, StoreError> {
    let servers = Servers::new(&access)?;
    let (mut conn, mut other) = (servers.open().await?, servers.open().await?);
    let session = mark(&mut conn).await?;
    mark(&mut other).await?;
    if text(&mut conn, "select coalesce(current_setting('sluice.session', true), '')").await? != session {
        return Err(StoreError::Misconfigured(format!("two connections met one session; {OWN_SESSION}")));
    }
    let said = text(
        &mut conn,
        "select 'PostgreSQL ' || current_setting('server_version') || ', database ' || current_database()",
    )
    .await?;
    for conn in [conn, other] {
        conn.close().await.map_err(|e| dial_error(&e))?;
    }
    Ok(said)
}

async fn mark(conn: &mut PgConnection) -> Result<String, StoreError> {
    text(conn, MARK).await
}

/// Asked once in the life of a connection: a prepared statement would stay on the server.
async fn text(conn: &mut PgConnection, sql: &'static str) -> Result<String, StoreError> {
    sqlx::query_scalar(sql).persistent(false).fetch_one(conn).await.map_err(|e| dial_error(&e))
}

pub(super) async fn read_epoch(conn: &mut PgConnection) -> Result<Epoch, StoreError> {
    let row = sqlx::query(EPOCH).persistent(false).fetch_one(conn).await.map_err(|e| dial_error(&e))?;
    let text = |column| row.try_get::<&str, _>(column).map_err(|e| dial_error(&e));
    let copied = |column| row.try_get::<Option<&str>, _>(column).map_err(|e| dial_error(&e));
    let copied = copied("copied_epoch")?.zip(copied("copied_into")?);
    Ok(epoch_of(text("meta")?, text("system")?, text("timeline")?, copied))
}
