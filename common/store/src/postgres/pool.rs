//! A pool: one or a few like connections and the queue in front of them.
//!
//! A connection is taken out of its pool to serve one statement and put back only after a good answer. An error,
//! a deadline or a cancelled call drops it, and the next call opens another. So no connection is
//! ever in an unknown state, and no lock is held while anybody waits.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use sluice_proto::ids::Epoch;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Either, Executor, PgConnection, Postgres};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{Dialer, Kind, ServingConnection};
use super::failure::Failure;
use crate::StoreError;

/// Longest wait for the server when a connection is closed politely.
const GOODBYE: Duration = Duration::from_millis(500);

pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// What a statement brought, and which history it speaks of.
pub(super) struct Answer {
    pub(super) epoch: Epoch,
    pub(super) rows: Vec<PgRow>,
}

/// Connections that are lent, one call at a time.
pub(super) struct Pool {
    name: &'static str,
    kind: Kind,
    size: u32,
    turns: Semaphore,
    idle: Mutex<Vec<ServingConnection>>,
}

impl Pool {
    pub(super) fn new(name: &'static str, kind: Kind, size: usize) -> Self {
        let size = size.clamp(1, 1000);
        Self {
            name,
            kind,
            size: u32::try_from(size).unwrap_or(1),
            turns: Semaphore::new(size),
            idle: Mutex::new(Vec::with_capacity(size)),
        }
    }

    /// Runs one statement, its own transaction; its last parameter is the session it has to be in.
    pub(super) async fn ask(&self, dialer: &Dialer, statement: Statement<'_>) -> Result<Answer, StoreError> {
        self.ask_within(dialer.config.call_timeout, dialer, statement).await
    }

    /// [`Pool::ask`] with a deadline of its own.
    pub(super) async fn ask_within(
        &self,
        allowed: Duration,
        dialer: &Dialer,
        statement: Statement<'_>,
    ) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + allowed;
        // A fair semaphore in front of the connections: who waits is served in order, and late
        // means not sent.
        let _turn = before(deadline, "a turn on a connection", async {
            self.turns.acquire().await.map_err(|_closed| StoreError::Closed)
        })
        .await?;
        // Taken out for the call: if its future is dropped, the connection goes with it, and the
        // transaction.
        let mut live = match self.idle_of(dialer.epochs.generation()) {
            Some(live) => live,
            None => {
                // A server that does not answer must leave time for another try within the call.
                let connected = deadline.min(Instant::now() + dialer.config.connect_timeout);
                before(connected, "a connection", dialer.dial(self.kind)).await?
            }
        };
        let statement = statement.bind(live.session.clone());
        match timeout_at(deadline, rows_of(&mut live.conn, statement)).await {
            Ok(Ok(rows)) => {
                let epoch = live.epoch;
                // Only here: after an error its state is unknown.
                self.idle().push(live);
                Ok(Answer { epoch, rows })
            }
            Ok(Err(failure)) => {
                let error = StoreError::from(failure);
                tracing::debug!(pool = self.name, %error, "a store connection is dropped");
                Err(error)
            }
            Err(_) => Err(StoreError::Unknown(format!("no answer within {} ms", allowed.as_millis()))),
        }
    }

    /// [`Pool::ask`] for statements that change nothing: once more if the connection turns out to be dead.
    pub(super) async fn ask_again(
        &self,
        dialer: &Dialer,
        statement: impl Fn() -> Statement<'static> + Send + Sync,
    ) -> Result<Answer, StoreError> {
        let started = Instant::now();
        match self.ask(dialer, statement()).await {
            // Only a quick failure is a dead connection; a slow one would use up the caller's
            // patience twice.
            Err(StoreError::Unknown(_)) if started.elapsed() < dialer.config.call_timeout / 2 => {
                // A restart of the server broke all of them, so none is worth a third try.
                self.idle().clear();
                self.ask(dialer, statement()).await
            }
            other => other,
        }
    }

    /// Refuses new calls, waits for those in flight until `deadline`, closes what is idle.
    pub(super) async fn close(&self, deadline: Instant) {
        // Turns are fair: whoever asks after this waits behind it and is then refused.
        let all = timeout_at(deadline, self.turns.acquire_many(self.size)).await;
        self.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for live in idle {
            // An unheard goodbye ends as a dropped connection, which the server notices too.
            drop(timeout(GOODBYE, live.conn.close()).await);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<ServingConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection of this generation; older ones are dropped on the way.
    fn idle_of(&self, generation: u64) -> Option<ServingConnection> {
        let mut idle = self.idle();
        // A connection that was opened before a restore may still answer from the old server.
        idle.retain(|live| live.generation == generation);
        idle.pop()
    }
}

/// Waits for something that comes before sending: late means not sent.
async fn before<T>(
    deadline: Instant,
    what: &str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout_at(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unreachable(format!("waited too long for {what}"))),
    }
}

async fn rows_of(conn: &mut PgConnection, statement: Statement<'_>) -> Result<Vec<PgRow>, Failure> {
    let mut rows = Vec::new();
    let mut completed = false;
    let mut stream = conn.fetch_many(statement);
    loop {
        match stream.try_next().await {
            Ok(Some(Either::Right(row))) => rows.push(row),
            // From here on a failure leaves open whether it was stored.
            Ok(Some(Either::Left(_complete))) => completed = true,
            Ok(None) => return Ok(rows),
            Err(error) => return Err(Failure { error, completed }),
        }
    }
}
