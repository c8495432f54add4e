//! What a client is told at its start.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::defaults;
use crate::tls::Trust;
use crate::tokens::{TokenError, TokenSource, Tokens};

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) urls: Vec<String>,
    pub(crate) tokens: Tokens,
    pub(crate) outbox_max: usize,
    pub(crate) events_max: usize,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) connect_timeout: Duration,
    pub(crate) follow: Option<watch::Receiver<Vec<String>>>,
    pub(crate) detailed: bool,
    pub(crate) trust: Trust,
}

impl Options {
    /// Connects to this gateway, `ws://host:port/ws`, or `wss://` with TLS.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            tokens: Tokens::default(),
            outbox_max: defaults::OUTBOX_MAX,
            events_max: defaults::EVENTS_MAX,
            backoff: defaults::BACKOFF,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            follow: None,
            detailed: false,
            trust: Trust::default(),
        }
    }

    /// One more gateway; each attempt goes to the next.
    #[must_use]
    pub fn or(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Takes its gateways from here from the next change on: for programs that learn where gateways are while they run.
    #[must_use]
    pub fn follow(mut self, urls: watch::Receiver<Vec<String>>) -> Self {
        self.follow = Some(urls);
        self
    }

    /// Tells of every step, also those whose outcome a call returns: for programs that write down what happens in
    /// its order.
    #[must_use]
    pub fn detailed(mut self) -> Self {
        self.detailed = true;
        self
    }

    /// Presents this token; without one the server may give an anonymous user, who is kept across reconnects.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens = Tokens::default();
        self.tokens.keep(token.into());
        self
    }

    /// Asks this function for a token: for the first connection, when the server says that the one in use ends soon, and
    /// when it was refused. One call at a time, and after longer pauses while it fails; what it gave last is presented at
    /// reconnects.
    ///
    /// ```
    /// # use sluice_client::{Options, TokenError};
    /// # async fn log_in() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let options = Options::new("wss://chat.example/ws").token_from(|| async {
    ///     log_in().await.map_err(|error| TokenError::Later(error.to_string()))
    /// });
    /// ```
    #[must_use]
    pub fn token_from<F>(mut self, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.tokens = Tokens::from(TokenSource::new(fetch));
        self
    }

    /// Trusts these certificate authorities at `wss://`; the public ones alone unless told.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Most publishes without an answer, 4096 unless told; further ones wait.
    #[must_use]
    pub fn outbox_max(mut self, publishes: usize) -> Self {
        self.outbox_max = publishes.max(1);
        self
    }

    /// Most events kept for the reader, 1024 unless told; above it the socket is not read.
    #[must_use]
    pub fn events_max(mut self, events: usize) -> Self {
        self.events_max = events.max(1);
        self
    }

    /// Windows of the random pause before a reconnect: the first, doubled each time all gateways have failed, up to the
    /// longest.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first, longest.max(first));
        self
    }

    /// Longest time for handshake and `welcome`, 10 s unless told.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Position {
    /// With the next message.
    #[default]
    Now,
    /// After this seq; 0 = with the first message.
    After(u64),
    /// After this seq of this epoch (from an earlier [`crate::Subscribed`]); a store with another history says so.
    In {
        /// Last seq seen.
        after: u64,
        /// The epoch it belongs to.
        epoch: String,
    },
}
