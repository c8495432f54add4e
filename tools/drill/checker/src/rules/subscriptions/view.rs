//! One client's view of one room, over all its connections. Pure.

use super::standing::Standing;
use crate::history::NONE;

/// Subscriptions of one client to one room.
#[derive(Debug, Default)]
pub(super) struct View {
    /// What stands, by lane: the connection, or 0 where the library minds connections.
    pub lanes: Vec<(u32, Standing)>,
    /// Questions without an answer, by lane.
    pub asked: Vec<(u32, Asked)>,
    /// What stood on connections that are closed.
    pub left: Option<Seen>,
}

/// A `sub` that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub after: Option<u64>,
    pub epoch: u32,
    pub at_us: u64,
    /// Its step; [`NONE`] when the library sent it unseen.
    pub step: u32,
    /// What the client had seen then.
    pub seen: Option<Seen>,
}

/// How far a client has seen a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub epoch: u32,
    pub after: u64,
    /// By its own wish it sees no more.
    pub ended: bool,
    /// When the last subscription of those began.
    pub begun: u32,
    /// The last delivery.
    pub last: u32,
}

impl Seen {
    pub fn of(standing: &Standing) -> Self {
        let Standing { epoch, after, ended, begun, last, .. } = *standing;
        Self { epoch, after, ended, begun, last }
    }

    /// Both together: the later one says which epoch, and whether it has ended.
    fn and(self, other: Self) -> Self {
        let (old, new) = if self.begun < other.begun { (self, other) } else { (other, self) };
        if old.epoch == new.epoch && old.after > new.after {
            return Self { after: old.after, last: old.last, ..new };
        }
        new
    }
}

impl View {
    pub fn lane(&mut self, lane: u32) -> Option<&mut Standing> {
        self.lanes.iter_mut().find(|(of, _)| *of == lane).map(|(_, standing)| standing)
    }

    /// Removes what stands on a lane.
    pub fn take(&mut self, lane: u32) -> Option<Standing> {
        let index = self.lanes.iter().position(|(of, _)| *of == lane)?;
        Some(self.lanes.swap_remove(index).1)
    }

    pub fn take_asked(&mut self, lane: u32) -> Option<Asked> {
        let index = self.asked.iter().position(|(of, _)| *of == lane)?;
        Some(self.asked.swap_remove(index).1)
    }

    /// All that was seen so far, on any connection.
    pub fn seen(&self) -> Option<Seen> {
        let lanes = self.lanes.iter().map(|(_, standing)| Seen::of(standing));
        lanes.chain(self.left).reduce(Seen::and)
    }

    /// How far the client has come at the end: by what still stands, else by what stood.
    pub fn reach(&self) -> Option<Seen> {
        let standing = self.lanes.iter().map(|(_, standing)| Seen::of(standing)).reduce(Seen::and);
        standing.or(self.left).filter(|seen| !seen.ended)
    }

    /// A connection is gone; what stood on it was this.
    pub fn leave(&mut self, standing: &Standing) {
        let seen = Seen::of(standing);
        self.left = Some(self.left.map_or(seen, |left| left.and(seen)));
    }
}

impl Asked {
    /// What a library asks when it comes back.
    pub fn implied(seen: Seen, at_us: u64) -> Self {
        Self { after: Some(seen.after), epoch: seen.epoch, at_us, step: NONE, seen: Some(seen) }
    }
}
