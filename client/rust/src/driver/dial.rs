//! Making connections: one attempt at a time, to each gateway in turn, after a random pause. It stops dialling when a
//! connection stands and begins again when it is told to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rand::RngExt;
use sluice_proto::wire::{ErrorCode, Welcome, close};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::defaults::{SILENT_PINGS, TOKENS_REFUSED_MAX};
use crate::error::Error;
use crate::event::Event;
use crate::frame::{self, ServerFrame};
use crate::options::Options;
use crate::raw::{self, ConnectError, Frame, Handshake, Trust};
use crate::tokens::{TokenError, Tokens};
use crate::wire::Wire;

/// A connection on which the server said `welcome`.
#[derive(Debug)]
pub(super) struct Standing {
    pub wire: Wire,
    /// Where it leads to.
    pub url: String,
    pub welcome: Welcome,
    /// How long it may be silent.
    pub patience: Duration,
}

/// Why an attempt failed.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The gateway was there and said when to ask it again.
    retry_after: Option<Duration>,
    /// The token that it refused.
    refused: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, refused: None }
    }
}

type Attempt = Pin<Box<dyn Future<Output = Result<Standing, Failure>> + Send>>;

pub(super) struct GatewayDialer {
    options: Options,
    backoff: Backoff,
    /// Which URL is next.
    next: usize,
    attempt: Option<Attempt>,
    /// Where that goes.
    url: String,
    pause: Duration,
    /// Tokens that were refused in a row, up to the last attempt.
    refusals: u32,
}

impl fmt::Debug for GatewayDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayDialer")
            .field("next", &self.next)
            .field("dialling", &self.attempt.is_some())
            .finish()
    }
}

impl GatewayDialer {
    pub(super) fn new(options: Options, backoff: Backoff) -> Self {
        Self {
            options,
            backoff,
            next: 0,
            attempt: None,
            url: String::new(),
            pause: Duration::ZERO,
            refusals: 0,
        }
    }

    /// Tries each gateway once, without a pause.
    pub(super) async fn first(&mut self) -> Result<Standing, Error> {
        let mut last = Error::Closed;
        // No pause: somebody waits for this first connection, and nobody else comes with it.
        for _ in 0..self.options.urls.len() {
            self.begin_after(Duration::ZERO);
            // The same URL twice, and it refused: whoever waits shall hear that, not wait as long as it said.
            if !self.pause.is_zero() {
                self.attempt = None;
                break;
            }
            match self.dial().await {
                Err(error) => last = error,
                standing => return standing,
            }
        }
        Err(last)
    }

    /// Begins to dial after the usual pause, unless it dials already.
    pub(super) fn begin(&mut self) {
        if self.attempt.is_none() {
            let pause = self.backoff.pause(self.options.urls.len());
            self.begin_after(pause);
        }
    }

    /// Begins to dial when the server said, unless it dials already.
    pub(super) fn begin_as_told(&mut self, reconnect_ms: u64) {
        if self.attempt.is_none() {
            self.backoff.tell(reconnect_ms);
            self.begin();
        }
    }

    pub(super) fn failed(&mut self) {
        self.backoff.failed();
        self.begin();
    }

    /// The token of this client.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.options.tokens
    }

    /// Whether the last attempt failed by its token, and another one may do better.
    pub(super) fn may_do_better(&self) -> bool {
        self.tokens().has_source() && (1..TOKENS_REFUSED_MAX).contains(&self.refusals)
    }

    /// What to tell the reader about the attempt that was begun.
    pub(super) fn announcement(&self) -> Option<Event> {
        self.attempt.as_ref()?;
        Some(Event::Reconnecting { attempt: self.backoff.attempt(), pause: self.pause })
    }

    fn begin_after(&mut self, pause: Duration) {
        if let Some(urls) = &mut self.options.follow
            && urls.has_changed().unwrap_or(false)
        {
            self.options.urls = urls.borrow_and_update().clone();
            self.next = rand::rng().random_range(0..self.options.urls.len().max(1)); // not all to the first
        }
        let now = Instant::now();
        let (place, at) = self.backoff.choose(&self.options.urls, self.next, now + pause);
        let url = self.options.urls.get(place % self.options.urls.len().max(1)).cloned().unwrap_or_default();
        // The next attempt goes elsewhere, whatever becomes of this one.
        self.next = place.wrapping_add(1);
        self.pause = at - now;
        self.url.clone_from(&url);
        let (tokens, limit) = (self.options.tokens.clone(), self.options.connect_timeout);
        let trust = self.options.trust.clone();
        // Kept in a field, not in the `select!`: an arm that loses there would drop it half-way.
        self.attempt = Some(Box::pin(async move {
            sleep_until(at).await;
            let token = match tokens.current().await {
                Ok(token) => token,
                Err(TokenError::Over(why)) => return Err(Error::Refused(why).into()),
                Err(error @ TokenError::Later(_)) => return Err(Error::Token(error).into()),
            };
            let reason = format!("no welcome within {limit:?}");
            let made = timeout(limit, stand(url.clone(), token, trust)).await;
            made.unwrap_or(Err(Error::Connect { url, reason }.into()))
        }));
    }

    /// The outcome of the attempt that is under way; waits for ever when there is none. Cancel-safe.
    pub(super) async fn dial(&mut self) -> Result<Standing, Error> {
        let Some(attempt) = &mut self.attempt else { return std::future::pending().await };
        let result = attempt.await;
        self.attempt = None;
        match &result {
            Ok(standing) => {
                self.backoff.connected();
                self.refusals = 0;
                if let Some(token) = &standing.welcome.token {
                    self.options.tokens.keep(token.clone()); // anonymous users stay who they are
                }
            }
            Err(Failure { refused: Some(token), .. }) => {
                self.refusals += 1;
                self.options.tokens.refused(Some(token));
            }
            Err(Failure { retry_after: Some(after), .. }) => {
                self.refusals = 0;
                self.backoff.refused(&self.url, *after);
            }
            Err(Failure { retry_after: None, .. }) => self.refusals = 0,
        }
        result.map_err(|failure| failure.error)
    }
}

async fn stand(url: String, token: Option<String>, trust: Trust) -> Result<Standing, Failure> {
    let is_anonymous = token.is_none();
    let refused = |why: String| Failure { refused: token.clone(), ..Failure::from(Error::Refused(why)) };
    let handshake = Handshake { token: token.clone(), trust, ..Handshake::new(&url) };
    let socket = match raw::connect(&handshake).await {
        Ok(socket) => socket,
        // A token that is refused will be refused again.
        Err(ConnectError::Status { status: 401, body, .. }) => return Err(refused(body)),
        Err(ConnectError::Status { status: 403, body, .. }) => return Err(Error::Refused(body).into()),
        Err(error) => {
            let retry_after = match &error {
                ConnectError::Status { retry_after_s, .. } => retry_after_s.map(Duration::from_secs),
                ConnectError::Address(_)
                | ConnectError::Io(_)
                | ConnectError::Tls(_)
                | ConnectError::Handshake(_) => None,
            };
            let error = Error::Connect { url, reason: error.to_string() };
            return Err(Failure { retry_after, ..Failure::from(error) });
        }
    };
    let mut wire = Wire::new(socket);
    if is_anonymous {
        // Whom the server does not let in without a token it tells nothing, and closes after 10 s: a question before
        // that is answered at once.
        wire.push(frame::ping());
    }
    let failed = |reason: String| Error::Connect { url: url.clone(), reason };
    // The `bye` of one that lets nobody in now says when to come, as `Retry-After` does.
    let mut retry_after = None;
    loop {
        match wire.step(true).await {
            Some(Frame::Text(text)) => {
                let frame = ServerFrame::parse(&text).map_err(failed)?;
                let told = frame.bye.as_ref().and_then(|bye| bye.reconnect_ms);
                retry_after = told.map(Duration::from_millis).or(retry_after);
                if let Some(welcome) = frame.welcome {
                    // The server pings at this interval, so silence for some of them is not quiet.
                    let patience = Duration::from_secs(welcome.ping_s.max(1)) * SILENT_PINGS;
                    return Ok(Standing { wire, url, welcome, patience });
                }
                match (frame.bye, frame.error) {
                    (Some(bye), _) if bye.code == close::UNAUTHORIZED => return Err(refused(bye.reason)),
                    (Some(bye), _) if !bye.reconnect => return Err(Error::Refused(bye.reason).into()),
                    (_, Some(error)) if is_anonymous && error.code == ErrorCode::Unauthorized => {
                        return Err(Error::TokenNeeded.into());
                    }
                    (_, Some(error)) if error.code == ErrorCode::Unauthorized => {
                        return Err(refused(error.message));
                    }
                    (_, Some(error)) if !error.retry => return Err(Error::Refused(error.message).into()),
                    (Some(_), _) | (None, _) => {}
                }
            }
            Some(Frame::Close { code: close::UNAUTHORIZED, reason }) => return Err(refused(reason)),
            Some(Frame::Close { code, reason }) if (4500..5000).contains(&code) => {
                return Err(Error::Refused(reason).into());
            }
            Some(Frame::Close { reason, .. } | Frame::End(reason)) => {
                return Err(Failure { retry_after, ..Failure::from(failed(reason)) });
            }
            Some(Frame::Binary(_) | Frame::Ping | Frame::Pong) | None => {}
        }
    }
}
