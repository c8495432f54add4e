//! The last messages passed on: contiguous, ending at the head, bounded in count and bytes. What a
//! subscriber that fell behind a little reads instead of the store.

use std::collections::VecDeque;

use sluice_proto::ids::Seq;

use super::link::Frame;

/// The recent past of a room.
#[derive(Debug, Default)]
pub struct Ring {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Ring {
    /// Appends the message after the last one, and forgets the oldest beyond the bounds
    /// (count, bytes). The newest stays whatever its size.
    #[inline]
    pub fn push(&mut self, frame: Frame, (items_max, bytes_max): (usize, usize)) {
        debug_assert!(self.frames.back().is_none_or(|last| last.seq + 1 == frame.seq), "a hole in a ring");
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        // Never the newest: a subscriber that is one behind would otherwise cost a read for a large message.
        while self.frames.len() > 1 && (self.frames.len() > items_max || self.bytes > bytes_max) {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.bytes.len();
            }
        }
    }

    /// The messages from `seq` on, oldest first, if the one at `seq` is here.
    #[must_use]
    pub fn from(&self, seq: Seq) -> Option<impl Iterator<Item = &Frame>> {
        // Positions are contiguous, so the place is a difference and nothing is searched.
        let first = self.frames.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        (at < self.frames.len()).then(|| self.frames.range(at..))
    }

    /// First and last position here.
    #[must_use]
    pub fn ends(&self) -> Option<(Seq, Seq)> {
        Some((self.frames.front()?.seq, self.frames.back()?.seq))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}
