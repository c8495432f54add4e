//! What a copy of a store in one file writes into a database: everything in one transaction, on a connection that is
//! checked like one of a logic. Dropped before its commit it leaves an empty, migrated database. Every answer is waited
//! for so long and no longer: the server's own bounds are no help against a network that is dead.

use std::time::Duration;

use sluice_proto::ids::Epoch;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use tokio::time::timeout;

use super::access::PgAccess;
use super::dial::read_epoch;
use super::failure::dial_error;
use super::migrations::{close, migrate_on};
use super::others::end_others;
use super::servers::Servers;
use super::session::simple;
use crate::StoreError;
use crate::copy::{CopiedDelayed, CopiedMessage, CopiedNote, CopiedRevocation, CopiedRoom, Counts};

/// Nobody publishes while it lasts, and no statement of it is short. A logic that runs waits for its lock until its own
/// timeouts, and answers that later is better.
const BEGIN: &str = "begin; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; \
     set local synchronous_commit = on; \
     lock table meta, rooms, messages, outbox, scheduled, revocations, revocations_head in exclusive mode";

const COUNTS: &str = "select (select count(*) from rooms) as rooms, \
     (select coalesce(sum(head), 0)::bigint from rooms) as positions, \
     (select count(*) from messages) as messages, \
     (select coalesce(sum(length(data)), 0)::bigint from messages) as bytes, \
     (select count(*) from scheduled) as scheduled, \
     (select count(*) from outbox) as owed, \
     (select count(*) from revocations) as revocations, \
     (select place from revocations_head) as revocation_place";

const CLOCK: &str = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint";

const ROOMS: &str = "insert into rooms (room, head) select * from unnest($1::text[], $2::bigint[])";

const MESSAGES: &str = "insert into messages (room, seq, sender, key, hash, at, data) \
     select t.room, t.seq, t.sender, t.key, t.hash, timestamptz 'epoch' + t.at_ms * interval '1 millisecond', t.data \
     from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bytea[]) \
       as t(room, seq, sender, key, hash, at_ms, data)";

/// One that was cancelled is never due here.
const DELAYED: &str = "insert into scheduled (due, part, room, sender, key, hash, data, cancelled, api_key) \
     select case when t.cancelled_ms is null then timestamptz 'epoch' + t.due_ms * interval '1 millisecond' \
                 else 'infinity' end, \
            t.part::smallint, t.room, t.sender, t.key, t.hash, t.data, \
            timestamptz 'epoch' + t.cancelled_ms * interval '1 millisecond', t.api_key \
     from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::bigint[], \
                 $9::text[]) \
       as t(due_ms, part, room, sender, key, hash, data, cancelled_ms, api_key)";

const NOTE: &str = "insert into outbox (at, rooms, firsts, lasts) \
     values (timestamptz 'epoch' + $1 * interval '1 millisecond', $2, $3, $4)";

const REVOCATIONS: &str = "insert into revocations (name, issued_until, place) \
     select * from unnest($1::text[], $2::bigint[], $3::bigint[])";

const PLACE: &str = "update revocations_head set place = $1";

/// The parts as `epoch_of` joins them.
const EPOCH: &str = "update meta m set copied_epoch = $1, copied_into = m.epoch::text || '/' || \
       s.system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
     from pg_control_system() s";

/// What counting all there is may take for each message, beside a step: a server that lives does hundreds in that time.
const COUNT_EACH: Duration = Duration::from_millis(1);

/// A database that is copied into.
pub(crate) struct Target {
    conn: PgConnection,
    /// For each answer.
    within: Duration,
}

impl Target {
    /// Migrates the database and takes it for itself, if it is empty.
    pub(crate) async fn begin(access: &PgAccess, within: Duration) -> Result<Self, StoreError> {
        let servers = Servers::new(access)?;
        migrate_on(&servers).await?;
        let begun = async {
            let mut conn = servers.open().await?;
            simple(&mut conn, BEGIN).await?;
            Ok(conn)
        };
        let mut target = Self { conn: answered(within, begun).await?, within };
        let found = target.counts(0).await?;
        if found != Counts::default() {
            let Counts { rooms, messages, scheduled, revocations, .. } = found;
            return Err(StoreError::Misconfigured(format!(
                "the database is not empty: it has {rooms} rooms, {messages} messages, {scheduled} delayed ones and \
                 {revocations} revocations; copy into one that nobody has published to (createdb makes one)"
            )));
        }
        Ok(target)
    }

    /// The server's clock gives the times of what comes next, which must not run backwards in a room.
    pub(crate) async fn check_clock(&mut self, newest_ms: i64) -> Result<(), StoreError> {
        let asked =
            async { sqlx::query_scalar(CLOCK).fetch_one(&mut self.conn).await.map_err(|e| dial_error(&e)) };
        let now: i64 = answered(self.within, asked).await?;
        if newest_ms <= now {
            return Ok(());
        }
        Err(StoreError::Misconfigured(format!(
            "the newest message was stored {} ms after what PostgreSQL's clock says now: set the clocks of both \
             machines (NTP), and copy again",
            newest_ms - now
        )))
    }

    pub(crate) async fn rooms(&mut self, rooms: &[CopiedRoom]) -> Result<(), StoreError> {
        let query = sqlx::query(ROOMS)
            .bind(rooms.iter().map(|r| r.room.as_str()).collect::<Vec<_>>())
            .bind(rooms.iter().map(|r| r.head).collect::<Vec<_>>());
        self.run(query).await
    }

    pub(crate) async fn messages(&mut self, messages: &[CopiedMessage]) -> Result<(), StoreError> {
        let query = sqlx::query(MESSAGES)
            .bind(messages.iter().map(|m| m.room.as_str()).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| m.seq).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| m.sender.as_str()).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| m.key.as_str()).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| &m.hash[..]).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| m.at_ms).collect::<Vec<_>>())
            .bind(messages.iter().map(|m| &m.data[..]).collect::<Vec<_>>());
        self.run(query).await
    }

    pub(crate) async fn delayed(&mut self, delayed: &[CopiedDelayed]) -> Result<(), StoreError> {
        let query = sqlx::query(DELAYED)
            .bind(delayed.iter().map(|d| d.due_ms).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.part).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.room.as_str()).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.sender.as_str()).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.key.as_str()).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| &d.hash[..]).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| &d.data[..]).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.cancelled_ms).collect::<Vec<_>>())
            .bind(delayed.iter().map(|d| d.api_key.as_deref()).collect::<Vec<_>>());
        self.run(query).await
    }

    pub(crate) async fn notes(&mut self, notes: &[CopiedNote]) -> Result<(), StoreError> {
        // One by one: each has lists of its own, and there are few.
        for note in notes {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in an f64")]
            let at = note.at_ms as f64;
            let query = sqlx::query(NOTE).bind(at).bind(&note.rooms).bind(&note.firsts).bind(&note.lasts);
            self.run(query).await?;
        }
        Ok(())
    }

    pub(crate) async fn revocations(&mut self, revocations: &[CopiedRevocation]) -> Result<(), StoreError> {
        let query = sqlx::query(REVOCATIONS)
            .bind(revocations.iter().map(|r| r.name.as_str()).collect::<Vec<_>>())
            .bind(revocations.iter().map(|r| r.issued_until).collect::<Vec<_>>())
            .bind(revocations.iter().map(|r| r.place).collect::<Vec<_>>());
        self.run(query).await
    }

    pub(crate) async fn revocation_place(&mut self, place: i64) -> Result<(), StoreError> {
        self.run(sqlx::query(PLACE).bind(place)).await
    }

    /// What the database would hold, about so many messages.
    pub(crate) async fn counts(&mut self, messages: i64) -> Result<Counts, StoreError> {
        let each = u32::try_from(messages).unwrap_or(u32::MAX);
        let counted =
            async { sqlx::query_as(COUNTS).fetch_one(&mut self.conn).await.map_err(|e| dial_error(&e)) };
        answered(self.within + COUNT_EACH * each, counted).await
    }

    /// Takes the epoch over and makes it all good; the epoch as the next connection will read it, and how many sessions of
    /// others still run.
    pub(crate) async fn commit(mut self, epoch: Epoch) -> Result<(Epoch, i64), StoreError> {
        self.run(sqlx::query(EPOCH).bind(epoch.to_string())).await?;
        if answered(self.within, read_epoch(&mut self.conn)).await? != epoch {
            return Err(StoreError::Unreachable(
                "the database was promoted or restored during the copy: nothing was copied, try again"
                    .to_owned(),
            ));
        }
        let committed = timeout(self.within, simple(&mut self.conn, "commit")).await;
        // Whatever it answers: the server may have committed before its answer was lost.
        committed.unwrap_or_else(|_| Err(silent(self.within))).map_err(|error| {
            StoreError::Unknown(format!(
                "the copy may be there ({error}): copy again; a database that is refused then, as it is not empty, has all \
                 of it"
            ))
        })?;
        let ended = timeout(self.within, end_others(&mut self.conn)).await;
        let left = ended.unwrap_or_else(|_| Err(silent(self.within))).map_err(|error| {
            StoreError::Unknown(format!(
                "the copy is there; that sessions of others have ended is not known ({error}): restart the logics that run"
            ))
        })?;
        close(self.conn).await;
        Ok((epoch, left))
    }

    async fn run(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<(), StoreError> {
        let within = self.within;
        answered(within, async { query.execute(&mut self.conn).await.map(drop).map_err(|e| dial_error(&e)) })
            .await
    }
}

/// An answer of the database before the commit, in time.
async fn answered<T>(
    within: Duration,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(within, asked).await;
    answer.unwrap_or_else(|_| {
        Err(StoreError::Unreachable(format!("{}: nothing was copied, copy again", silent(within))))
    })
}

/// Not the server's fault: whatever it does by itself ends sooner, or with an error.
fn silent(within: Duration) -> StoreError {
    StoreError::Unreachable(format!(
        "no answer within {} s, look for what drops packets on the way to the database (a firewall, a route), for its disk, \
         and for a standby that does not acknowledge",
        within.as_secs()
    ))
}
