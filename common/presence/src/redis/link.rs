//! The connection to Redis: made by the call that needs it, dropped when it broke, or when two calls in a row had no
//! answer: everybody shares it, and one slow script says nothing of it. Also when sentinels name another server.
//!
//! No call waits longer than the timeout, and while Redis is known to be away only one call at a time finds
//! out whether it is back: all others fail at once. Nothing runs in the background here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, timeout};

use super::sentinels::Address;
use super::{access, dial};
use crate::{PresenceError, Redis, Result};

/// Pause after the first failure; doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct RedisLink {
    redis: Redis,
    patience: Duration,
    state: Mutex<LinkState>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<MultiplexedConnection>,
    /// Where it leads, behind Sentinel.
    at: Option<Address>,
    /// Where a sentinel says that the primary is now; for the next attempt alone, or one that is gone would slow all.
    announced: Option<Address>,
    /// The one that had no answer in time: whoever comes next asks it once more.
    slow: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure does not break the next one.
    number: u64,
    /// Since the last success, what failed: not before `next` again.
    failing: Option<Failing>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Failing {
    next: Instant,
    pause: Duration,
}

impl RedisLink {
    pub(super) fn new(redis: Redis, patience: Duration) -> Result<Self> {
        // Made anew for each connection; what cannot be used is said now.
        dial::check(&redis).map_err(|error| PresenceError::Refused(access::describe(&error)))?;
        Ok(Self { redis, patience, state: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// Runs commands on the connection.
    pub(super) async fn run<T>(
        &self,
        commands: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T> {
        self.run_within(self.patience, commands).await
    }

    /// The same with what is left of the time.
    pub(super) async fn run_within<T>(
        &self,
        patience: Duration,
        commands: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T> {
        // Before the attempt: if the time is over while it connects, this is the connection to
        // drop.
        let mut number = self.state().number;
        let attempt = async {
            let (connection, its_number) = self.connection().await?;
            number = its_number;
            commands(connection).await.map_err(|error| self.failed(its_number, &error))
        };
        timeout(patience, attempt).await.unwrap_or_else(|_| {
            let connected = self.state().connection.is_some();
            self.late(number);
            let why = if connected { "no answer in time".to_owned() } else { access::silence(&self.redis) };
            Err(PresenceError::Unavailable(why))
        })
    }

    /// Where it connects to, as configured.
    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Whether the last call had no answer.
    pub(super) fn is_away(&self) -> bool {
        self.state().failing.is_some()
    }

    /// The longest that a call waits.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// A sentinel says that this is the primary now: the next call connects there. The one it was may take writes for
    /// some more seconds, and forgets them then.
    pub(super) fn moved(&self, to: Address) {
        let mut state = self.state();
        // Each sentinel says it, one after the other.
        if state.closed || state.at.as_ref() == Some(&to) {
            return;
        }
        tracing::info!(host = to.0, port = to.1, "Sentinels have made another Redis the primary.");
        state.number += 1;
        (state.connection, state.slow, state.at) = (None, None, None);
        (state.failing, state.announced) = (None, Some(to));
    }

    pub(super) fn close(&self) {
        *self.state() = LinkState { closed: true, ..LinkState::default() };
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, when there is one or it must not be tried now; else whether it is known to be down.
    fn at_hand(&self) -> Result<Result<(MultiplexedConnection, u64), Option<Failing>>> {
        let state = self.state();
        if state.closed {
            return Err(PresenceError::Closed);
        }
        match (&state.connection, state.failing) {
            (Some(connection), _) => Ok(Ok((connection.clone(), state.number))),
            // Fails at once: callers hold publishes and subscriptions meanwhile.
            (None, Some(failing)) if Instant::now() < failing.next => Err(away()),
            (None, failing) => Ok(Err(failing)),
        }
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64)> {
        let failing = match self.at_hand()? {
            Ok(connection) => return Ok(connection),
            Err(failing) => failing,
        };
        // Worth a wait only before the first failure: known to be down, one finds out and the
        // others do not queue up behind it.
        let _connecting = match failing {
            None => self.connecting.lock().await,
            Some(_) => self.connecting.try_lock().map_err(|_| away())?,
        };
        // Somebody else connected while we waited for the turn.
        if let Ok(connection) = self.at_hand()? {
            return Ok(connection);
        }
        let number = self.state().number;
        if let Some(again) = self.asked_again(number).await {
            return again;
        }
        let announced = self.state().announced.take();
        let connected = dial::connect(&self.redis, announced, self.patience).await;
        let (connection, at) = connected.map_err(|error| self.failed(number, &error))?;
        {
            let mut state = self.state();
            // Announced while it connected: that is another one.
            if state.announced.is_some() && state.announced != at {
                return Err(PresenceError::Unavailable("Redis moves to another server".into()));
            }
            (state.at, state.announced) = (at, None);
        }
        self.install(connection)
    }

    /// Asks the slow connection once more, if there is one; everybody else fails at once meanwhile. Its answers come in
    /// order, so this one also says that those to the late calls have come and were thrown away.
    async fn asked_again(&self, number: u64) -> Option<Result<(MultiplexedConnection, u64)>> {
        let mut slow = self.state().slow.clone()?;
        Some(match ::redis::cmd("PING").exec_async(&mut slow).await {
            Ok(()) => self.install(slow),
            Err(error) => Err(self.failed(number, &error)),
        })
    }

    fn install(&self, connection: MultiplexedConnection) -> Result<(MultiplexedConnection, u64)> {
        let mut state = self.state();
        // Closed while it was being made.
        if state.closed {
            return Err(PresenceError::Closed);
        }
        if state.failing.take().is_some() {
            tracing::debug!("Redis is back.");
        }
        state.number += 1;
        state.slow = None;
        state.connection = Some(connection.clone());
        Ok((connection, state.number))
    }

    /// Judges an error: an answer of the server leaves the connection as it is.
    fn failed(&self, number: u64, error: &RedisError) -> PresenceError {
        let answered = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        // After a failover it is another server that takes writes: whoever connects again finds it.
        if answered && !error.is_unrecoverable_error() && !is_no_primary(error) {
            return match error.code() {
                // The server lives and will serve again; nothing of ours is wrong.
                Some("LOADING" | "BUSY" | "OOM") => PresenceError::Unavailable(error.to_string()),
                Some(_) | None => PresenceError::Refused(access::describe(error)),
            };
        }
        self.lost(number);
        PresenceError::Unavailable(access::describe(error))
    }

    /// A call had no answer in time: the first time its connection is only doubted.
    fn late(&self, number: u64) {
        let mut state = self.state();
        if state.number != number || state.closed {
            return;
        }
        let Some(connection) = state.connection.take() else {
            drop(state);
            return self.lost(number);
        };
        state.number += 1;
        state.slow = Some(connection);
        state.failing = Some(Failing { next: Instant::now(), pause: PAUSE_MIN });
    }

    /// Drops the connection with this number, unless there is a newer one.
    fn lost(&self, number: u64) {
        let mut state = self.state();
        // A late failure of a connection that was replaced already.
        if state.number != number || state.closed {
            return;
        }
        state.number += 1;
        (state.connection, state.slow, state.at) = (None, None, None);
        let pause = state.failing.map_or(PAUSE_MIN, |failing| (failing.pause * 2).min(PAUSE_MAX));
        if state.failing.is_none() {
            tracing::debug!("Redis is away: interest and presence wait for its return.");
        }
        state.failing = Some(Failing { next: Instant::now() + pause, pause });
    }
}

/// Whether a replica says this, or a primary that has lost its replicas to another one; in the text, since older
/// servers put it behind a code of their own when a script hits upon it.
fn is_no_primary(error: &RedisError) -> bool {
    let said = error.to_string().to_uppercase();
    ["READONLY", "MASTERDOWN", "NOREPLICAS"].iter().any(|code| said.contains(code))
}

fn away() -> PresenceError {
    PresenceError::Unavailable("Redis is away".into())
}
