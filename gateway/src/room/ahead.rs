//! Messages that arrived before their turn, by position; bounded, because `known` remembers what was
//! dropped. Never passes anything on by itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_proto::ids::{Epoch, Seq};

use super::link::Frame;

/// The stash of a room.
#[derive(Debug, Default)]
pub(super) struct Ahead {
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
    ) {
        if self.by_seq.len() >= items_max || self.bytes >= bytes_max {
            return;
        }
        if self.by_seq.get(&seq).is_some_and(|(of, _)| *of == epoch) {
            return;
        }
        let bytes = encode();
        self.bytes += bytes.len();
        if let Some((_, replaced)) = self.by_seq.insert(seq, (epoch, bytes)) {
            self.bytes -= replaced.len();
        }
    }

    /// Takes the message at `seq`.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Frame> {
        let (_, bytes) = self.by_seq.remove(&seq)?;
        self.bytes -= bytes.len();
        Some(Frame { seq, bytes })
    }

    /// Drops what lies at or before `head`.
    pub(super) fn drop_through(&mut self, head: Seq) {
        while let Some(entry) = self.by_seq.first_entry() {
            if *entry.key() > head {
                return;
            }
            let (_, bytes) = entry.remove();
            self.bytes -= bytes.len();
        }
    }

    /// Empties the stash: the messages of `epoch` in order, the rest is dropped.
    pub(super) fn drain_epoch(&mut self, epoch: Epoch) -> impl Iterator<Item = Frame> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.by_seq)
            .into_iter()
            .filter(move |(_, (of, _))| *of == epoch)
            .map(|(seq, (_, bytes))| Frame { seq, bytes })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.by_seq.clear();
        self.bytes = 0;
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// The lowest position waiting.
    pub(super) fn first(&self) -> Option<Seq> {
        self.by_seq.first_key_value().map(|(seq, _)| *seq)
    }
}
