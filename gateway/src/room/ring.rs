//! The last messages passed on: contiguous, ending at the head, bounded in count and bytes. What a
//! subscriber that fell behind a little reads instead of the store.

use std::collections::VecDeque;

use sluice_proto::ids::Seq;

use super::link::Frame;

/// The recent past of a room. A room in which nothing was said holds a pointer to nothing.
#[derive(Debug, Default)]
pub struct Ring(Option<Box<Recent>>);

#[derive(Debug, Default)]
struct Recent {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Ring {
    /// Appends the message after the last one, and forgets the oldest beyond the bounds
    /// (count, bytes). The newest stays whatever its size.
    #[inline]
    pub fn push(&mut self, frame: Frame, (items_max, bytes_max): (usize, usize)) {
        let Recent { frames, bytes } = &mut **self.0.get_or_insert_default();
        debug_assert!(frames.back().is_none_or(|last| last.seq + 1 == frame.seq), "a hole in a ring");
        *bytes += frame.bytes.len();
        frames.push_back(frame);
        // Never the newest: a subscriber that is one behind would otherwise cost a read for a large message.
        while frames.len() > 1 && (frames.len() > items_max || *bytes > bytes_max) {
            if let Some(oldest) = frames.pop_front() {
                *bytes -= oldest.bytes.len();
            }
        }
    }

    /// The messages from `seq` on, oldest first, if the one at `seq` is here.
    #[must_use]
    pub fn from(&self, seq: Seq) -> Option<impl Iterator<Item = &Frame>> {
        let frames = &self.0.as_ref()?.frames;
        // Positions are contiguous, so the place is a difference and nothing is searched.
        let first = frames.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        (at < frames.len()).then(|| frames.range(at..))
    }

    /// First and last position here.
    #[must_use]
    pub fn ends(&self) -> Option<(Seq, Seq)> {
        let frames = &self.0.as_ref()?.frames;
        Some((frames.front()?.seq, frames.back()?.seq))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}
