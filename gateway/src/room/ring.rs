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
    /// (count, bytes). The newest stays whatever its size. As events, where somebody reads them so, they take as much again.
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Sizes that differ, so that no wrong sum looks right.
    #[test]
    fn the_oldest_go_beyond_either_bound_and_the_newest_stays_whatever_its_size() {
        let mut ring = Ring::default();
        for (seq, len, first) in [
            (1, 30, 1),
            (2, 40, 1),
            // A hundred bytes are not beyond a hundred.
            (3, 30, 1),
            // The fourth of three.
            (4, 1, 2),
            (5, 60, 3),
            (6, 20, 4),
            // Alone more than all may be.
            (7, 500, 7),
            (8, 10, 8),
            (9, 90, 8),
            (10, 1, 9),
        ] {
            ring.push(Frame::new(seq, Bytes::from(vec![b'x'; len])), (3, 100));
            assert_eq!(ring.ends(), Some((first, seq)));
        }
    }
}
