//! Time of a shard in steps of 100 ms: what deadlines of connections are counted in.

use std::time::Duration;

use crate::defaults::TICK;

/// Ticks since the shard began.
pub type Tick = u32;

/// No deadline.
pub const NEVER: Tick = Tick::MAX;

/// Whole ticks in a span, at least one.
#[must_use]
pub fn ticks(span: Duration) -> Tick {
    let ticks = span.as_millis().div_ceil(TICK.as_millis().max(1)).max(1);
    Tick::try_from(ticks).unwrap_or(Tick::MAX / 2)
}

/// When a wall time comes, by a wall clock that shows `wall_ms` and goes on evenly; `now` when it has come.
#[must_use]
pub fn tick_of(at_ms: i64, wall_ms: i64, now: Tick) -> Tick {
    let left = at_ms.saturating_sub(wall_ms);
    if left <= 0 { now } else { now.saturating_add(ticks(Duration::from_millis(left.unsigned_abs()))) }
}
