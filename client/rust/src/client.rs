//! The handle that programs hold, and the stream of events beside it.

use std::sync::Arc;
use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sluice_proto::ids::{Key, RoomId};
use sluice_proto::limits::{DATA_BYTES_MAX, DELAY_MS_MAX};
use sluice_proto::wire::codec::{HistoryRange, PresentPage, PresentUser};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::defaults::COMMANDS_MAX;
use crate::driver::{Driver, DriverCommand};
use crate::error::Error;
use crate::event::{Due, Event, HistoryPage, Scheduled, Stored, Subscribed};
use crate::options::{Options, Position};
use crate::state::{Ask, PendingRequest, Publish};

/// A publish on its way. It is sent, and sent again, whether this is awaited or not.
#[derive(Debug)]
pub struct Receipt<T = Stored>(oneshot::Receiver<Result<T, Error>>);

impl<T> Receipt<T> {
    /// The final outcome.
    ///
    /// # Errors
    /// [`Error::Answer`] when the server refused it for good, [`Error::Closed`] or [`Error::Refused`] when the client
    /// ended before there was an answer: it may or may not be stored.
    pub async fn outcome(self) -> Result<T, Error> {
        self.0.await.unwrap_or(Err(Error::Closed))
    }
}

/// A client. Clones share one connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<DriverCommand>,
    outbox: Arc<Semaphore>,
    /// The connection's task: aborted when the last handle is dropped.
    _task: Arc<JoinSet<()>>,
}

/// What happens, in order. Read it: when it is full, the socket is not read.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the client has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// A key that nobody else has: 22 letters and digits, 130 bits.
#[must_use]
pub fn random_key() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 22)
}

/// Longest delay of a publish.
const DELAY_MAX: Duration = Duration::from_millis(DELAY_MS_MAX);

/// The data as JSON, if the server will take it. Here rather than by the server: a name that breaks a rule would be sent
/// again and again.
fn checked<T: Serialize + ?Sized>(room: &str, key: &str, data: &T) -> Result<Box<RawValue>, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::Invalid(error.to_string());
    RoomId::parse_from_client(room).map_err(|error| invalid(&error))?;
    Key::parse_from_client(key).map_err(|error| invalid(&error))?;
    let data = to_raw_value(data).map_err(|error| invalid(&error))?;
    let bytes = data.get().len();
    if bytes > DATA_BYTES_MAX {
        return Err(Error::Invalid(format!("data has {bytes} bytes, at most {DATA_BYTES_MAX} are allowed")));
    }
    Ok(data)
}

impl Client {
    /// Connects and waits for the server's `welcome`. From then on reconnects happen by themselves.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Refused`] or [`Error::TokenNeeded`] when this first connection fails; each URL is tried once.
    pub async fn connect(options: Options) -> Result<(Self, Events), Error> {
        // Bounded: a connection that is stuck makes callers wait, not memory grow.
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (sent, events) = mpsc::channel(options.events_max);
        // Counts publishes without an answer, wherever they are: in the channel, in the outbox, on
        // the wire.
        let outbox = Arc::new(Semaphore::new(options.outbox_max));
        let driver = Driver::connect(options, received, sent).await?;
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        Ok((Self { commands, outbox, _task: Arc::new(task) }, Events(events)))
    }

    /// Publishes under a random key and waits until the message is stored.
    ///
    /// # Errors
    /// As [`Receipt::outcome`]; [`Error::Invalid`] when the room breaks a rule or `data` cannot be written as JSON.
    pub async fn publish<T: Serialize + ?Sized>(&self, room: &str, data: &T) -> Result<Stored, Error> {
        self.submit(room, &random_key(), data).await?.outcome().await
    }

    /// Publishes under this key and waits until the message is stored. The same key stores the same message once.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_as<T: Serialize + ?Sized>(
        &self,
        room: &str,
        key: &str,
        data: &T,
    ) -> Result<Stored, Error> {
        self.submit(room, key, data).await?.outcome().await
    }

    /// Puts a publish into the outbox, waiting for space: the order of these calls is the order of sending, across
    /// reconnects. The receipt gives the outcome.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Closed`].
    pub async fn submit<T: Serialize + ?Sized>(
        &self,
        room: &str,
        key: &str,
        data: &T,
    ) -> Result<Receipt, Error> {
        let data = checked(room, key, data)?;
        self.put(room, key, |reply| Ask::Publish(data, reply)).await
    }

    /// Publishes under this key when it is due, and waits until that is stored: then it will happen, whether this client
    /// is there or not. The same key is published once.
    ///
    /// # Errors
    /// As [`Client::publish`]; [`Error::Invalid`] also when it is too far ahead.
    pub async fn schedule<T: Serialize + ?Sized>(
        &self,
        room: &str,
        key: &str,
        data: &T,
        due: Due,
    ) -> Result<Scheduled, Error> {
        self.submit_for(room, key, data, due).await?.outcome().await
    }

    /// [`Client::schedule`] as [`Client::submit`] does it: the receipt gives the outcome.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Closed`].
    pub async fn submit_for<T: Serialize + ?Sized>(
        &self,
        room: &str,
        key: &str,
        data: &T,
        due: Due,
    ) -> Result<Receipt<Scheduled>, Error> {
        let data = checked(room, key, data)?;
        if matches!(due, Due::In(delay) if delay > DELAY_MAX) {
            return Err(Error::Invalid(format!("the delay is above {} days", DELAY_MAX.as_secs() / 86_400)));
        }
        self.put(room, key, |reply| Ask::Schedule(data, due, reply)).await
    }

    /// Takes back what this user scheduled in the room with this key. `true`: it will never be published. `false`: nothing
    /// waits, as it was published or never scheduled.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn cancel(&self, room: &str, key: &str) -> Result<bool, Error> {
        RoomId::parse(room).map_err(|error| Error::Invalid(error.to_string()))?;
        Key::parse(key).map_err(|error| Error::Invalid(error.to_string()))?;
        self.put(room, key, Ask::Cancel).await?.outcome().await
    }

    async fn put<T>(
        &self,
        room: &str,
        key: &str,
        ask: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Ask,
    ) -> Result<Receipt<T>, Error> {
        // Waits here, before the order is fixed: the semaphore is fair, so callers keep theirs.
        let place = Arc::clone(&self.outbox).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (reply, receipt) = oneshot::channel();
        let publish = Publish { room: room.to_owned(), key: key.to_owned(), ask: ask(reply), _place: place };
        self.send(DriverCommand::Publish(publish)).await?;
        Ok(Receipt(receipt))
    }

    /// Subscribes. Messages come as events, after this answer; reconnects resume by themselves.
    ///
    /// # Errors
    /// [`Error::Answer`] when refused.
    pub async fn subscribe(&self, room: &str, from: Position) -> Result<Subscribed, Error> {
        self.open(room, from, false).await
    }

    /// As [`Client::subscribe`], and also told who comes into the room and leaves it: [`Event::UserJoined`],
    /// [`Event::UserLeft`] and [`Event::Stale`]. Ask [`Client::presence`] after this answer.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn watch(&self, room: &str, from: Position) -> Result<Subscribed, Error> {
        self.open(room, from, true).await
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`Error::Answer`] when there was none.
    pub async fn unsubscribe(&self, room: &str) -> Result<(), Error> {
        self.request(|reply| PendingRequest::Unsubscribe(room.to_owned(), reply)).await
    }

    /// A page of messages, oldest first, at most `limit` (256).
    ///
    /// # Errors
    /// [`Error::Answer`], or [`Error::Disconnected`]: ask again.
    pub async fn history(
        &self,
        room: &str,
        range: HistoryRange,
        limit: Option<u32>,
    ) -> Result<HistoryPage, Error> {
        self.request(|reply| PendingRequest::History { room: room.to_owned(), range, limit, reply }).await
    }

    /// Everybody in a room, sorted by name: page after page.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn presence(&self, room: &str) -> Result<Vec<PresentUser>, Error> {
        let mut all: Vec<PresentUser> = Vec::new();
        loop {
            let after = all.last().map(|user| user.user.as_str());
            let page = self.presence_page(room, after, None).await?;
            let more = page.more && !page.users.is_empty();
            all.extend(page.users);
            if !more {
                return Ok(all);
            }
        }
    }

    /// A page of the users in a room whose names sort after `after`, at most `limit` (256), and how many there are.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn presence_page(
        &self,
        room: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<PresentPage, Error> {
        let (room, after) = (room.to_owned(), after.map(str::to_owned));
        self.request(|reply| PendingRequest::Presence { room, after, limit, reply }).await
    }

    /// Goes on with this token, of the same user, on the connection that stands and on those that follow. Its end,
    /// milliseconds since 1970; `None`: it has none. Rooms that it does not grant end with [`Event::Unsubscribed`].
    ///
    /// # Errors
    /// As [`Client::history`]; when the server refuses it the one before stays in force.
    pub async fn refresh(&self, token: &str) -> Result<Option<i64>, Error> {
        self.request(|reply| PendingRequest::Refresh(token.to_owned(), reply)).await
    }

    /// Returns when the server has answered.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.request(PendingRequest::Ping).await
    }

    /// Says goodbye and ends; publishes without an answer are given up.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.send(DriverCommand::Close(reply)).await.is_ok() {
            done.await.ok(); // the task has ended, which is what was asked for
        }
    }

    async fn open(&self, room: &str, from: Position, watches: bool) -> Result<Subscribed, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(DriverCommand::Subscribe(room.to_owned(), from, watches, reply)).await?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> PendingRequest,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(DriverCommand::Request(make(reply))).await?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    async fn send(&self, command: DriverCommand) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Closed)
    }
}
