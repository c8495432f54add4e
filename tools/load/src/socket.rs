//! One client's socket: what it still has to write, and frames, or answers of HTTP, out of what it reads. It holds a buffer only while half
//! a frame is under way. It knows nothing of what frames say.

use std::io::{ErrorKind, Read, Write};

use crate::transport::Transport;
use crate::{frame, http};

/// Longest answer to an upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Buffer for half a frame that a client keeps between frames.
const REST_BYTES_KEPT: usize = 1024;

/// What came.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The upgrade was accepted.
    Upgraded,
    /// A text frame.
    Text(&'a [u8]),
    /// An answer of HTTP: its status and body.
    Answer(u16, &'a [u8]),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The upgrade was answered with something else.
    Refused {
        /// HTTP status; 0 when it was no HTTP.
        status: u16,
        /// When to try again, as told.
        retry_after_s: Option<u64>,
        /// The status line.
        line: String,
    },
    /// The server's close frame.
    Closed(u16, String),
    /// It broke off, or could not be made.
    Broken(String),
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { line, .. } => f.write_str(line),
            Self::Closed(code, reason) => write!(f, "close {code} {reason}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// What the server says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// The answer to an upgrade, then frames.
    Upgrade,
    /// Frames of WebSocket.
    Frames,
    /// One answer after the other.
    Http,
}

/// A connection that is being made, or is.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    speaks: Speaks,
    /// Half a frame.
    rest: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

impl Socket {
    /// Of a transport that connects; `first` is written as soon as it has.
    #[must_use]
    pub(crate) fn new(transport: Transport, speaks: Speaks, first: Vec<u8>) -> Self {
        Self { transport, speaks, rest: Vec::new(), out: first, written: 0 }
    }

    /// Where frames are queued.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.transport.holds_bytes()
    }

    /// Ends our half of the connection.
    pub fn finish(&self) {
        self.transport.finish();
    }

    /// Writes what is queued, as far as the socket takes it; returns how many bytes that was. `keep`: the buffer will
    /// be needed again.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn flush(&mut self, keep: bool) -> Result<usize, Gone> {
        let mut count = 0;
        while self.written < self.out.len() {
            match self.transport.write(&self.out[self.written..]) {
                Ok(some) => {
                    self.written += some;
                    count += some;
                }
                Err(error) if is_not_yet(&error) => return Ok(count),
                Err(error) => return Err(Gone::Broken(error.to_string())),
            }
        }
        match self.transport.flush() {
            Err(error) if !is_not_yet(&error) => return Err(Gone::Broken(error.to_string())),
            // The session of TLS has it: not ours to write again.
            Ok(()) | Err(_) => {}
        }
        self.written = 0;
        if keep {
            self.out.clear();
        } else {
            self.out = Vec::new(); // an idle client of a crowd holds no buffer
        }
        Ok(count)
    }

    /// Reads until the socket is empty; `ended` when the poll says that the other end has closed. `on` may queue
    /// frames. Returns how many reads brought something.
    ///
    /// # Errors
    /// The end of the connection, after everything that came before it.
    pub fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        ended: bool,
        mut on: impl FnMut(&mut Vec<u8>, Heard<'_>),
    ) -> Result<u64, Gone> {
        let mut reads = 0;
        loop {
            let kept = self.rest.len();
            if buffer.len() < kept * 2 {
                buffer.resize(kept * 2, 0); // a page of history is larger than what comes at once
            }
            buffer[..kept].copy_from_slice(&self.rest);
            match self.transport.read(&mut buffer[kept..]) {
                Ok(0) => return Err(Gone::Broken("the server closed the connection".into())),
                Ok(count) => {
                    reads += 1;
                    let bytes = &buffer[..kept + count];
                    let used = self.consume(bytes, &mut on)?;
                    self.rest.clear();
                    self.rest.extend_from_slice(&bytes[used..]);
                    if self.rest.is_empty() && self.rest.capacity() > REST_BYTES_KEPT {
                        self.rest = Vec::new();
                    }
                    // Unless the other end has closed, which is told once: its last bytes are read to the end.
                    let emptied = self.transport.is_emptied_by_short_reads() && kept + count < buffer.len();
                    if emptied && !ended {
                        return Ok(reads); // a short read of a stream: empty, the next bytes are a new event
                    }
                }
                Err(error) if is_not_yet(&error) => return Ok(reads),
                Err(error) => return Err(Gone::Broken(error.to_string())),
            }
        }
    }

    /// Takes whole frames; returns how many bytes they had.
    fn consume(&mut self, bytes: &[u8], on: &mut impl FnMut(&mut Vec<u8>, Heard<'_>)) -> Result<usize, Gone> {
        let mut used = 0;
        if self.speaks == Speaks::Http {
            while let Some(answer) = http::parse(&bytes[used..]).map_err(Gone::Broken)? {
                used += answer.length;
                on(&mut self.out, Heard::Answer(answer.status, answer.body));
            }
            return Ok(used);
        }
        if self.speaks == Speaks::Upgrade {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                // Whatever answers there may never end its header.
                let too_long = bytes.len() > HEAD_BYTES_MAX;
                return if too_long { Err(refused(&bytes[..HEAD_BYTES_MAX])) } else { Ok(0) };
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(refused(&bytes[..end]));
            }
            used = end + 4;
            self.speaks = Speaks::Frames;
            on(&mut self.out, Heard::Upgraded);
        }
        while let Some((opcode, payload, length)) = frame::parse(&bytes[used..]) {
            used += length;
            match opcode {
                frame::TEXT => on(&mut self.out, Heard::Text(payload)),
                frame::PING => frame::client_frame(&mut self.out, frame::PONG, payload),
                frame::CLOSE => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    return Err(Gone::Closed(code, reason.into_owned()));
                }
                _ => {}
            }
        }
        Ok(used)
    }
}

fn refused(head: &[u8]) -> Gone {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().next().unwrap_or_default().to_owned();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("retry-after").then(|| value.trim().parse().ok())?
    };
    Gone::Refused { status, retry_after_s: head.lines().find_map(field), line }
}

fn is_not_yet(error: &std::io::Error) -> bool {
    // a socket that is still connecting says so on write (again) and on read (not connected)
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let head =
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\nnot ready";
        let line = "HTTP/1.1 503 Service Unavailable".to_owned();
        assert_eq!(refused(head), Gone::Refused { status: 503, retry_after_s: Some(7), line });
        let nonsense = Gone::Refused { status: 0, retry_after_s: None, line: "hello".into() };
        assert_eq!(refused(b"hello"), nonsense);
    }
}
