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
