//! A refused upgrade: what the client is told, and the reason it is counted under.

use super::Stopping;

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
    content_type: &'static str,
    bodiless: bool,
}

impl Refusal {
    pub(super) fn new(reason: Reason, status: u16, phrase: &'static str, why: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { reason, status, why: why.into(), phrase, headers: Vec::new(), content_type, bodiless: false }
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
        Self::new(reason, 503, "Service Unavailable", why).with("Retry-After", retry_after_s.to_string())
    }

    /// This client asks too much.
    #[must_use]
    pub fn too_many(reason: Reason, why: &str, retry_after_s: u64) -> Self {
        Self::new(reason, 429, "Too Many Requests", why).with("Retry-After", retry_after_s.to_string())
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

    /// The whole response.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let Self { status, phrase, headers, why, content_type, .. } = self;
        let mut text = format!("HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n");
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
        Self { content_type: "application/json", ..refusal }
    }
}
