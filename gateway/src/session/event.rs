//! Server-sent events: frames of the wire as events of `text/event-stream`, in chunks of HTTP/1.1. Pure.
//!
//! A message is encoded once for all who read it as an event. Its `id` is in a chunk of its own before it, because who
//! reads one room resumes by that, and who reads several by an id that names all of them ([`Positions`]).

use std::fmt::{self, Write as _};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sluice_proto::ids::{Epoch, RoomId, Seq};

/// What stands beside the frame in an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// Where the reader stands with it.
    pub id: Option<(Epoch, Seq)>,
    /// When it is to come back after the end, milliseconds.
    pub retry_ms: Option<u64>,
}

/// A comment, for proxies and systems that cut what is silent: no reader hears of it.
pub const HEARTBEAT: &[u8] = b"2\r\n:\n\r\n";
/// The last chunk: the body is whole.
pub const END: &[u8] = b"0\r\n\r\n";

/// The frame `text` as one chunk. The event has the name of the frame's verb.
#[must_use]
pub fn event(text: &[u8], note: Note) -> Bytes {
    let mut lines = Vec::with_capacity(text.len() + 96);
    if let Some((epoch, seq)) = note.id {
        push_fmt(&mut lines, format_args!("id: {epoch}:{seq}\n"));
    }
    if let Some(retry_ms) = note.retry_ms {
        push_fmt(&mut lines, format_args!("retry: {retry_ms}\n"));
    }
    lines.extend_from_slice(b"event: ");
    lines.extend_from_slice(verb(text));
    lines.push(b'\n');
    push_data(text, &mut lines);
    chunk(&lines)
}

/// The message `text` at `seq`: two chunks, the first with its `id`. Without a name, so that `onmessage` of a browser has
/// it.
#[must_use]
pub fn message(epoch: Epoch, seq: Seq, text: &[u8]) -> Bytes {
    let mut lines = Vec::with_capacity(text.len() + 16);
    push_data(text, &mut lines);
    let id = format!("id: {epoch}:{seq}\n");
    let mut out = Vec::with_capacity(id.len() + lines.len() + 24);
    push_chunk(id.as_bytes(), &mut out);
    push_chunk(&lines, &mut out);
    out.into()
}

/// The same message for who reads several rooms: what follows its `id`. Shares the bytes.
#[must_use]
pub fn without_id(message: &Bytes) -> Bytes {
    // An id has 23 to 42 bytes: its chunk begins with two digits.
    let digits = message.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
    let len = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or_default();
    message.slice((len + 6).min(message.len())..)
}

/// An `id` alone, which a reader keeps and no one else hears of.
#[must_use]
pub fn id_alone(positions: &Positions) -> Bytes {
    chunk(format!("id: {positions}\n\n").as_bytes())
}

/// Lines that are no frame, as one chunk.
#[must_use]
pub fn chunk(lines: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(lines.len() + 12);
    push_chunk(lines, &mut out);
    out.into()
}

fn push_chunk(lines: &[u8], out: &mut Vec<u8>) {
    push_fmt(out, format_args!("{:x}\r\n", lines.len()));
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
}

/// The field `data`, and the end of the event. Between the tokens of somebody's JSON there may be ends of lines, which
/// would end the field.
fn push_data(text: &[u8], lines: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        lines.extend_from_slice(b"data: ");
        let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { break };
        let (line, end) = rest.split_at(at);
        lines.extend_from_slice(line);
        lines.push(b'\n');
        rest = &end[if end.starts_with(b"\r\n") { 2 } else { 1 }..];
    }
    lines.extend_from_slice(rest);
    lines.extend_from_slice(b"\n\n");
}

/// `drain` of `{"drain":…}`.
fn verb(text: &[u8]) -> &[u8] {
    let name = text.strip_prefix(b"{\"").unwrap_or_default();
    name.split(|byte| *byte == b'"').next().unwrap_or_default()
}

fn push_fmt(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let written = std::io::Write::write_fmt(out, text);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Where a reader of several rooms stands, as its id says: `EPOCH:news=58,sport=7`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Positions {
    epoch: Option<Epoch>,
    rooms: String,
    /// Two rooms are of different histories: no id says that.
    torn: bool,
}

/// What stands in a name as it is; the rest in percent.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@');

impl Positions {
    /// One more room; without a position there is nothing to say of it, and without an epoch it has that of the others.
    pub fn add(&mut self, room: &RoomId, epoch: Option<Epoch>, seq: Option<Seq>) {
        let Some(seq) = seq else { return };
        match (self.epoch, epoch) {
            (Some(ours), Some(theirs)) if ours != theirs => self.torn = true,
            _ => self.epoch = self.epoch.or(epoch),
        }
        let comma = if self.rooms.is_empty() { "" } else { "," };
        let name = utf8_percent_encode(room.as_str(), NAME);
        let written = write!(self.rooms, "{comma}{name}={seq}");
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }

    /// Itself, if it says something true.
    #[must_use]
    pub fn told(self) -> Option<Self> {
        (!self.torn && self.epoch.is_some() && !self.rooms.is_empty()).then_some(self)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(epoch) = self.epoch {
            write!(f, "{epoch}:")?;
        }
        f.write_str(&self.rooms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(0x1f);

    /// The body of what was sent in chunks, which must be whole.
    fn body(mut chunks: &[u8]) -> String {
        let mut body = Vec::new();
        while !chunks.is_empty() {
            let at = chunks.windows(2).position(|two| two == b"\r\n").expect("a size");
            let len = usize::from_str_radix(std::str::from_utf8(&chunks[..at]).unwrap(), 16).unwrap();
            let rest = &chunks[at + 2..];
            body.extend_from_slice(&rest[..len]);
            assert_eq!(&rest[len..len + 2], b"\r\n");
            chunks = &rest[len + 2..];
        }
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn a_message_has_no_name_and_an_id_that_can_be_left_out() {
        for seq in [1, 9_999_999_999, u64::MAX] {
            let sent = message(EPOCH, seq, br#"{"msg":"a","seq":58}"#);
            let data = "data: {\"msg\":\"a\",\"seq\":58}\n\n";
            assert_eq!(body(&sent), format!("id: 000000000000001f:{seq}\n{data}"));
            assert_eq!(body(&without_id(&sent)), data);
        }
    }

    #[test]
    fn ends_of_lines_in_data_are_lines_of_data() {
        let sent = message(EPOCH, 1, b"{\"data\":[1,\n2,\r\n3,\r4]}");
        assert!(
            body(&sent).ends_with("\ndata: {\"data\":[1,\ndata: 2,\ndata: 3,\ndata: 4]}\n\n"),
            "{sent:?}"
        );
    }

    #[test]
    fn other_frames_are_named_by_their_verb() {
        let note = Note { id: Some((EPOCH, 7)), retry_ms: Some(830) };
        let sent = event(br#"{"drain":{"within_ms":1}}"#, note);
        let lines =
            "id: 000000000000001f:7\nretry: 830\nevent: drain\ndata: {\"drain\":{\"within_ms\":1}}\n\n";
        assert_eq!(body(&sent), lines);
        assert_eq!(body(&event(b"{}", Note::default())), "event: \ndata: {}\n\n");
        assert_eq!(body(HEARTBEAT), ":\n");
    }

    #[test]
    fn an_id_names_all_rooms_or_is_not_told() {
        let room = |name: &str| RoomId::parse(name).unwrap();
        let mut positions = Positions::default();
        positions.add(&room("a,b=c:d é"), None, Some(58));
        positions.add(&room("@ann"), Some(EPOCH), Some(7));
        positions.add(&room("new"), None, None);
        let text = "000000000000001f:a%2Cb%3Dc%3Ad%20%C3%A9=58,@ann=7";
        assert_eq!(positions.told().map(|told| told.to_string()).as_deref(), Some(text));
        assert_eq!(Positions::default().told(), None);
        let mut torn = Positions::default();
        torn.add(&room("a"), Some(EPOCH), Some(1));
        torn.add(&room("b"), Some(Epoch(2)), Some(1));
        assert_eq!(torn.told(), None);
    }
}
