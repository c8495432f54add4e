//! What a gateway does about a client that reads slowly: all rules, and nothing else. Pure.
//!
//! | Sign | Answer |
//! |---|---|
//! | its queue holds [`QUEUE_HIGH_BYTES`] or more | live subscriptions fall back to catching up; its socket is not read |
//! | its queue is below [`QUEUE_LOW_BYTES`] again | subscriptions take pages again; its socket is read |
//! | a subscription that was live is `max_behind` messages behind | `skipped` up to the head |
//! | bytes are on their way to it | its pong is due later by the time the slowest reader needs for them |
//! | its socket took no byte for `slow_timeout_s` | the queue is given up, `bye` 4002, the end after a second |
//!
//! Nobody else ever waits for it: a run goes on to the next subscriber.

use sluice_proto::ids::Seq;

use crate::defaults::{QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES, READ_BYTES_PER_TICK_MIN};
use crate::tick::{NEVER, Tick};

/// Whether a live subscription of a connection with so many bytes queued gets the next run.
#[must_use]
pub const fn stays_live(queued: usize, high: usize) -> bool {
    queued < high
}

/// Whether subscriptions of a connection with so many bytes queued may take more of the past.
#[must_use]
pub const fn may_catch_up(queued: usize, low: usize) -> bool {
    queued < low
}

/// Whether the socket may be read. Two marks, so that a queue at one of them does not switch it all the time.
#[must_use]
pub const fn may_be_read(paused: bool, queued: usize) -> bool {
    queued < if paused { QUEUE_LOW_BYTES } else { QUEUE_HIGH_BYTES }
}

/// Whether a subscription is told `skipped` up to the head. Only one that was live: a resume may rightly
/// come from days ago.
#[must_use]
pub const fn is_cut_short(was_live: bool, behind: Seq, max_behind: u64) -> bool {
    was_live && behind > max_behind
}

/// When the connection is given up, if its socket takes no byte until then.
#[must_use]
pub const fn gives_up_at(queue_is_empty: bool, progress_at: Tick, timeout: Tick) -> Tick {
    if queue_is_empty { NEVER } else { progress_at.saturating_add(timeout) }
}

/// By when a ping sent at `now` is to be answered: `within`, and the time the slowest reader that is put up
/// with needs for what is on its way to it.
#[must_use]
pub const fn pong_due(now: Tick, within: Tick, unheard: u32) -> Tick {
    now.saturating_add(within).saturating_add(unheard / READ_BYTES_PER_TICK_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_high_mark_and_starts_again_below_the_low_one() {
        assert!(may_be_read(false, QUEUE_HIGH_BYTES - 1) && !may_be_read(false, QUEUE_HIGH_BYTES));
        assert!(may_be_read(true, QUEUE_LOW_BYTES - 1) && !may_be_read(true, QUEUE_LOW_BYTES));
    }

    #[test]
    fn an_empty_queue_is_never_given_up() {
        assert_eq!(gives_up_at(true, 0, 5), NEVER);
        assert_eq!(gives_up_at(false, 7, 5), 12);
    }

    #[test]
    fn only_who_was_live_is_cut_short() {
        assert!(is_cut_short(true, 11, 10) && !is_cut_short(true, 10, 10) && !is_cut_short(false, 11, 10));
    }

    #[test]
    fn a_pong_behind_many_bytes_has_the_time_they_need() {
        assert_eq!(pong_due(10, 100, 0), 110);
        assert_eq!(pong_due(10, 100, 64 * READ_BYTES_PER_TICK_MIN), 174);
    }
}
