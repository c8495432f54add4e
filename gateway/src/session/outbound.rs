//! What waits to be written to one connection. Encoded frames are shared, never copied while they wait;
//! several are gathered into one write. Does no I/O itself.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::defaults::{WRITE_CHUNK_BYTES, WRITES_PER_TURN};

/// Frames in order, the first perhaps partly written. An empty one is a pointer to nothing: nearly all connections
/// have nothing queued nearly always.
#[derive(Debug, Default)]
pub struct Outbound(Option<Box<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// The first frame is written in part: what is left of it has to follow.
    begun: bool,
}

/// Whole frames, or a part of one whose other parts are shared with other connections.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    ends_frame: bool,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits.
    Empty,
    /// The socket takes no more for now.
    Blocked,
    /// The socket would take more, but others have their turn first.
    Yielded,
}

/// Buffers that connections of a shard use in turn: nothing is held by a connection that is idle.
#[derive(Debug)]
pub struct Spare {
    /// With nothing in them.
    queues: Vec<Outbound>,
    gather: Vec<u8>,
}

/// Queues kept for reuse; more than that many connections rarely have something queued in one turn.
const SPARE_QUEUES_MAX: usize = 4 * 1024;
/// A queue that has grown beyond this is not kept.
const SPARE_FRAMES_MAX: usize = 64;

impl Default for Spare {
    fn default() -> Self {
        Self { queues: Vec::new(), gather: Vec::with_capacity(WRITE_CHUNK_BYTES) }
    }
}

impl Spare {
    /// Gives kept queues back to the system, for instance after a mass disconnect.
    pub fn trim(&mut self, keep: usize) {
        self.queues.truncate(keep);
        if keep == 0 {
            self.queues.shrink_to_fit();
        }
    }
}

impl Outbound {
    /// Appends one or more encoded frames.
    pub fn push(&mut self, frames: Bytes, spare: &mut Spare) {
        self.push_piece(frames, true, spare);
    }

    /// Appends one text frame of which many connections have the beginning, and each an end of its own.
    pub fn push_shared(&mut self, text: &Bytes, end: &[u8], spare: &mut Spare) {
        let mut own = Vec::with_capacity(FRAME_HEADER_BYTES_MAX + end.len());
        header(OpCode::Data(Data::Text), text.len() + end.len(), &mut own);
        let head = own.len();
        own.extend_from_slice(end);
        let mut own = Bytes::from(own);
        // Header and end in one allocation: both are small, and each page has them.
        let end = own.split_off(head);
        self.push_piece(own, false, spare);
        self.push_piece(text.clone(), end.is_empty(), spare);
        self.push_piece(end, true, spare);
    }

    fn push_piece(&mut self, bytes: Bytes, ends_frame: bool, spare: &mut Spare) {
        if bytes.is_empty() {
            return;
        }
        // Only now: an idle connection has no queue, and most are idle.
        let queue =
            self.0.get_or_insert_with(|| spare.queues.pop().and_then(|queue| queue.0).unwrap_or_default());
        queue.bytes += bytes.len();
        queue.pieces.push_back(Piece { bytes, ends_frame });
    }

    /// How many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.pieces.is_empty())
    }

    /// Forgets what waits, for a connection that is gone.
    pub fn clear(&mut self, spare: &mut Spare) {
        self.release(spare);
    }

    /// Forgets what waits but for the rest of a frame of which a part was written.
    pub fn give_up(&mut self) {
        let Some(queue) = &mut self.0 else { return };
        let rest = queue.pieces.iter().position(|piece| piece.ends_frame).map_or(0, |at| at + 1);
        // A frame that was begun must end: what follows would be taken for its rest.
        queue.pieces.truncate(if queue.begun { rest } else { 0 });
        queue.bytes = queue.pieces.iter().map(|piece| piece.bytes.len()).sum();
    }

    /// Writes what waits, several frames in one write, until the socket blocks or it is others' turn.
    ///
    /// # Errors
    /// What `write` says, besides `WouldBlock` and `Interrupted`.
    pub fn flush(
        &mut self,
        spare: &mut Spare,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<(Flushed, usize)> {
        let Some(queue) = &mut self.0 else { return Ok((Flushed::Empty, 0)) };
        let mut written = 0;
        // A reader that is fast and has much waiting would else keep the shard from all others.
        for _ in 0..WRITES_PER_TURN {
            let Some(Piece { bytes: front, .. }) = queue.pieces.front() else { break };
            // One piece, or one that fills a write alone, is offered where it lies: nothing is copied.
            let chunk = if queue.pieces.len() == 1 || front.len() >= WRITE_CHUNK_BYTES {
                &front[..front.len().min(WRITE_CHUNK_BYTES)]
            } else {
                gather(&queue.pieces, &mut spare.gather)
            };
            let offered = chunk.len();
            match write(chunk) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    queue.advance(count);
                    written += count;
                    // It took less than it was offered: to ask again would cost a call that says the same.
                    if count < offered {
                        return Ok((Flushed::Blocked, written));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((Flushed::Blocked, written));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if queue.pieces.is_empty() {
            self.release(spare);
            return Ok((Flushed::Empty, written));
        }
        Ok((Flushed::Yielded, written))
    }

    fn release(&mut self, spare: &mut Spare) {
        let Some(mut queue) = self.0.take() else { return };
        // One that grew large would keep its memory for connections that need a few places.
        if queue.pieces.capacity() <= SPARE_FRAMES_MAX && spare.queues.len() < SPARE_QUEUES_MAX {
            queue.pieces.clear();
            (queue.bytes, queue.begun) = (0, false);
            spare.queues.push(Self(Some(queue)));
        }
    }
}

impl Pieces {
    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            if front.bytes.len() > count {
                bytes::Buf::advance(&mut front.bytes, count);
                self.begun = true;
                return;
            }
            count -= front.bytes.len();
            self.begun = !front.ends_frame;
            self.pieces.pop_front();
        }
    }
}

/// The first frames as one contiguous piece: cheaper than several slices for the system.
fn gather<'a>(pieces: &VecDeque<Piece>, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.clear();
    for Piece { bytes, .. } in pieces {
        let space = WRITE_CHUNK_BYTES - buffer.len();
        buffer.extend_from_slice(&bytes[..bytes.len().min(space)]);
        if bytes.len() >= space {
            break;
        }
    }
    buffer
}

/// Longest header of a server's frame, bytes: two, and eight for the length.
const FRAME_HEADER_BYTES_MAX: usize = 10;

fn header(opcode: OpCode, payload: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let written = header.format(payload as u64, out);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Appends a text frame of a server (unmasked, final) whose payload is `text`.
pub fn text_frame(text: &[u8], out: &mut Vec<u8>) {
    header(OpCode::Data(Data::Text), text.len(), out);
    out.extend_from_slice(text);
}

/// The payload of a frame that [`text_frame`] made.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => FRAME_HEADER_BYTES_MAX,
        Some(_) | None => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// A ping without payload.
#[must_use]
pub fn ping_frame() -> Bytes {
    let mut out = Vec::with_capacity(2);
    header(OpCode::Control(Control::Ping), 0, &mut out);
    out.into()
}

/// Longest reason of a close frame, bytes: a control frame holds 125 and the code takes 2.
const REASON_BYTES_MAX: usize = 123;

/// A close frame. A reason that is too long is cut at a character.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    // Half a character is no UTF-8, and a client must end a connection with such a reason as an error.
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = Vec::with_capacity(4 + end);
    header(OpCode::Control(Control::Close), 2 + end, &mut out);
    out.extend_from_slice(&u16::from(CloseCode::from(code)).to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(sizes: &[usize], spare: &mut Spare) -> Outbound {
        let mut queue = Outbound::default();
        for (n, size) in sizes.iter().enumerate() {
            queue.push(vec![u8::try_from(n).unwrap(); *size].into(), spare);
        }
        queue
    }

    #[test]
    fn several_frames_are_one_write() {
        let mut spare = Spare::default();
        let mut queue = filled(&[3, 4, 5], &mut spare);
        let mut writes = Vec::new();
        let flushed = queue.flush(&mut spare, |bytes| {
            writes.push(bytes.to_vec());
            Ok(bytes.len())
        });
        assert_eq!(flushed.unwrap(), (Flushed::Empty, 12));
        assert_eq!(writes, [[vec![0; 3], vec![1; 4], vec![2; 5]].concat()]);
        assert_eq!((queue.bytes(), spare.queues.len()), (0, 1), "the empty queue went back");
    }

    #[test]
    fn a_partial_write_continues_where_it_stopped() {
        let mut spare = Spare::default();
        let mut queue = filled(&[3, 4, 5], &mut spare);
        let mut out = Vec::new();
        for take in [2, 3, 100] {
            let flushed = queue.flush(&mut spare, |bytes| {
                let count = bytes.len().min(take);
                out.extend_from_slice(&bytes[..count]);
                Ok(count)
            });
            assert!(flushed.is_ok());
        }
        assert_eq!(out, [vec![0; 3], vec![1; 4], vec![2; 5]].concat());
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_no_half_frame() {
        let mut spare = Spare::default();
        let mut queue = filled(&[3, 4, 5], &mut spare);
        let flushed = queue.flush(&mut spare, |_| Ok(5));
        assert_eq!(flushed.unwrap(), (Flushed::Blocked, 5));
        queue.give_up();
        assert_eq!(queue.bytes(), 2, "the rest of the second frame");
        queue.clear(&mut spare);
        let mut queue = filled(&[3, 4], &mut spare);
        queue.give_up();
        assert!(queue.is_empty());
    }

    #[test]
    fn a_shared_page_is_one_frame_and_is_given_up_as_one() {
        let mut whole = Vec::new();
        text_frame(b"the same for all, and mine", &mut whole);
        let text = Bytes::from_static(b"the same for all");
        for taken in 0..whole.len() {
            let mut spare = Spare::default();
            let mut queue = Outbound::default();
            queue.push_shared(&text, b", and mine", &mut spare);
            queue.push(Bytes::from_static(b"another frame"), &mut spare);
            let mut out = Vec::new();
            for count in [taken, 0] {
                let flushed = queue.flush(&mut spare, |bytes| {
                    let count = bytes.len().min(count.saturating_sub(out.len()));
                    out.extend_from_slice(&bytes[..count]);
                    if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
                });
                assert!(flushed.is_ok());
            }
            queue.give_up();
            assert_eq!(queue.bytes(), if taken == 0 { 0 } else { whole.len() - taken }, "{taken}");
            let flushed = queue.flush(&mut spare, |bytes| {
                out.extend_from_slice(bytes);
                Ok(bytes.len())
            });
            assert!(flushed.is_ok());
            assert_eq!(out, if taken == 0 { &[][..] } else { &whole[..] }, "{taken}");
        }
    }

    #[test]
    fn a_long_queue_yields_and_a_full_socket_blocks() {
        let mut spare = Spare::default();
        let mut queue = filled(&[10 * WRITE_CHUNK_BYTES], &mut spare);
        let flushed = queue.flush(&mut spare, |bytes| Ok(bytes.len()));
        assert_eq!(flushed.unwrap(), (Flushed::Yielded, WRITES_PER_TURN * WRITE_CHUNK_BYTES));
        let flushed = queue.flush(&mut spare, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(flushed.unwrap(), (Flushed::Blocked, 0));
        assert_eq!(queue.bytes(), (10 - WRITES_PER_TURN) * WRITE_CHUNK_BYTES);
    }

    #[test]
    fn the_payload_of_a_frame_is_found_whatever_its_length() {
        for len in [0, 1, 125, 126, 65_535, 65_536, 131_072] {
            let (text, mut frame) = (vec![b'x'; len], Vec::new());
            text_frame(&text, &mut frame);
            assert_eq!(payload(&frame), text, "{len}");
        }
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let frame = close_frame(1012, &"ü".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(&frame[..4], [0x88, 124, 0x03, 0xf4]);
    }
}
