//! Messages that arrived before their turn, by position; bounded, because `known` remembers what was
//! dropped. Never passes anything on by itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Seq};

use super::conflict::Differs;
use super::link::Frame;

/// The stash of a room: nearly always nothing.
#[derive(Debug, Default)]
pub(super) struct Ahead(Option<Box<Stash>>);

#[derive(Debug, Default)]
struct Stash {
    by_seq: BTreeMap<Seq, (Epoch, Bytes)>,
    bytes: usize,
}

impl Ahead {
    /// Keeps a message if there is space. While the room is opening, the epoch decides later.
    pub(super) fn stash(
        &mut self,
        (items_max, bytes_max): (usize, usize),
        epoch: Epoch,
        seq: Seq,
        encode: impl FnOnce() -> Bytes,
    ) -> Result<(), Differs> {
        let stash = self.0.get_or_insert_default();
        // Dropped without a word: the room knows that it exists, and will read it.
        if stash.by_seq.len() >= items_max || stash.bytes >= bytes_max {
            return Ok(());
        }
        let bytes = encode();
        // Brought by a second task: kept once, but it must be the same (C11).
        if let Some((_, kept)) = stash.by_seq.get(&seq).filter(|(of, _)| *of == epoch) {
            return if *kept == bytes { Ok(()) } else { Err(Differs::at(seq)) };
        }
        stash.bytes += bytes.len();
        if let Some((_, replaced)) = stash.by_seq.insert(seq, (epoch, bytes)) {
            stash.bytes -= replaced.len();
        }
        Ok(())
    }

    /// Takes the message at `seq`.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Frame> {
        let stash = self.0.as_mut()?;
        let (_, bytes) = stash.by_seq.remove(&seq)?;
        stash.bytes -= bytes.len();
        self.give_back();
        Some(Frame::new(seq, bytes))
    }

    /// Drops what lies at or before `head`.
    pub(super) fn drop_through(&mut self, head: Seq) {
        let Some(stash) = &mut self.0 else { return };
        while let Some(entry) = stash.by_seq.first_entry() {
            if *entry.key() > head {
                return;
            }
            let (_, bytes) = entry.remove();
            stash.bytes -= bytes.len();
        }
        self.give_back();
    }

    /// Empties the stash: the messages of `epoch` in order, the rest is dropped.
    pub(super) fn drain_epoch(&mut self, epoch: Epoch) -> impl Iterator<Item = Frame> + use<> {
        let stash = self.0.take().unwrap_or_default();
        stash
            .by_seq
            .into_iter()
            .filter(move |(_, (of, _))| *of == epoch)
            .map(|(seq, (_, bytes))| Frame::new(seq, bytes))
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    fn give_back(&mut self) {
        self.0.take_if(|stash| stash.by_seq.is_empty());
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |stash| stash.by_seq.len())
    }

    /// The lowest position waiting.
    pub(super) fn first(&self) -> Option<Seq> {
        self.0.as_ref()?.by_seq.first_key_value().map(|(seq, _)| *seq)
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |stash| stash.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that differ, so that no wrong sum looks right.
    #[test]
    fn bytes_are_given_back_however_a_message_leaves() {
        let (own, other) = (Epoch(7), Epoch(8));
        let mut ahead = Ahead::default();
        let stash = |ahead: &mut Ahead, epoch, seq, len| {
            ahead.stash((9, 1_000), epoch, seq, || Bytes::from(vec![b'x'; len])).is_ok()
        };
        for (seq, len) in [(3, 30), (4, 7), (6, 100), (7, 11), (9, 50)] {
            assert!(stash(&mut ahead, own, seq, len));
        }
        assert!(stash(&mut ahead, own, 9, 50) && !stash(&mut ahead, own, 9, 500));
        assert_eq!(ahead.bytes(), 198, "the same message again is not kept twice");
        assert!(stash(&mut ahead, other, 7, 13));
        assert_eq!(ahead.bytes(), 200, "another history replaces it");
        assert_eq!(ahead.take(3).map(|frame| frame.bytes.len()), Some(30));
        assert_eq!((ahead.bytes(), ahead.take(3).is_none()), (170, true));
        ahead.drop_through(5);
        assert_eq!((ahead.bytes(), ahead.first(), ahead.len()), (163, Some(6), 3));
        ahead.drop_through(6);
        assert_eq!((ahead.bytes(), ahead.first()), (63, Some(7)));
        let kept: Vec<Seq> = ahead.drain_epoch(own).map(|frame| frame.seq).collect();
        assert_eq!((kept, ahead.bytes(), ahead.len()), (vec![9], 0, 0));
        assert!(stash(&mut ahead, own, 1, 5));
        ahead.clear();
        assert_eq!((ahead.bytes(), ahead.len()), (0, 0));
    }

    #[test]
    fn an_empty_stash_holds_no_memory() {
        let mut ahead = Ahead::default();
        let stash = |ahead: &mut Ahead| ahead.stash((9, 99), Epoch(7), 3, || Bytes::from_static(b"x"));
        assert!(stash(&mut ahead).is_ok());
        ahead.take(3).expect("it was kept");
        assert!(ahead.0.is_none());
        assert!(stash(&mut ahead).is_ok());
        ahead.drop_through(3);
        assert!(ahead.0.is_none());
    }
}
