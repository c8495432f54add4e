//! Bounds and times of the two delivery machines. Defaults with their arithmetic; the gateway's
//! configuration may replace them.

use super::link::Ms;

/// Bounds and times of a room in its home shard.
#[derive(Debug, Clone)]
pub struct RoomLimits {
    /// Messages kept that arrived before their turn. A commit group is ≤ 256 messages: a few inverted groups.
    pub ahead_items: usize,
    /// Their bytes: two pushes of 1 MiB.
    pub ahead_bytes: usize,
    /// Messages kept after passing: what a reader who paused for a second in a busy room misses.
    pub ring_items: usize,
    /// The bytes of these messages.
    pub ring_bytes: usize,
    /// Shortest wait for a missing push before the store is read: above the usual inversion of two tasks.
    pub hold_min_ms: Ms,
    /// Longest such wait.
    pub hold_max_ms: Ms,
    /// A Subscribe, Read, Heads or removal without an answer has failed after this. Above the 2 s
    /// deadline the call itself carries.
    pub call_ms: Ms,
    /// First wait after a failed call; doubled by each further one.
    pub backoff_min_ms: Ms,
    /// Longest such wait.
    pub backoff_max_ms: Ms,
    /// An unattached room is kept this long: a reconnecting crowd finds it open.
    pub linger_ms: Ms,
    /// A room whose repair found something announces its interest again at most this often.
    pub reannounce_ms: Ms,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self {
            ahead_items: 1024,
            ahead_bytes: 2 << 20,
            ring_items: 128,
            ring_bytes: 128 << 10,
            hold_min_ms: 20,
            hold_max_ms: 1_000,
            call_ms: 2_500,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            linger_ms: 5_000,
            reannounce_ms: 1_000,
        }
    }
}

/// Bounds and times of a view and its subscriptions.
#[derive(Debug, Clone)]
pub struct ViewLimits {
    /// Messages kept after a run.
    pub ring_items: usize,
    /// Their bytes (shared with the room's ring of the same messages).
    pub ring_bytes: usize,
    /// Below this many queued bytes a connection takes more of the past.
    pub queue_low: usize,
    /// From this many queued bytes on a connection gets no live message: two frames of the largest
    /// size fit below it, so that low < high leaves room for a page.
    pub queue_high: usize,
    /// A subscriber that was Live and is more messages behind than this is told `skipped`.
    pub max_behind: u64,
    /// A page without an answer is given up after this. Above the 2 s deadline of the read itself.
    pub ask_ms: Ms,
    /// First wait after a failed page; doubled by each further one.
    pub backoff_min_ms: Ms,
    /// Longest such wait.
    pub backoff_max_ms: Ms,
    /// Messages of an aligned page; what one `Read` answers at most.
    pub page_items: u64,
}

impl Default for ViewLimits {
    fn default() -> Self {
        Self {
            ring_items: 128,
            ring_bytes: 128 << 10,
            queue_low: 64 << 10,
            queue_high: 256 << 10,
            max_behind: 100_000,
            ask_ms: 2_500,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            page_items: 256,
        }
    }
}

/// Waiting time after failures, doubled by each.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backoff {
    failures: u8,
    until: Ms,
}

impl Backoff {
    /// One more failure at `now`.
    pub(crate) fn failed(&mut self, now: Ms, (min, max): (Ms, Ms)) {
        self.until = now + min.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures = self.failures.saturating_add(1);
    }

    /// A success: the next failure waits the shortest time again.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Nothing is tried before this.
    pub(crate) fn until(self) -> Ms {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::{QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES};

    #[test]
    fn a_subscription_falls_back_and_catches_up_where_its_socket_is_stopped_and_read() {
        let view = ViewLimits::default();
        assert_eq!((view.queue_low, view.queue_high), (QUEUE_LOW_BYTES, QUEUE_HIGH_BYTES));
        let room = RoomLimits::default();
        assert_eq!(
            (view.ring_items, view.ring_bytes),
            (room.ring_items, room.ring_bytes),
            "of the same frames"
        );
        assert_eq!((room.ring_bytes, room.ahead_bytes), (131_072, 2_097_152));
    }

    #[test]
    fn a_wait_doubles_with_each_failure_up_to_the_longest_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let mut failed = || {
            backoff.failed(1_000, (50, 300));
            backoff.until() - 1_000
        };
        assert_eq!([failed(), failed(), failed(), failed()], [50, 100, 200, 300]);
        assert!((0..1_000).all(|_| failed() == 300), "however many");
        backoff.succeeded();
        assert_eq!(backoff.until(), 0);
        backoff.failed(0, (50, 300));
        assert_eq!(backoff.until(), 50);
    }
}
