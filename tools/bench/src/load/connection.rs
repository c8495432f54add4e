//! One client: what it is there for, how far it is, and what it makes of the frames it hears. Its socket is the
//! driver's.

use std::sync::Arc;

use slab::Slab;
use sluice_load::frame::{self, TEXT};
use sluice_load::http;
use sluice_load::socket::Heard;

use super::feed::{Feed, STAMP_AFTER};
use super::tally::Tally;

/// What the client is there for.
pub(super) enum Role {
    Subscriber {
        room: String,
        timed: bool,
        /// The seq that must come next; only of those that check.
        next: Option<u64>,
        check: bool,
    },
    Publisher {
        /// When each unanswered publish was due, by its id.
        unanswered: Slab<u64>,
    },
    /// Publishes by the API: one call at a time, which waits for its answer.
    Caller {
        /// Where it calls, and with which key.
        server: Arc<Server>,
        /// When the call under way was due.
        due: Option<u64>,
    },
}

/// A server of the API.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) key: String,
}

impl Role {
    pub(super) fn subscriber(room: String, check: bool, timed: bool) -> Self {
        Self::Subscriber { room, timed, next: None, check }
    }

    pub(super) fn publisher() -> Self {
        Self::Publisher { unanswered: Slab::new() }
    }

    pub(super) fn caller(server: Arc<Server>) -> Self {
        Self::Caller { server, due: None }
    }
}

/// How far the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Subscribing,
    Ready,
}

pub(super) struct Connection {
    role: Role,
    stage: Stage,
}

impl Connection {
    pub(super) fn new(role: Role) -> Self {
        // A server of HTTP greets nobody.
        let stage = if matches!(role, Role::Caller { .. }) { Stage::Ready } else { Stage::Greeting };
        Self { role, stage }
    }

    pub(super) fn is_publisher(&self) -> bool {
        matches!(self.role, Role::Publisher { .. } | Role::Caller { .. })
    }

    /// How many publishes wait for their answer; `None` for those that do not publish yet, or never.
    pub(super) fn unanswered(&self) -> Option<usize> {
        match &self.role {
            Role::Publisher { unanswered } if self.stage == Stage::Ready => Some(unanswered.len()),
            Role::Caller { due, .. } => Some(usize::from(due.is_some())),
            Role::Publisher { .. } | Role::Subscriber { .. } => None,
        }
    }

    /// Whether it can publish now, whatever else waits for an answer.
    pub(super) fn is_free(&self) -> bool {
        match &self.role {
            Role::Caller { due, .. } => due.is_none(),
            Role::Publisher { .. } => self.stage == Stage::Ready,
            Role::Subscriber { .. } => false,
        }
    }

    /// Queues the next publish.
    pub(super) fn publish(&mut self, out: &mut Vec<u8>, feed: &mut Feed, due_ns: u64, tally: &mut Tally) {
        match &mut self.role {
            Role::Publisher { unanswered } => {
                let id = unanswered.insert(due_ns);
                frame::client_frame(out, TEXT, feed.publish(id, due_ns));
            }
            Role::Caller { server, due } => {
                *due = Some(due_ns);
                http::post(out, &server.host, "/v1/publish", &server.key, feed.call(due_ns));
            }
            Role::Subscriber { .. } => return,
        }
        tally.published += 1;
    }

    pub(super) fn on(&mut self, out: &mut Vec<u8>, heard: Heard<'_>, now: u64, tally: &mut Tally) {
        let payload = match heard {
            Heard::Text(payload) => payload,
            Heard::Answer(status, body) => return self.called(status, body, now, tally),
            Heard::Upgraded => return,
        };
        // By its first bytes, the most frequent first: a reader that parsed would be measured instead of the gateway.
        if payload.starts_with(b"{\"msg\":") {
            tally.delivered += 1;
            self.message(payload, now, tally);
        } else if payload.starts_with(b"{\"ok\":\"pub\"") {
            self.answered(payload, now, tally);
        } else if payload.starts_with(b"{\"skipped\":") {
            tally.skipped += 1;
            if let Role::Subscriber { next: Some(next), .. } = &mut self.role {
                *next = frame::number_after(payload, b"\"to\":").map_or(*next, |to| to + 1);
            }
        } else if payload.starts_with(b"{\"welcome\":") && self.stage == Stage::Greeting {
            self.greeted(out, tally);
        } else if payload.starts_with(b"{\"ok\":\"sub\"") && self.stage == Stage::Subscribing {
            self.ready(tally);
            if let Role::Subscriber { next, check: true, .. } = &mut self.role {
                *next = frame::number_after(payload, b"\"after\":").map(|after| after + 1);
            }
        } else {
            tally.trouble(|| String::from_utf8_lossy(payload).into_owned());
        }
    }

    fn message(&mut self, payload: &[u8], now: u64, tally: &mut Tally) {
        let Role::Subscriber { timed, next, .. } = &mut self.role else { return };
        if let Some(next) = next {
            let seq = frame::number_after(payload, b"\"seq\":").unwrap_or_default();
            tally.gaps += u64::from(seq != *next);
            *next = seq + 1;
        }
        if *timed && let Some(sent) = frame::number_after(payload, STAMP_AFTER) {
            tally.delivered_after(now.saturating_sub(sent));
        }
    }

    fn answered(&mut self, payload: &[u8], now: u64, tally: &mut Tally) {
        let Role::Publisher { unanswered } = &mut self.role else { return };
        let id = frame::number_after(payload, b"\"id\":").and_then(|id| usize::try_from(id).ok());
        match id.and_then(|id| unanswered.try_remove(id)) {
            Some(due) => tally.acked_after(now.saturating_sub(due)),
            None => tally.trouble(|| format!("an answer to nothing: {}", String::from_utf8_lossy(payload))),
        }
    }

    fn called(&mut self, status: u16, body: &[u8], now: u64, tally: &mut Tally) {
        let Role::Caller { due, .. } = &mut self.role else { return };
        match due.take() {
            Some(due) if status == 200 => tally.acked_after(now.saturating_sub(due)),
            Some(_) | None => tally.trouble(|| format!("{status} {}", String::from_utf8_lossy(body))),
        }
    }

    fn greeted(&mut self, out: &mut Vec<u8>, tally: &mut Tally) {
        match &self.role {
            Role::Publisher { .. } | Role::Caller { .. } => self.ready(tally),
            Role::Subscriber { room, .. } => {
                self.stage = Stage::Subscribing;
                frame::client_frame(out, TEXT, format!(r#"{{"sub":"{room}"}}"#).as_bytes());
            }
        }
    }

    fn ready(&mut self, tally: &mut Tally) {
        self.stage = Stage::Ready;
        tally.ready += 1;
    }
}
