//! One client's view of one room, over all its connections. Pure.

use super::progress::SubscriptionProgress;
use crate::history::NONE;

/// Subscriptions of one client to one room.
#[derive(Debug, Default)]
pub(super) struct RoomSubscriptions {
    /// What stands, by lane: the connection, or 0 where the library minds connections.
    pub lanes: Vec<(u32, SubscriptionProgress)>,
    /// Questions without an answer, by lane.
    pub asked: Vec<(u32, AskedPosition)>,
    /// What stood on connections that are closed.
    pub left: Option<SeenPosition>,
}

/// A `sub` that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedPosition {
    pub after: Option<u64>,
    pub epoch: u32,
    pub at_us: u64,
    /// Its step; [`NONE`] when the library sent it unseen.
    pub step: u32,
    /// What the client had seen then.
    pub seen: Option<SeenPosition>,
}

/// How far a client has seen a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenPosition {
    pub epoch: u32,
    pub after: u64,
    /// By its own wish it sees no more.
    pub ended: bool,
    /// When the last subscription of those began.
    pub begun: u32,
    /// The last delivery.
    pub last: u32,
}

impl SeenPosition {
    pub fn of(progress: &SubscriptionProgress) -> Self {
        let SubscriptionProgress { epoch, after, ended, begun, last, .. } = *progress;
        Self { epoch, after, ended, begun, last }
    }

    /// Both together: the later one says which epoch, and whether it has ended.
    fn and(self, other: Self) -> Self {
        let (old, new) = if self.begun < other.begun { (self, other) } else { (other, self) };
        // Two connections of one client: what came on either counts as seen.
        if old.epoch == new.epoch && old.after > new.after {
            return Self { after: old.after, last: old.last, ..new };
        }
        new
    }
}

impl RoomSubscriptions {
    pub fn lane(&mut self, lane: u32) -> Option<&mut SubscriptionProgress> {
        self.lanes.iter_mut().find(|(of, _)| *of == lane).map(|(_, progress)| progress)
    }

    /// Removes what stands on a lane.
    pub fn take(&mut self, lane: u32) -> Option<SubscriptionProgress> {
        let index = self.lanes.iter().position(|(of, _)| *of == lane)?;
        Some(self.lanes.swap_remove(index).1)
    }

    pub fn take_asked(&mut self, lane: u32) -> Option<AskedPosition> {
        let index = self.asked.iter().position(|(of, _)| *of == lane)?;
        Some(self.asked.swap_remove(index).1)
    }

    /// All that was seen so far, on any connection.
    pub fn seen(&self) -> Option<SeenPosition> {
        let lanes = self.lanes.iter().map(|(_, progress)| SeenPosition::of(progress));
        lanes.chain(self.left).reduce(SeenPosition::and)
    }

    /// How far the client has come at the end: by what still stands, else by what stood.
    pub fn reach(&self) -> Option<SeenPosition> {
        let progress =
            self.lanes.iter().map(|(_, progress)| SeenPosition::of(progress)).reduce(SeenPosition::and);
        progress.or(self.left).filter(|seen| !seen.ended)
    }

    /// A connection is gone; what stood on it was this.
    pub fn leave(&mut self, progress: &SubscriptionProgress) {
        let seen = SeenPosition::of(progress);
        self.left = Some(self.left.map_or(seen, |left| left.and(seen)));
    }
}

impl AskedPosition {
    /// What a library asks when it comes back.
    pub fn implied(seen: SeenPosition, at_us: u64) -> Self {
        Self { after: Some(seen.after), epoch: seen.epoch, at_us, step: NONE, seen: Some(seen) }
    }
}
