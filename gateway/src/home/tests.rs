//! What a home does with very many rooms: every part of it in turns of bounded size.

use std::time::Instant;

use super::*;

/// Keeps the calls a home makes.
#[derive(Default)]
struct Calls(Vec<HomeCall>);

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

    fn announce_all(&mut self) {}
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
        home.need(0, 0, &room(n), Need { attached: true, number: 1 }, &mut calls);
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
        home.need(10, 0, &room(n), Need { attached: false, number: 1 }, &mut calls);
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
