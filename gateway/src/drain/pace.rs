//! When each connection is told and closed during a drain, and when its client may come back. Pure
//! arithmetic: no clock, no randomness of its own.

use std::time::Duration;

use sluice_cluster::Headroom;

use crate::defaults::{HEADROOM_SHARE_MIN, RECONNECT_MS_MIN_LAST, RECONNECT_SPREAD_MS_MIN, budget};

/// How one shard's clients leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the first `drain` frame to the last.
    pub notify_within: Duration,
    /// Time for clients to move by themselves before the first close.
    pub close_after: Duration,
    /// From the first close to the last.
    pub close_within: Duration,
    /// Shortest delay before reconnecting, milliseconds.
    pub reconnect_ms_min: u64,
    /// Longest delay before reconnecting, milliseconds.
    pub reconnect_ms_max: u64,
}

/// What a pace depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Connections of the whole gateway.
    pub connections: usize,
    /// Whether another gateway serves.
    pub peers: bool,
    /// Closes per second for the whole gateway.
    pub rate_per_s: u32,
    /// Returns per second of its clients to whoever takes them.
    pub returns_per_s: u32,
    /// Time for `drain` frames.
    pub notify_for: Duration,
    /// Time for clients to move by themselves while peers serve.
    pub move_for: Duration,
    /// Time for closing while peers serve, moving included.
    pub close_for: Duration,
    /// Time for closing without peers.
    pub close_for_last: Duration,
    /// Longest delay before reconnecting, milliseconds.
    pub reconnect_ms_max: u64,
}

impl Situation {
    /// With as much time as the rate needs: the process stays, and no budget ends.
    #[must_use]
    pub fn unhurried(self) -> Self {
        let connections = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let at_rate = Duration::from_secs(1).saturating_mul(connections) / self.rate_per_s.max(1);
        let close_for = self.move_for + at_rate + budget::AFTER_LAST_CLOSE;
        Self { close_for, close_for_last: close_for, ..self }
    }
}

/// What the others can take of the clients that leave; `None`: they did not all say, or have no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpareCapacity {
    /// Connections.
    pub connections: Option<u64>,
    /// New ones a second.
    pub handshakes_per_s: Option<u64>,
}

impl SpareCapacity {
    /// Of all that serve, for one of `leaving` gateways that stop at the same time.
    pub fn of(serving: impl Iterator<Item = Option<Headroom>>, leaving: u64) -> Self {
        let (mut connections, mut handshakes_per_s) = (Some(0_u64), Some(0_u64));
        for headroom in serving {
            let more = |sum: Option<u64>, more: Option<u32>| Some(sum?.saturating_add(more?.into()));
            // Only if all of them say it: who does not may take any number.
            connections = more(connections, headroom.map(|it| it.connections));
            handshakes_per_s = more(handshakes_per_s, headroom.and_then(|it| it.handshakes_per_s));
        }
        let share = |all: u64| all / leaving.max(1);
        Self { connections: connections.map(share), handshakes_per_s: handshakes_per_s.map(share) }
    }
}

/// Closes per second, at most `rate_per_s`, of clients that bring the others no more than `subscriptions_per_s` (0 = any
/// number) to make anew: a return costs one handshake, and one subscription for each room.
#[must_use]
pub fn rate_for_rooms(
    rate_per_s: u32,
    connections: usize,
    subscriptions: usize,
    subscriptions_per_s: u32,
) -> u32 {
    if subscriptions_per_s == 0 || subscriptions == 0 {
        return rate_per_s;
    }
    let clients_per_s = u128::from(subscriptions_per_s) * connections as u128 / subscriptions as u128;
    u32::try_from(clients_per_s).unwrap_or(u32::MAX).min(rate_per_s).max(1)
}

/// Closes per second when the others have this room for `connections` clients: in proportion to their places, no more
/// than they let in, but never so slow that nobody leaves.
#[must_use]
pub fn rate_for(rate_per_s: u32, connections: usize, room: SpareCapacity) -> u32 {
    if connections == 0 {
        return rate_per_s;
    }
    let usual = f64::from(rate_per_s);
    // Said by nobody: as many as will come. To be careful without a reason costs the whole budget.
    let places = room.connections.map_or(1.0, |places| places as f64 / connections as f64);
    let doors = room.handshakes_per_s.map_or(1.0, |per_s| per_s as f64 / usual.max(1.0));
    let share = places.min(doors).clamp(HEADROOM_SHARE_MIN, 1.0);
    // In range: a part of a number that is.
    ((usual * share).ceil() as u32).max(1)
}

/// Returns per second that are told to clients which are closed at `rate_per_s`: no more than are let in where they come,
/// or they would be refused at the time they were told. `sharing`: gateways whose clients all wait for replacements; the
/// stores behind these are the ones there were.
#[must_use]
pub fn returns_per_s(rate_per_s: u32, let_in_per_s: Option<u64>, sharing: u64) -> u32 {
    let share = u64::from(rate_per_s) / sharing.max(1);
    // Not down to a part of the rate only, as closes are: a drain has an end, a return has none.
    let per_s = let_in_per_s.map_or(share, |per_s| per_s.min(share));
    u32::try_from(per_s).unwrap_or(u32::MAX).max(1)
}

impl Pace {
    /// The pace for a situation. The configured rate is kept if the budget allows; the budget wins.
    #[must_use]
    pub fn plan(situation: &Situation) -> Self {
        let connections = u32::try_from(situation.connections).unwrap_or(u32::MAX);
        let at = |per_s: u32| Duration::from_secs(1).saturating_mul(connections) / per_s.max(1);
        let at_rate = at(situation.rate_per_s);
        // Whoever takes them checks a token and subscriptions for each.
        let spread = millis(at(situation.returns_per_s)).max(RECONNECT_SPREAD_MS_MIN);
        let room = if situation.peers { situation.close_for } else { situation.close_for_last };
        // With nobody connected there is nobody to give the time to.
        let close_after =
            if situation.peers && connections > 0 { situation.move_for } else { Duration::ZERO };
        let left = room.saturating_sub(close_after);
        let close_within = at_rate.min(left.saturating_sub(budget::AFTER_LAST_CLOSE.min(left / 2)));
        if situation.peers {
            // They can come back as soon as they are closed.
            Self {
                notify_within: at_rate.min(situation.notify_for / 2),
                close_after,
                close_within,
                reconnect_ms_min: 0,
                reconnect_ms_max: spread.min(situation.reconnect_ms_max.max(RECONNECT_SPREAD_MS_MIN)),
            }
        } else {
            // Nobody is there yet: a moment for the replacement to start once the last of them is closed, then as above.
            let least = RECONNECT_MS_MIN_LAST.saturating_add(millis(close_within));
            let most = situation.reconnect_ms_max.max(least);
            Self {
                notify_within: Duration::ZERO,
                close_after,
                close_within,
                reconnect_ms_min: least,
                reconnect_ms_max: spread.saturating_add(least).min(most),
            }
        }
    }

    /// A client's own delay before reconnecting, from a random number.
    #[must_use]
    pub fn reconnect_ms(&self, random: u64) -> u64 {
        self.reconnect_ms_min + random % (self.reconnect_ms_max - self.reconnect_ms_min + 1)
    }

    /// What is left of the delay that a client was given `since` ago by the same random number. `None`: it is over, or
    /// counts from the close, as nobody is there yet.
    #[must_use]
    pub fn rest_ms(&self, random: u64, since: Duration) -> Option<u64> {
        if self.reconnect_ms_min > 0 {
            return None;
        }
        self.reconnect_ms(random).checked_sub(millis(since)).filter(|rest| *rest > 0)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How many of `total` are due when `elapsed` of `within` has passed: all at the end, at least one at
/// once, never more than all.
#[must_use]
pub fn due(total: usize, elapsed: Duration, within: Duration) -> usize {
    if elapsed >= within {
        return total;
    }
    let share = elapsed.as_nanos().saturating_mul(total as u128) / within.as_nanos().max(1);
    usize::try_from(share).unwrap_or(total).saturating_add(1).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALONE: Situation = Situation {
        connections: 1_000,
        peers: false,
        rate_per_s: 2_500,
        returns_per_s: 2_500,
        notify_for: Duration::from_millis(400),
        move_for: Duration::from_millis(700),
        close_for: Duration::from_millis(2_300),
        close_for_last: Duration::from_millis(1_000),
        reconnect_ms_max: 15_000,
    };

    #[test]
    fn alone_all_are_closed_within_half_a_second_and_spread_by_their_delay() {
        let pace = Pace::plan(&ALONE);
        assert_eq!(pace.notify_within, Duration::ZERO);
        assert_eq!(pace.close_within, Duration::from_millis(400));
        let crowd = Pace::plan(&Situation { connections: 100_000, ..ALONE });
        assert_eq!(crowd.close_within, Duration::from_millis(500), "the budget wins over the rate");
    }

    #[test]
    fn the_fewer_clients_the_sooner_they_may_return() {
        let delays = |connections, peers| {
            let pace = Pace::plan(&Situation { connections, peers, ..ALONE });
            (pace.reconnect_ms_min, pace.reconnect_ms_max)
        };
        for (connections, alone, beside_peers) in [
            (1, (1_000, 1_200), (0, 200)),
            (200, (1_080, 1_280), (0, 200)),
            (10_000, (1_500, 5_500), (0, 4_000)),
            (1_000_000, (1_500, 15_000), (0, 15_000)),
        ] {
            assert_eq!(delays(connections, false), alone, "{connections} clients, alone");
            assert_eq!(delays(connections, true), beside_peers, "{connections} clients, beside peers");
        }
    }

    /// Who comes when it was told to is let in: the span grows with the clients over what is let in a second.
    #[test]
    fn clients_return_no_faster_than_they_are_let_in() {
        for (let_in_per_s, sharing, returns, span_ms) in [
            (None, 1, 2_500, 2_000),
            (Some(20_000), 1, 2_500, 2_000),
            (Some(1_000), 1, 1_000, 5_000),
            (Some(500), 1, 500, 10_000),
            (Some(0), 1, 1, 15_000),
            (None, 2, 1_250, 4_000),
            (Some(20_000), 2, 1_250, 4_000),
        ] {
            let returns_per_s = returns_per_s(2_500, let_in_per_s, sharing);
            assert_eq!(returns_per_s, returns, "{let_in_per_s:?}, {sharing}");
            let beside = Situation { connections: 5_000, peers: true, returns_per_s, ..ALONE };
            assert_eq!(Pace::plan(&beside).reconnect_ms_max, span_ms, "{let_in_per_s:?}, {sharing}");
            assert_eq!(Pace::plan(&beside).close_within, Duration::from_millis(800), "closes do not wait");
        }
    }

    #[test]
    fn who_is_closed_before_its_time_keeps_it() {
        let beside = Pace::plan(&Situation { connections: 10_000, peers: true, ..ALONE });
        assert_eq!(beside.reconnect_ms(3_000), 3_000);
        for (since_ms, rest) in [(0, Some(3_000)), (900, Some(2_100)), (3_000, None), (5_000, None)] {
            assert_eq!(beside.rest_ms(3_000, Duration::from_millis(since_ms)), rest, "after {since_ms} ms");
        }
        let alone = Pace::plan(&Situation { connections: 10_000, ..ALONE });
        assert_eq!(alone.rest_ms(3_000, Duration::ZERO), None, "its replacement comes after the close");
    }

    #[test]
    fn a_stage_that_is_long_enough_keeps_the_rate() {
        let beside = Situation { peers: true, ..ALONE };
        let usual = Pace::plan(&Situation { connections: 2_000, ..beside });
        assert_eq!(usual.close_within, Duration::from_millis(800));
        let close_for = Duration::from_millis(41_500);
        let fleet = Pace::plan(&Situation { connections: 100_000, close_for, ..beside });
        assert_eq!(fleet.close_within, Duration::from_secs(40), "2,500 a second");
        let short = Pace::plan(&Situation { connections: 100_000, ..beside });
        assert_eq!(short.close_within, Duration::from_millis(800), "the budget wins");
    }

    #[test]
    fn without_a_budget_the_rate_is_kept_whatever_the_number() {
        for (connections, peers, seconds) in [(10, true, 0), (100_000, true, 40), (100_000, false, 40)] {
            let pace = Pace::plan(&Situation { connections, peers, ..ALONE }.unhurried());
            let at_rate = Duration::from_secs(1) * u32::try_from(connections).unwrap() / 2_500;
            assert_eq!((pace.close_within, pace.close_within.as_secs()), (at_rate, seconds), "{connections}");
        }
    }

    #[test]
    fn who_is_in_many_rooms_leaves_more_slowly() {
        for (connections, subscriptions, subscriptions_per_s, rate) in [
            (5_000, 5_000, 20_000, 2_500),
            (5_000, 40_000, 20_000, 2_500),
            (5_000, 50_000, 20_000, 2_000),
            (5_000, 5_000_000, 20_000, 20),
            (1, 1_000_000, 20_000, 1),
            (5_000, 5_000_000, 0, 2_500),
            (5_000, 0, 20_000, 2_500),
            (0, 0, 20_000, 2_500),
            (0, 7, 20_000, 1),
        ] {
            let seen = rate_for_rooms(2_500, connections, subscriptions, subscriptions_per_s);
            assert_eq!(seen, rate, "{connections} in {subscriptions} at {subscriptions_per_s}");
        }
    }

    #[test]
    fn room_elsewhere_lowers_the_rate_and_never_stops_it() {
        for (connections, places, handshakes_per_s, rate) in [
            (10_000, None, None, 2_500),
            (10_000, Some(50_000), Some(10_000), 2_500),
            (10_000, Some(5_000), None, 1_250),
            (10_000, Some(0), None, 250),
            (0, Some(0), Some(0), 2_500),
            (10_000, None, Some(1_000), 1_000),
            (10_000, Some(8_000), Some(500), 500),
            (10_000, Some(2_000), Some(2_000), 500),
            (10_000, Some(50_000), Some(0), 250),
        ] {
            let room = SpareCapacity { connections: places, handshakes_per_s };
            assert_eq!(rate_for(2_500, connections, room), rate, "{connections} for {room:?}");
        }
        let full = SpareCapacity { connections: Some(0), handshakes_per_s: Some(0) };
        assert_eq!(rate_for(1, 1_000_000, full), 1);
        assert_eq!(rate_for(u32::MAX, 1, SpareCapacity::default()), u32::MAX);
    }

    #[test]
    fn room_is_what_all_say_together_shared_by_those_who_leave() {
        let says = |connections, handshakes_per_s| Some(Headroom { connections, handshakes_per_s });
        let room = |connections, handshakes_per_s| SpareCapacity { connections, handshakes_per_s };
        let two = [says(300, Some(30)), says(500, Some(10))];
        assert_eq!(SpareCapacity::of(two.into_iter(), 1), room(Some(800), Some(40)));
        assert_eq!(SpareCapacity::of(two.into_iter(), 2), room(Some(400), Some(20)), "two stop at once");
        let old = [says(300, Some(30)), says(500, None)];
        assert_eq!(SpareCapacity::of(old.into_iter(), 1), room(Some(800), None), "one has no such limit");
        assert_eq!(
            SpareCapacity::of([says(1, Some(1)), None].into_iter(), 1),
            SpareCapacity::default(),
            "one says nothing"
        );
    }

    #[test]
    fn an_idle_gateway_does_not_wait() {
        let pace = Pace::plan(&Situation { connections: 0, peers: true, ..ALONE });
        let spans = [pace.notify_within, pace.close_after, pace.close_within];
        assert_eq!(spans, [Duration::ZERO; 3]);
    }

    #[test]
    fn a_delay_may_be_the_shortest_and_the_longest_and_nothing_beyond() {
        let pace = Pace { reconnect_ms_min: 1_000, reconnect_ms_max: 1_200, ..Pace::plan(&ALONE) };
        let delays = [0, 1, 200, 201].map(|random| pace.reconnect_ms(random));
        assert_eq!(delays, [1_000, 1_001, 1_200, 1_000]);
    }

    #[test]
    fn one_is_due_at_once_and_the_others_in_equal_steps() {
        let within = Duration::from_millis(500);
        for (total, ms, expected) in
            [(10, 0, 1), (10, 49, 1), (10, 50, 2), (10, 499, 10), (10, 500, 10), (0, 0, 0), (1, 0, 1)]
        {
            assert_eq!(due(total, Duration::from_millis(ms), within), expected, "{total} after {ms} ms");
        }
        assert_eq!(due(7, Duration::ZERO, Duration::ZERO), 7, "without any time all at once");
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_delays_stay_inside(
            connections in 0..1_000_000_usize, peers: bool, rate_per_s in 1..100_000_u32, random: u64,
        ) {
            let situation = Situation { connections, peers, rate_per_s, ..ALONE };
            let pace = Pace::plan(&situation);
            let room = if peers { situation.close_for } else { situation.close_for_last };
            prop_assert!(pace.close_after + pace.close_within < room);
            prop_assert!(pace.notify_within <= situation.notify_for);
            let delay = pace.reconnect_ms(random);
            prop_assert!((pace.reconnect_ms_min..=pace.reconnect_ms_max).contains(&delay));
            prop_assert!(delay <= situation.reconnect_ms_max);
        }

        #[test]
        fn due_grows_to_all(total in 0..10_000_usize, steps in 1..200_u32) {
            let within = Duration::from_millis(500);
            let mut last = 0;
            for step in 0..=steps {
                let now = due(total, within * step / steps, within);
                prop_assert!(now >= last && now <= total);
                last = now;
            }
            prop_assert_eq!(last, total);
        }
    }
}
