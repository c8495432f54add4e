//! What a home does with very many rooms: every part of it in turns of bounded size.

use std::time::Instant;

use super::*;
use crate::defaults;
use crate::room::limits::RoomLimits;
use crate::room::link::{HandOver, Page, Run};

/// Keeps the calls a home makes, and whom it released.
#[derive(Default)]
struct Calls(Vec<HomeCall>, Vec<Address>);

impl HomeOutput for Calls {
    fn run(&mut self, _: ShardId, _: &RoomId, _: &Run) -> bool {
        true
    }

    fn hand_over(&mut self, _: ShardId, _: &RoomId, _: HandOver) -> bool {
        true
    }

    fn answer(&mut self, _: Answered) {}

    fn page(&mut self, _: PageTo, _: Option<Page>) {}

    fn ask(&mut self, call: HomeCall) {
        self.0.push(call);
    }

    fn conflict(&mut self, _: Conflict) {}

    fn announce_all(&mut self) {}

    fn released(&mut self, who: Address) {
        self.1.push(who);
    }
}

const ROOMS: usize = 10 * ROOMS_PER_TURN;

fn room(n: usize) -> RoomId {
    RoomId::parse(&format!("room{n}")).unwrap()
}

/// A home with many open rooms, and the calls that are not answered.
fn crowded() -> (Home, Calls) {
    let mut home = Home::new(HomeLimits::for_shards(1), 0, 1, 0);
    let mut calls = Calls::default();
    for n in 0..ROOMS {
        home.need(0, 0, &room(n), (Need { attached: true, number: 1 }, None), &mut calls);
    }
    answer_all(&mut home, 1, &mut calls);
    (home, calls)
}

/// Answers until nothing is asked any more; how many rooms were subscribed, and how many heads asked.
fn answer_all(home: &mut Home, now: Ms, calls: &mut Calls) -> (usize, usize) {
    let (mut subscribed, mut heads) = (0, 0);
    while let Some(call) = calls.0.pop() {
        match call {
            HomeCall::Subscribe(call) => {
                let len = call.0.len();
                subscribed += len;
                let reply = SubscribeReply {
                    epoch: 7,
                    heads: vec![0; len],
                    interest_stored: true,
                    ..SubscribeReply::default()
                };
                home.subscribed(now, call, Some(reply), calls);
            }
            HomeCall::Heads(call) => {
                let len = call.0.len();
                heads += len;
                let reply = HeadsReply { epoch: 7, heads: vec![0; len], ..HeadsReply::default() };
                home.heads(now, call, Some(reply), calls);
            }
            HomeCall::Publish(_) | HomeCall::Remove(_) | HomeCall::Read(_) => {}
        }
    }
    (subscribed, heads)
}

#[test]
fn heads_of_very_many_rooms_are_asked_in_parts_and_all_of_them() {
    let (mut home, mut calls) = crowded();
    let now = defaults::REPAIR_EVERY_MS;
    home.on_tick(now, (Instant::now(), 0), &mut calls);
    // One call under way and one that waits: not all rooms at once.
    assert!(home.heads.len() <= ROOMS_PER_CALL_MAX, "{}", home.heads.len());
    let (_, heads) = answer_all(&mut home, now, &mut calls);
    assert_eq!(heads, ROOMS, "every room was active");
}

#[test]
fn very_many_rooms_announce_their_interest_in_parts_and_all_of_them() {
    let (mut home, mut calls) = crowded();
    home.announce_all(2, &mut calls);
    assert!(home.subscribes.len() <= ROOMS_PER_CALL_MAX, "{}", home.subscribes.len());
    let (subscribed, _) = answer_all(&mut home, 2, &mut calls);
    assert_eq!(subscribed, ROOMS);
}

#[test]
fn rooms_that_are_due_together_have_several_turns() {
    let (mut home, mut calls) = crowded();
    for n in 0..ROOMS {
        home.need(10, 0, &room(n), (Need { attached: false, number: 1 }, None), &mut calls);
    }
    calls.0.clear();
    let later = 10 + RoomLimits::default().linger_ms;
    let before = home.due.len();
    assert!(home.on_tick(later, (Instant::now(), 0), &mut calls), "there is more");
    assert!(before - home.due.len() <= ROOMS_PER_TURN);
    let turns = 1 + (1..).take_while(|_| home.on_tick(later, (Instant::now(), 0), &mut calls)).count();
    assert!((9..40).contains(&turns), "{turns}");
    assert_eq!(home.removes.len(), ROOMS - 1, "the first was asked for at once");
}

const fn who(slot: u32) -> Address {
    Address { shard: 0, slot, generation: 1 }
}

fn sub(home: &mut Home, now: Ms, slot: u32, room: &RoomId, calls: &mut Calls) {
    home.need(now, 0, room, (Need { attached: true, number: now + 1 }, Some(who(slot))), calls);
}

fn unsub(home: &mut Home, now: Ms, slot: u32, room: &RoomId, calls: &mut Calls) {
    home.need(now, 0, room, (Need { attached: false, number: now + 1 }, Some(who(slot))), calls);
}

fn empty() -> (Home, Calls) {
    (Home::new(HomeLimits::for_shards(1), 0, 1, 0), Calls::default())
}

/// The rooms of the one call that was made.
fn only_call(calls: &mut Calls) -> RoomsCall {
    assert_eq!(calls.0.len(), 1, "one call under way");
    match calls.0.pop() {
        Some(HomeCall::Subscribe(call) | HomeCall::Remove(call)) => call,
        other => panic!("{other:?}"),
    }
}

fn subscribed(home: &mut Home, now: Ms, call: RoomsCall, calls: &mut Calls) {
    let heads = vec![0; call.0.len()];
    let reply = SubscribeReply { epoch: 7, heads, interest_stored: true, ..SubscribeReply::default() };
    home.subscribed(now, call, Some(reply), calls);
}

#[test]
fn a_thousand_subscriptions_of_one_connection_do_not_stand_before_anothers() {
    let (mut home, mut calls) = empty();
    (0..5 * ROOMS_PER_CALL_MAX).for_each(|n| sub(&mut home, 0, 1, &room(n), &mut calls));
    let quiet = RoomId::parse("quiet").unwrap();
    sub(&mut home, 0, 2, &quiet, &mut calls);
    let first = only_call(&mut calls);
    subscribed(&mut home, 5, first, &mut calls);
    assert!(only_call(&mut calls).rooms().any(|room| *room == quiet), "in the next call");
}

#[test]
fn a_subscription_cancelled_before_it_was_sent_costs_no_call() {
    let (mut home, mut calls) = empty();
    sub(&mut home, 0, 1, &room(0), &mut calls);
    for n in 1..100 {
        sub(&mut home, 0, 1, &room(n), &mut calls);
        unsub(&mut home, 0, 1, &room(n), &mut calls);
    }
    sub(&mut home, 0, 1, &room(100), &mut calls);
    assert_eq!((home.rooms_len(), calls.1.len()), (2, 99), "nothing is kept of them");
    let first = only_call(&mut calls);
    subscribed(&mut home, 5, first, &mut calls);
    assert!(only_call(&mut calls).rooms().eq([&room(100)]));
    assert_eq!(home.removes.len(), 0);
}

/// Counted from the asking, what waits for longer than its deadline is given up and asked again, for ever.
#[test]
fn what_waits_long_is_asked_once() {
    let (mut home, mut calls) = empty();
    let rooms = 3 * ROOMS_PER_CALL_MAX;
    (0..rooms).for_each(|n| sub(&mut home, 0, 1, &room(n), &mut calls));
    let (mut now, mut asked) = (0, 0);
    for _ in 0..4 {
        // Each call takes nearly as long as it may.
        now += CALL_MS;
        home.on_tick(now, (Instant::now(), 0), &mut calls);
        calls.0.retain(|call| matches!(call, HomeCall::Subscribe(_)));
        let call = only_call(&mut calls);
        asked += call.0.len();
        subscribed(&mut home, now, call, &mut calls);
    }
    assert_eq!((asked, home.subscribes.len()), (rooms, 0));
}

const CALL_MS: Ms = 2_000;

#[test]
fn who_leaves_a_room_last_is_released_when_its_interest_is_removed() {
    let (mut home, mut calls) = empty();
    sub(&mut home, 0, 1, &room(0), &mut calls);
    let call = only_call(&mut calls);
    subscribed(&mut home, 1, call, &mut calls);
    unsub(&mut home, 2, 1, &room(0), &mut calls);
    assert!(calls.1.is_empty(), "the room is kept for who comes back");
    sub(&mut home, 3, 2, &room(0), &mut calls);
    assert_eq!(calls.1, [who(1)], "somebody has");
    let call = only_call(&mut calls);
    subscribed(&mut home, 4, call, &mut calls);
    unsub(&mut home, 5, 2, &room(0), &mut calls);
    home.on_tick(5 + RoomLimits::default().linger_ms, (Instant::now(), 0), &mut calls);
    calls.0.retain(|call| matches!(call, HomeCall::Remove(_)));
    let call = only_call(&mut calls);
    assert_eq!(calls.1.len(), 1);
    home.removed(6_000, call, Some(true), &mut calls);
    assert_eq!((calls.1.as_slice(), home.rooms_len()), ([who(1), who(2)].as_slice(), 0));
}

/// A turn that can do nothing is not followed by another at once: the shard would spin until the answer comes.
#[test]
fn a_call_that_is_full_waits_for_its_answer_and_not_for_turns() {
    let (mut home, mut calls) = crowded();
    home.announce_all(2, &mut calls);
    assert!(turns(&mut home, 2, &mut calls) < 100);
    assert_eq!((home.subscribes.len(), home.announce_below > 0), (ROOMS_PER_CALL_MAX, true));
    let (mut home, mut calls) = crowded();
    let now = defaults::REPAIR_EVERY_MS;
    // The first fills the call under way, the second what waits behind it.
    for _ in 0..3 {
        assert!(turns(&mut home, now, &mut calls) < 100);
    }
    assert_eq!((home.heads.len(), home.heads_pass.is_some()), (ROOMS_PER_CALL_MAX, true));
}

/// How many turns say that there is more, at most a hundred.
fn turns(home: &mut Home, now: Ms, calls: &mut Calls) -> usize {
    (0..100).take_while(|_| home.on_tick(now, (Instant::now(), 0), calls)).count()
}

#[test]
fn a_turn_that_left_room_in_a_call_is_followed_by_another_at_once() {
    let (mut home, mut calls) = crowded();
    home.announce_below = ROOMS;
    // The first was sent at once, so that there is room for one more.
    assert!(home.go_on(2, &mut calls));
    assert!(!home.go_on(2, &mut calls), "the call is full");
    assert_eq!(home.announce_below, ROOMS - ROOMS_PER_CALL_MAX - 1);
    // Rooms in which nothing happens: a turn looks at all it may and asks few heads.
    let (mut home, mut calls) = crowded();
    turns(&mut home, 5_000, &mut calls);
    answer_all(&mut home, 5_000, &mut calls);
    let quiet = 2 * defaults::ROOM_ACTIVE_MS;
    assert_eq!(turns(&mut home, quiet, &mut calls), ROOMS / ROOMS_PER_TURN);
    assert!(home.heads_pass.is_none(), "all were looked at");
}
