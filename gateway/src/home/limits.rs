//! Bounds and times of a home: those of its rooms, its lanes and its repair together.

use std::sync::Arc;

use crate::defaults;
use crate::repair::RepairTimes;
use crate::room::limits::RoomLimits;
use crate::uplink::lane::LaneLimits;

/// Bounds and times of a home.
#[derive(Debug, Clone)]
pub struct HomeLimits {
    /// Bounds and times of each room.
    pub room: Arc<RoomLimits>,
    /// Bounds and times of each lane.
    pub lane: LaneLimits,
    /// Times of the repair.
    pub repair: RepairTimes,
}

impl HomeLimits {
    /// For each of `shards` shards.
    #[must_use]
    pub fn for_shards(shards: usize) -> Self {
        Self {
            room: Arc::new(RoomLimits::default()),
            lane: LaneLimits {
                // All publishes of all shards may be for one lane, each shard over its bound by one read's worth.
                queue_items_max: shards * 2 * defaults::SHARD_UNANSWERED_ITEMS_MAX,
                queue_bytes_max: shards * 2 * defaults::SHARD_UNANSWERED_BYTES_MAX,
                horizon: defaults::LANE_HORIZON,
                locked_horizon: defaults::LOCKED_HORIZON,
                try_for: defaults::LANE_TRY_FOR,
                backoff_min: defaults::LANE_BACKOFF_MIN,
                backoff_max: defaults::LANE_BACKOFF_MAX,
                scheduled_max: defaults::SCHEDULED_PER_USER,
            },
            repair: RepairTimes {
                every_ms: defaults::REPAIR_EVERY_MS,
                period_ms: defaults::REPAIR_PERIOD_MS,
                active_ms: defaults::ROOM_ACTIVE_MS,
                alarm_ms: defaults::REPAIR_ALARM_MS,
                finds_per_min: defaults::REPAIR_FINDS_PER_MIN,
            },
        }
    }
}
