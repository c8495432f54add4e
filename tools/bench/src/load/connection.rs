//! One client: its socket, what it still has to write, and what it makes of what it reads. It holds a buffer only
//! while half a frame is under way.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;
use slab::Slab;

use super::feed::{Feed, STAMP_AFTER};
use super::tally::Tally;
use crate::ws;

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
}

impl Role {
    pub(super) fn subscriber(room: String, check: bool, timed: bool) -> Self {
        Self::Subscriber { room, timed, next: None, check }
    }

    pub(super) fn publisher() -> Self {
        Self::Publisher { unanswered: Slab::new() }
    }
}

/// How far the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Greeting,
    Subscribing,
    Ready,
    Gone,
}

pub(super) struct Connection {
    stream: TcpStream,
    role: Role,
    stage: Stage,
    /// Half a frame.
    rest: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, role: Role, request: Vec<u8>) -> Self {
        Self { stream, role, stage: Stage::Upgrading, rest: Vec::new(), out: request, written: 0 }
    }

    /// How many publishes wait for their answer; `None` for those that do not publish (any more).
    pub(super) fn unanswered(&self) -> Option<usize> {
        match &self.role {
            Role::Publisher { unanswered } if self.stage == Stage::Ready => Some(unanswered.len()),
            Role::Publisher { .. } | Role::Subscriber { .. } => None,
        }
    }

    /// Queues the next publish.
    pub(super) fn publish(&mut self, feed: &mut Feed, due_ns: u64, tally: &mut Tally) {
        if let Role::Publisher { unanswered } = &mut self.role {
            let id = unanswered.insert(due_ns);
            ws::client_frame(&mut self.out, ws::TEXT, feed.publish(id, due_ns));
            tally.published += 1;
        }
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self, tally: &mut Tally) {
        while self.stage != Stage::Gone && self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if not_yet(&error) => return,
                Err(error) => self.gone(tally, &error.to_string()),
            }
        }
        self.written = 0;
        self.out.clear();
        if matches!(self.role, Role::Subscriber { .. }) {
            self.out = Vec::new();
        }
    }

    /// Reads until the socket is empty; `ended` when the poll says that the other end has closed.
    pub(super) fn read(&mut self, buffer: &mut [u8], ended: bool, tally: &mut Tally) {
        while self.stage != Stage::Gone {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => self.gone(tally, "the server closed the connection"),
                Ok(count) => {
                    tally.reads += u64::from(matches!(self.role, Role::Subscriber { .. }));
                    let bytes = &buffer[..kept + count];
                    let used = self.consume(bytes, tally);
                    self.rest.clear();
                    self.rest.extend_from_slice(&bytes[used..]);
                    if kept + count < buffer.len() && !ended {
                        break; // a short read of a stream: empty, the next bytes are a new event
                    }
                }
                Err(error) if not_yet(&error) => break,
                Err(error) => self.gone(tally, &error.to_string()),
            }
        }
        if !self.out.is_empty() {
            self.flush(tally);
        }
    }

    /// Takes whole frames; returns how many bytes they had.
    fn consume(&mut self, bytes: &[u8], tally: &mut Tally) -> usize {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return 0 };
            used = end + 4;
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                self.gone(tally, &String::from_utf8_lossy(&bytes[..end]));
                return bytes.len();
            }
            self.stage = Stage::Greeting;
        }
        let now = tally.now_ns();
        while let Some((opcode, payload, length)) = ws::parse(&bytes[used..]) {
            used += length;
            match opcode {
                ws::TEXT => self.text(payload, now, tally),
                ws::PING => ws::client_frame(&mut self.out, ws::PONG, payload),
                ws::CLOSE => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    self.gone(tally, &format!("close {code}"));
                }
                _ => {}
            }
        }
        used
    }

    fn text(&mut self, payload: &[u8], now: u64, tally: &mut Tally) {
        if payload.starts_with(b"{\"msg\":") {
            tally.delivered += 1;
            self.message(payload, now, tally);
        } else if payload.starts_with(b"{\"ok\":\"pub\"") {
            self.answered(payload, now, tally);
        } else if payload.starts_with(b"{\"skipped\":") {
            tally.skipped += 1;
            if let Role::Subscriber { next: Some(next), .. } = &mut self.role {
                *next = ws::number_after(payload, b"\"to\":").map_or(*next, |to| to + 1);
            }
        } else if payload.starts_with(b"{\"welcome\":") && self.stage == Stage::Greeting {
            self.greeted(tally);
        } else if payload.starts_with(b"{\"ok\":\"sub\"") && self.stage == Stage::Subscribing {
            self.ready(tally);
            if let Role::Subscriber { next, check: true, .. } = &mut self.role {
                *next = ws::number_after(payload, b"\"after\":").map(|after| after + 1);
            }
        } else {
            tally.trouble(|| String::from_utf8_lossy(payload).into_owned());
        }
    }

    fn message(&mut self, payload: &[u8], now: u64, tally: &mut Tally) {
        let Role::Subscriber { timed, next, .. } = &mut self.role else { return };
        if let Some(next) = next {
            let seq = ws::number_after(payload, b"\"seq\":").unwrap_or_default();
            tally.gaps += u64::from(seq != *next);
            *next = seq + 1;
        }
        if *timed && let Some(sent) = ws::number_after(payload, STAMP_AFTER) {
            tally.delivered_after(now.saturating_sub(sent));
        }
    }

    fn answered(&mut self, payload: &[u8], now: u64, tally: &mut Tally) {
        let Role::Publisher { unanswered } = &mut self.role else { return };
        let id = ws::number_after(payload, b"\"id\":").and_then(|id| usize::try_from(id).ok());
        match id.and_then(|id| unanswered.try_remove(id)) {
            Some(due) => tally.acked_after(now.saturating_sub(due)),
            None => tally.trouble(|| format!("an answer to nothing: {}", String::from_utf8_lossy(payload))),
        }
    }

    fn greeted(&mut self, tally: &mut Tally) {
        match &self.role {
            Role::Publisher { .. } => self.ready(tally),
            Role::Subscriber { room, .. } => {
                self.stage = Stage::Subscribing;
                ws::client_frame(&mut self.out, ws::TEXT, format!(r#"{{"sub":"{room}"}}"#).as_bytes());
            }
        }
    }

    fn ready(&mut self, tally: &mut Tally) {
        self.stage = Stage::Ready;
        tally.ready += 1;
    }

    fn gone(&mut self, tally: &mut Tally, why: &str) {
        self.stage = Stage::Gone;
        tally.trouble(|| why.to_owned());
    }
}

fn not_yet(error: &std::io::Error) -> bool {
    // a socket that is still connecting says so on write (again) and on read (not connected)
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
