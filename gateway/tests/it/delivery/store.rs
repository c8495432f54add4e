//! The store of the model: one list of messages per epoch, trimmed from below. The oracle of the test.

use bytes::Bytes;
use sluice_gateway::room::link::{Frame, Page};
use sluice_proto::ids::{Epoch, Seq};

/// Bytes of every message.
pub const FRAME_BYTES: usize = 16;

/// Small, fast, the same everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
struct History {
    ids: Vec<u64>,
    oldest: Seq,
}

pub struct Store {
    histories: Vec<History>,
    next_id: u64,
}

impl Store {
    pub fn new() -> Self {
        Self { histories: vec![History { ids: Vec::new(), oldest: 1 }], next_id: 1 }
    }

    /// Epochs count up here, which the machines cannot know.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.histories.len() as u64)
    }

    fn of(&self, epoch: Epoch) -> &History {
        &self.histories[usize::try_from(epoch.0).unwrap() - 1]
    }

    fn now(&mut self) -> &mut History {
        self.histories.last_mut().unwrap()
    }

    pub fn head(&self, epoch: Epoch) -> Seq {
        self.of(epoch).ids.len() as Seq
    }

    pub fn oldest(&self, epoch: Epoch) -> Seq {
        self.of(epoch).oldest
    }

    pub fn append(&mut self) -> Seq {
        let id = self.next_id;
        self.next_id += 1;
        self.now().ids.push(id);
        self.head(self.epoch())
    }

    pub fn trim(&mut self, rng: &mut Rng) {
        let head = self.head(self.epoch());
        let now = self.now();
        let kept = usize::try_from(head + 2 - now.oldest).unwrap();
        now.oldest += rng.below(kept) as Seq;
    }

    /// A backup of some earlier moment becomes the store.
    pub fn restore(&mut self, rng: &mut Rng) {
        let mut backup = self.now().clone();
        let keep = rng.below(backup.ids.len() + 1);
        backup.ids.truncate(keep);
        backup.oldest = backup.oldest.min(keep as Seq + 1);
        self.histories.push(backup);
    }

    pub fn bytes(&self, epoch: Epoch, seq: Seq) -> Bytes {
        let id = self.of(epoch).ids[usize::try_from(seq).unwrap() - 1];
        let mut bytes = Vec::with_capacity(FRAME_BYTES);
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.into()
    }

    /// Position and identity of a message that arrived.
    pub fn decode(bytes: &Bytes) -> (Seq, u64) {
        let part = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (part(0), part(8))
    }

    pub fn id(&self, epoch: Epoch, seq: Seq) -> Option<u64> {
        self.of(epoch).ids.get(usize::try_from(seq).unwrap().checked_sub(1)?).copied()
    }

    pub fn read(&self, after: Seq, limit: u64) -> Page {
        let (epoch, oldest) = (self.epoch(), self.oldest(self.epoch()));
        let store_head = self.head(epoch);
        let first = oldest.max(after + 1);
        let last = store_head.min(after.max(oldest - 1) + limit);
        let frames = (first..=last).map(|seq| Frame::new(seq, self.bytes(epoch, seq))).collect();
        Page { epoch, oldest, store_head, frames }
    }
}
