//! The connection to Redis: made by the call that needs it, dropped on the first doubt.
//!
//! No call waits longer than the timeout, and while Redis is known to be away only one call at a time finds
//! out whether it is back: all others fail at once. Nothing runs in the background.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, timeout};

use crate::{PresenceError, Result};

/// Pause after the first failure; doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct RedisLink {
    client: Client,
    patience: Duration,
    state: Mutex<LinkState>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<MultiplexedConnection>,
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
    pub(super) fn new(url: &str, patience: Duration) -> Result<Self> {
        let client = Client::open(url).map_err(|error| PresenceError::Refused(error.to_string()))?;
        Ok(Self { client, patience, state: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// Runs commands on the connection.
    pub(super) async fn run<T>(
        &self,
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
        timeout(self.patience, attempt).await.unwrap_or_else(|_| {
            // A late reply would be taken for the answer to the next command.
            self.lost(number);
            Err(PresenceError::Unavailable("no answer in time".into()))
        })
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
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience));
        let number = self.state().number;
        let connection = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // A frozen Redis accepts connections too.
            ::redis::cmd("PING").exec_async(&mut connection).await?;
            Ok(connection)
        };
        let connection = connection.await.map_err(|error| self.failed(number, &error))?;
        let mut state = self.state();
        // Closed while it was being made.
        if state.closed {
            return Err(PresenceError::Closed);
        }
        if state.failing.take().is_some() {
            tracing::debug!("Redis is back.");
        }
        state.number += 1;
        state.connection = Some(connection.clone());
        Ok((connection, state.number))
    }

    /// Judges an error: an answer of the server leaves the connection as it is.
    fn failed(&self, number: u64, error: &RedisError) -> PresenceError {
        let answered = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if answered && !error.is_unrecoverable_error() {
            return match error.code() {
                // The server lives and will serve again; nothing of ours is wrong.
                Some("LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "OOM") => {
                    PresenceError::Unavailable(error.to_string())
                }
                Some(_) | None => PresenceError::Refused(error.to_string()),
            };
        }
        self.lost(number);
        PresenceError::Unavailable(error.to_string())
    }

    /// Drops the connection with this number, unless there is a newer one.
    fn lost(&self, number: u64) {
        let mut state = self.state();
        // A late failure of a connection that was replaced already.
        if state.number != number || state.closed {
            return;
        }
        state.number += 1;
        state.connection = None;
        let pause = state.failing.map_or(PAUSE_MIN, |failing| (failing.pause * 2).min(PAUSE_MAX));
        if state.failing.is_none() {
            tracing::debug!("Redis is away: interest and presence wait for its return.");
        }
        state.failing = Some(Failing { next: Instant::now() + pause, pause });
    }
}

fn away() -> PresenceError {
    PresenceError::Unavailable("Redis is away".into())
}
