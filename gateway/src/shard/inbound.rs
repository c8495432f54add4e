//! Reading frames of one connection with the WebSocket library, which is lent bytes and owns no socket.
//!
//! A connection that is between messages holds nothing here: the library's state is lent from the shard
//! and stays with the connection only while it has half a message, or bytes that may not be taken yet.

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use sluice_proto::limits::FRAME_BYTES_MAX;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

pub use tokio_tungstenite::tungstenite::Message;

use crate::defaults::FRAME_BUFFER_BYTES;
use crate::ending::Ending;

/// Library states without any half message, used by the connections of a shard in turn.
#[derive(Debug, Default)]
pub struct ContextPool(Option<WebSocketContext>);

/// What one connection keeps between two reads: nothing, or half a message.
#[derive(Debug, Default)]
pub struct Inbound(Option<Box<PartialMessage>>);

#[derive(Debug)]
struct PartialMessage {
    context: WebSocketContext,
    track: FrameTracker,
    /// Read from the socket, not given to the library yet.
    rest: Bytes,
    /// The library may hold whole messages that were not taken.
    untaken: bool,
}

/// A connection being read: the library's state and the bytes of this turn.
#[derive(Debug)]
pub struct Reading<'a> {
    context: WebSocketContext,
    track: FrameTracker,
    stream: MemoryStream<'a>,
    dry: bool,
}

impl Inbound {
    /// A connection that already sent bytes, together with its upgrade.
    #[must_use]
    pub fn with_rest(rest: Vec<u8>, contexts: &mut ContextPool) -> Self {
        if rest.is_empty() {
            return Self::default();
        }
        let context = contexts.0.take().unwrap_or_else(fresh);
        Self(Some(Box::new(PartialMessage {
            context,
            track: FrameTracker::default(),
            rest: rest.into(),
            untaken: true,
        })))
    }

    /// Whether something waits here that was read from the socket but not taken: look at it before reading
    /// anything new, as no byte may ever come again.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.0.as_ref().is_some_and(|partial| partial.untaken)
    }

    /// Takes the bytes that wait here; read them before anything new, and give them to [`Inbound::close`].
    pub fn take_rest(&mut self) -> Bytes {
        self.0.as_mut().map(|partial| std::mem::take(&mut partial.rest)).unwrap_or_default()
    }

    /// Starts to read `bytes`. The library's answers (pongs, close replies) are appended to `replies`.
    pub fn open<'a>(
        &mut self,
        contexts: &mut ContextPool,
        bytes: &'a [u8],
        replies: &'a mut Vec<u8>,
    ) -> Reading<'a> {
        let (context, track) = match self.0.take() {
            Some(partial) => (partial.context, partial.track),
            None => (contexts.0.take().unwrap_or_else(fresh), FrameTracker::default()),
        };
        Reading { context, track, stream: MemoryStream { bytes, replies }, dry: false }
    }

    /// Ends a read: keeps half a message and what was not taken, gives everything else back. What was read
    /// out of `kept` is kept by its place in there, so that taking frames one by one copies nothing again.
    pub fn close(&mut self, reading: Reading<'_>, kept: Option<&Bytes>, contexts: &mut ContextPool) {
        let Reading { context, track, stream, dry } = reading;
        // The library's state is as large as its buffer: only one with half a message may keep it.
        if dry && track.between_messages() && context.can_write() {
            contexts.0 = Some(context);
        } else {
            let rest = match kept {
                // An empty rest may not hold on to the rest of the buffer.
                Some(kept) if !stream.bytes.is_empty() => kept.slice_ref(stream.bytes),
                Some(_) | None => Bytes::copy_from_slice(stream.bytes),
            };
            self.0 = Some(Box::new(PartialMessage { context, track, rest, untaken: !dry }));
        }
    }
}

fn fresh() -> WebSocketContext {
    // Its writes go to memory that always takes them, so nothing is held back there.
    let config = WebSocketConfig::default()
        .read_buffer_size(FRAME_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(FRAME_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    WebSocketContext::new(Role::Server, Some(config))
}

impl Reading<'_> {
    /// The next message, or `None` when the bytes are used up.
    ///
    /// # Errors
    /// [`Ending`] says how to close; nothing more may be read then.
    pub fn message(&mut self) -> Result<Option<Message>, Ending> {
        let before = self.stream.bytes;
        let result = self.context.read(&mut self.stream);
        // By what the library took, not by what it gave: a message may still lie in it.
        self.track.consume(&before[..before.len() - self.stream.bytes.len()]);
        match result {
            Ok(message) => Ok(Some(message)),
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.dry = true;
                Ok(None)
            }
            // The closing handshake is through: that is an end of the bytes, and no fault.
            Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Ok(None),
            Err(error) => Err(ending(&error)),
        }
    }
}

fn ending(error: &WsError) -> Ending {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => Ending::TooBig,
        WsError::Utf8(_) => Ending::NotUtf8,
        WsError::Capacity(_)
        | WsError::Protocol(_)
        | WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::AttackAttempt
        | WsError::WriteBufferFull(_)
        | WsError::Io(_)
        | WsError::Tls(_)
        | WsError::Url(_)
        | WsError::Http(_)
        | WsError::HttpFormat(_) => Ending::Protocol(error.to_string()),
    }
}

/// Bytes to read, and a place for the library's own replies.
#[derive(Debug)]
struct MemoryStream<'a> {
    bytes: &'a [u8],
    replies: &'a mut Vec<u8>,
}

impl Read for MemoryStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.bytes.len().min(buffer.len());
        let (now, later) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}

impl Write for MemoryStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows the frames' headers, as the library does not say whether it holds half a message.
#[derive(Debug, Default)]
struct FrameTracker {
    head: [u8; HEADER_BYTES_MAX],
    head_len: usize,
    payload_left: u64,
    fragments: bool,
}

/// Longest header of a client's frame: 2 + 8 for the length + 4 for the mask.
const HEADER_BYTES_MAX: usize = 14;

impl FrameTracker {
    fn between_messages(&self) -> bool {
        self.head_len == 0 && self.payload_left == 0 && !self.fragments
    }

    fn consume(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let payload = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
            self.payload_left -= payload as u64;
            bytes = &bytes[payload..];
            let Some((first, rest)) = bytes.split_first() else { return };
            self.head[self.head_len] = *first;
            self.head_len += 1;
            bytes = rest;
            let mut cursor = Cursor::new(&self.head[..self.head_len]);
            match FrameHeader::parse(&mut cursor) {
                Ok(Some((header, length))) => self.begin(&header, length),
                Ok(None) if self.head_len < HEADER_BYTES_MAX => {}
                // The library refuses it too and the connection is closed.
                Ok(None) | Err(_) => self.head_len = 0,
            }
        }
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) {
        self.head_len = 0;
        self.payload_left = length;
        if let OpCode::Data(Data::Text | Data::Binary | Data::Continue) = header.opcode {
            // Only data frames: a ping may stand between the parts of a message and ends none.
            self.fragments = !header.is_final;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluice_proto::wire::close;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::Control;

    /// A client's frame, masked.
    fn client(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn text(text: &str) -> Vec<u8> {
        client(OpCode::Data(Data::Text), true, text.as_bytes())
    }

    fn read(
        inbound: &mut Inbound,
        contexts: &mut ContextPool,
        bytes: &[u8],
    ) -> Result<(Vec<String>, Vec<u8>), Ending> {
        let (mut texts, mut replies) = (Vec::new(), Vec::new());
        let mut reading = inbound.open(contexts, bytes, &mut replies);
        while let Some(message) = reading.message()? {
            if let Message::Text(text) = message {
                texts.push(text.to_string());
            }
        }
        inbound.close(reading, None, contexts);
        Ok((texts, replies))
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_messages_come_out_and_nothing_stays(
            sizes in prop::collection::vec(0..3_000_usize, 1..8),
            cuts in prop::collection::vec(1..700_usize, 1..40),
            split: bool,
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for size in sizes {
                let body = "x".repeat(size);
                if split && size > 2 {
                    bytes.extend(client(OpCode::Data(Data::Text), false, &body.as_bytes()[..size / 2]));
                    bytes.extend(client(OpCode::Control(Control::Ping), true, b"p"));
                    bytes.extend(client(OpCode::Data(Data::Continue), true, &body.as_bytes()[size / 2..]));
                } else {
                    bytes.extend(text(&body));
                }
                expected.push(body);
            }
            let (mut inbound, mut contexts) = (Inbound::default(), ContextPool::default());
            let mut seen = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                seen.extend(read(&mut inbound, &mut contexts, now).unwrap().0);
                rest = later;
            }
            prop_assert_eq!(seen, expected);
            prop_assert!(inbound.0.is_none(), "an idle connection holds nothing");
            prop_assert!(contexts.0.is_some());
        }
    }

    #[test]
    fn what_may_not_be_taken_yet_waits() {
        let (mut inbound, mut contexts) = (Inbound::default(), ContextPool::default());
        let bytes = [text("a"), text(&"b".repeat(5_000)), text("c")].concat();
        let mut replies = Vec::new();
        let mut reading = inbound.open(&mut contexts, &bytes, &mut replies);
        assert!(matches!(reading.message(), Ok(Some(Message::Text(first))) if first == "a"));
        inbound.close(reading, None, &mut contexts);
        assert!(inbound.has_rest());
        let rest = inbound.take_rest();
        let (texts, _) = read(&mut inbound, &mut contexts, &rest).unwrap();
        assert_eq!(texts, ["b".repeat(5_000), "c".to_owned()]);
    }

    /// Small frames are inside the library already when the first of them is taken.
    #[test]
    fn what_the_library_holds_waits_too() {
        let (mut inbound, mut contexts) = (Inbound::default(), ContextPool::default());
        let bytes = [text("connect"), text("sub")].concat();
        let mut replies = Vec::new();
        let mut reading = inbound.open(&mut contexts, &bytes, &mut replies);
        assert!(matches!(reading.message(), Ok(Some(Message::Text(first))) if first == "connect"));
        inbound.close(reading, None, &mut contexts);
        assert!(inbound.has_rest(), "no further byte may come");
        let rest = inbound.take_rest();
        assert_eq!(read(&mut inbound, &mut contexts, &rest).unwrap().0, ["sub"]);
        assert!(!inbound.has_rest());
    }

    #[test]
    fn frames_taken_one_by_one_are_not_copied_each_time() {
        let (mut inbound, mut contexts) = (Inbound::default(), ContextPool::default());
        let frames = 64;
        let bytes = text(&"x".repeat(1_020)).repeat(frames);
        let mut replies = Vec::new();
        let mut reading = inbound.open(&mut contexts, &bytes, &mut replies);
        assert!(matches!(reading.message(), Ok(Some(Message::Text(_)))));
        inbound.close(reading, None, &mut contexts);
        let end = |rest: &Bytes| rest.as_ptr_range().end;
        let (mut taken, mut buffer) = (1, None);
        while inbound.has_rest() {
            let rest = inbound.take_rest();
            if !rest.is_empty() {
                assert_eq!(*buffer.get_or_insert(end(&rest)), end(&rest), "the same buffer");
            }
            let mut reading = inbound.open(&mut contexts, &rest, &mut replies);
            taken += usize::from(reading.message().unwrap().is_some());
            inbound.close(reading, Some(&rest), &mut contexts);
        }
        assert_eq!(taken, frames);
    }

    #[test]
    fn pings_are_answered_and_faults_have_their_code() {
        let (mut inbound, mut contexts) = (Inbound::default(), ContextPool::default());
        let ping = client(OpCode::Control(Control::Ping), true, b"now");
        let (_, replies) = read(&mut inbound, &mut contexts, &ping).unwrap();
        assert_eq!(replies, [&[0x8a, 3][..], b"now"].concat());

        let code = |bytes: &[u8]| {
            read(&mut Inbound::default(), &mut ContextPool::default(), bytes).expect_err("a fault").code()
        };
        assert_eq!(code(&text(&"x".repeat(FRAME_BYTES_MAX + 1))), close::TOO_BIG);
        assert_eq!(code(&client(OpCode::Data(Data::Text), true, b"\xff")), close::INVALID_UTF8);
        assert_eq!(code(&client(OpCode::Data(Data::Continue), true, b"x")), close::PROTOCOL);
        let unmasked = Frame::message("x", OpCode::Data(Data::Text), true);
        let mut bytes = Vec::new();
        unmasked.format(&mut bytes).unwrap();
        assert_eq!(code(&bytes), close::PROTOCOL);
    }
}
