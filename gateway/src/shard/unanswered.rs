//! Publishes of a shard's connections without outcome: above a bound no socket of the shard is read.

use super::Shard;
use crate::defaults::{SHARD_UNANSWERED_BYTES_MAX, SHARD_UNANSWERED_ITEMS_MAX};

impl Shard {
    /// Too many publishes wait: sockets are not read until half of them have their outcome.
    pub(super) fn check_unanswered_budget(&mut self) {
        self.over_budget |= self.unanswered >= SHARD_UNANSWERED_ITEMS_MAX
            || self.unanswered_bytes >= SHARD_UNANSWERED_BYTES_MAX;
    }

    pub(super) fn resume_reading(&mut self) {
        if !self.over_budget
            || self.unanswered > SHARD_UNANSWERED_ITEMS_MAX / 2
            || self.unanswered_bytes > SHARD_UNANSWERED_BYTES_MAX / 2
        {
            return;
        }
        self.over_budget = false;
        for (_, connection) in &mut self.connections.by_slot {
            connection.resume(false);
        }
    }
}
