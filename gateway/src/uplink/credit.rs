//! How much of each lane a shard may have under way. A shard that has used up its share of a lane keeps
//! the publish and stops reading that socket, so a lane never refuses and order never depends on space.
//! Pure.

use sluice_proto::limits::LANES;

/// A shard's share of one lane.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Publishes handed to the lane without outcome.
    pub items: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a shard has under way in all lanes.
#[derive(Debug)]
pub struct Credit {
    share: Share,
    used: [Share; LANES as usize],
}

impl Credit {
    /// Nothing under way.
    #[must_use]
    pub fn new(share: Share) -> Self {
        Self { share, used: [Share { items: 0, bytes: 0 }; LANES as usize] }
    }

    /// Takes space for a publish that costs `bytes`; `false` = wait until an outcome of that lane came.
    pub fn take(&mut self, lane: u8, bytes: usize) -> bool {
        let used = &mut self.used[usize::from(lane)];
        let fits = used.items < self.share.items && used.bytes + bytes <= self.share.bytes;
        let fits = fits || used.items == 0;
        if fits {
            used.items += 1;
            used.bytes += bytes;
        }
        fits
    }

    /// An outcome came for a publish that took `bytes`.
    pub fn give(&mut self, lane: u8, bytes: usize) {
        let used = &mut self.used[usize::from(lane)];
        used.items = used.items.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_given_back() {
        let mut credit = Credit::new(Share { items: 2, bytes: 100 });
        assert!(credit.take(3, 1_000), "a single large one always fits");
        assert!(!credit.take(3, 1));
        assert!(credit.take(4, 60) && !credit.take(4, 60) && credit.take(4, 40) && !credit.take(4, 0));
        credit.give(4, 60);
        assert!(credit.take(4, 60));
    }
}
