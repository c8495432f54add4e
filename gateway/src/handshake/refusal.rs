//! A refused upgrade: what the client is told, and the reason it is counted under.

use sluice_proto::wire::codec;
use sluice_proto::wire::{Bye, close};

use super::Stopping;
use super::cors::Cors;
use crate::ending::RESTART;
use crate::session::event::{self, Note};

/// Why an upgrade was refused: label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No request that can be understood.
    Malformed,
    /// A method other than GET.
    Method,
    /// A path where nothing is.
    Path,
    /// No upgrade to WebSocket.
    NotWebSocket,
    /// A name that is not this gateway's.
    Host,
    /// An origin that is not let in.
    Origin,
    /// No known subprotocol.
    Subprotocol,
    /// The gateway stops.
    Draining,
    /// It has as many connections as it may have.
    Full,
    /// More handshakes than the gateway takes in a second.
    Crowd,
    /// The client's address has as many connections as it may have.
    AddressFull,
    /// More handshakes than its address may begin in a second.
    AddressRate,
    /// The user of a stream has as many connections as it may have, or begins too many.
    UserFull,
    /// The token or ticket of a stream, or of a request for a ticket, is missing or wrong.
    Unauthorized,
    /// The token of a stream lacks a grant.
    Forbidden,
    /// Nobody could say in time who asks for a stream or a ticket.
    Unchecked,
    /// The client went away, or took too long.
    Abandoned,
}

impl Reason {
    /// Label of the metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Method => "method",
            Self::Path => "path",
            Self::NotWebSocket => "not_websocket",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Subprotocol => "subprotocol",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Crowd => "crowd",
            Self::AddressFull => "address_full",
            Self::AddressRate => "address_rate",
            Self::UserFull => "user_full",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unchecked => "unchecked",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A response that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is counted under.
    pub reason: Reason,
    /// HTTP status.
    pub status: u16,
    /// For people: the body, and the log.
    pub why: String,
    phrase: &'static str,
    headers: Vec<(&'static str, String)>,
    /// The body is for programs.
    is_json: bool,
    bodiless: bool,
    /// The page that may read it.
    cors: Cors,
    /// Seconds after which it is worth another try, if ever.
    retry_after_s: Option<u64>,
    /// Who asked comes back after a stream that ends, and after nothing else.
    event_source: bool,
}

impl Refusal {
    pub(super) fn new(reason: Reason, status: u16, phrase: &'static str, why: impl Into<String>) -> Self {
        Self {
            reason,
            status,
            why: why.into(),
            phrase,
            headers: Vec::new(),
            is_json: false,
            bodiless: false,
            cors: Cors::default(),
            retry_after_s: None,
            event_source: false,
        }
    }

    /// What came is no request.
    #[must_use]
    pub fn malformed(why: &str) -> Self {
        Self::bad_request(why)
    }

    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, 400, "Bad Request", why)
    }

    /// The gateway cannot take it now.
    #[must_use]
    pub fn unavailable(reason: Reason, why: &str, retry_after_s: u64) -> Self {
        Self::new(reason, 503, "Service Unavailable", why).again_after(retry_after_s)
    }

    /// The token or ticket is missing or wrong.
    #[must_use]
    pub fn unauthorized(why: impl Into<String>) -> Self {
        Self::new(Reason::Unauthorized, 401, "Unauthorized", why).with("WWW-Authenticate", "Bearer")
    }

    /// The token lacks a grant.
    #[must_use]
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self::new(Reason::Forbidden, 403, "Forbidden", why)
    }

    /// This client asks too much.
    #[must_use]
    pub fn too_many(reason: Reason, why: &str, retry_after_s: u64) -> Self {
        Self::new(reason, 429, "Too Many Requests", why).again_after(retry_after_s)
    }

    fn again_after(self, retry_after_s: u64) -> Self {
        let refusal = self.with("Retry-After", retry_after_s.to_string());
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }

    /// For a page that may read it; `event_source`: one that comes back after a stream that ends.
    pub(super) fn for_reader(self, cors: &Cors, event_source: bool) -> Self {
        Self { cors: cors.clone(), event_source, ..self }
    }

    /// As the answer to a request for a ticket.
    #[must_use]
    pub fn of_ticket(self, cors: &Cors) -> Self {
        self.for_reader(cors, false)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As the answer to HEAD, which has no body.
    pub(super) fn without_body(mut self) -> Self {
        self.bodiless = true;
        self
    }

    /// The whole response. `spread_ms` is added to the time after which an `EventSource` comes back.
    #[must_use]
    pub fn response(&self, spread_ms: u64) -> Vec<u8> {
        if let Some(retry_after_s) = self.retry_after_s.filter(|_| self.event_source) {
            return self.stream(retry_after_s * 1_000 + spread_ms);
        }
        let Self { status, phrase, headers, why, .. } = self;
        let cors = self.cors.headers();
        let content_type = if self.is_json { "application/json" } else { "text/plain; charset=utf-8" };
        let mut text = format!("HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{cors}");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.bodiless {
            text.push_str("\r\n");
            return text.into_bytes();
        }
        // With the line feed: a terminal shows the prompt on a line of its own.
        let length = why.len() + 1;
        text.push_str(&format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{why}\n"));
        text.into_bytes()
    }

    /// A stream that only says when to come back. With the status that others get, a browser would never come back.
    fn stream(&self, retry_ms: u64) -> Vec<u8> {
        let code = if self.reason == Reason::Draining { close::RESTART } else { close::TRY_LATER };
        // That of a stop is for programs.
        let reason = if self.is_json { RESTART.to_owned() } else { self.why.clone() };
        let bye = Bye { code, reason, reconnect: true, reconnect_ms: Some(retry_ms) };
        let mut frame = Vec::new();
        codec::bye(&mut frame, &bye);
        let event = event::event(&frame, Note { id: None, retry_ms: Some(retry_ms) });
        let mut out = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\
             {}Transfer-Encoding: chunked\r\n\r\n",
            self.cors.headers()
        )
        .into_bytes();
        out.extend_from_slice(&event);
        out.extend_from_slice(event::END);
        out
    }
}

impl From<Stopping> for Refusal {
    /// For programs: a balancer or a client that wants to know how long to stay away.
    fn from(stopping: Stopping) -> Self {
        let Stopping { stage, retry_after_s } = stopping;
        let body = serde_json::json!({
            "error": "this gateway stops",
            "state": stage.state().as_str(),
            "stage": stage.as_str(),
            "retry_after_s": retry_after_s,
        });
        let refusal = Self::unavailable(Reason::Draining, &body.to_string(), retry_after_s);
        Self { is_json: true, ..refusal }
    }
}
