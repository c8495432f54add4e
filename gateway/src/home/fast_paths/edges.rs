//! The edges of a home: the moment until which a room is active, which deadline stands in the heap, and that what rooms
//! ask for and are told goes through unchanged.

use super::*;

const LEFT: Need = Need { attached: false, number: 1 };

fn clock() -> (Instant, i64) {
    (Instant::now(), 0)
}

#[test]
fn each_question_of_a_room_has_a_number_of_its_own() {
    let (mut home, mut sent) = (Home::new(HomeLimits::for_shards(1), 0, 1, 0), Sent::default());
    (0..3).for_each(|n| home.need(0, 0, &room(n), (ACTIVE, None), &mut sent));
    let mut numbers = Vec::new();
    while let Some(call) = sent.calls.pop() {
        let HomeCall::Subscribe(call) = call else { panic!("{call:?}") };
        numbers.extend(call.0.iter().map(|(_, number)| *number));
        home.subscribed(0, call, None, &mut sent);
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_slice_that_tells_of_another_history_opens_its_rooms_anew() {
    let (mut home, mut sent) = opened(1);
    home.on_tick(1_000, clock(), &mut sent);
    let call = sent.heads();
    let reply = HeadsReply { epoch: 8, heads: vec![3], ..HeadsReply::default() };
    home.heads(1_001, call, Some(reply), &mut sent);
    assert!(matches!(sent.call(), HomeCall::Subscribe(_)), "its number is later than the room's epoch");
}

#[test]
fn a_deadline_stands_in_the_heap_once_and_a_nearer_one_before_it() {
    let (mut home, mut sent) = opened(1);
    home.need(10, 0, &room(0), (LEFT, None), &mut sent);
    assert_eq!(home.due.len(), 1);
    (0..3).for_each(|n| home.space(10 + n, &room(0), &mut sent));
    assert_eq!(home.due.len(), 1);
    let missing = grpc::RoomRun { room: "room0".into(), last: 6, ..Default::default() };
    home.pushed(30, (Epoch(7), PusherId::default()), &[missing], &mut sent);
    home.on_tick(30 + RoomLimits::default().hold_min_ms, clock(), &mut sent);
    assert_eq!(sent.read().0[0].after, 5, "although the room lingers for much longer");
}

#[test]
fn a_room_is_active_up_to_its_time_and_no_longer() {
    for (now, asked) in [(defaults::ROOM_ACTIVE_MS - 1, 60), (defaults::ROOM_ACTIVE_MS, 2)] {
        let (mut home, mut sent) = opened(60);
        home.on_tick(now, clock(), &mut sent);
        assert_eq!(sent.heads().0.len(), asked, "after {now} ms");
    }
}

#[test]
fn a_hand_over_that_found_no_space_goes_out_when_there_is_some() {
    let (mut home, mut sent) = opened(1);
    assert_eq!(sent.hand_overs, 1);
    home.need(1, 0, &room(0), (LEFT, None), &mut sent);
    sent.full = true;
    home.need(2, 0, &room(0), (ACTIVE, None), &mut sent);
    sent.full = false;
    home.space(3, &room(0), &mut sent);
    home.space(4, &room(0), &mut sent);
    assert_eq!(sent.hand_overs, 2);
}

#[test]
fn a_page_in_memory_is_given_only_of_the_history_that_is_asked_for() {
    let (mut home, mut sent) = opened(1);
    let message = Message { seq: 6, data: "1".into(), ..Message::default() };
    let run = grpc::RoomRun {
        room: "room0".into(),
        first: 6,
        last: 6,
        messages: vec![message],
        ..Default::default()
    };
    home.pushed(0, (Epoch(7), PusherId::default()), &[run], &mut sent);
    let mut other = to(0, 1, 5, false);
    other.ask.epoch = Epoch(8);
    home.wants_page(0, other, &mut sent);
    assert_eq!((sent.pages.len(), sent.read().0[0].after), (0, 5));
    home.wants_page(0, to(0, 2, 5, false), &mut sent);
    assert_eq!(sent.pages, [(0, Some(vec![6]))]);
    assert_eq!(sent.oldest, [6], "the next of the asker: nothing is gone");
}

#[test]
fn an_own_publish_is_passed_on_as_it_was_stored() {
    let (mut home, mut sent) = opened(1);
    home.publish(publish(1), clock(), &mut sent);
    let call = sent.publish();
    let stored =
        PublishResult { outcome: grpc::Outcome::Stored.into(), seq: 6, at_ms: 9, ..PublishResult::default() };
    home.published(
        &call,
        Ok(PublishReply { results: vec![stored], epoch: 7, delayed: Vec::new() }),
        1,
        clock(),
        &mut sent,
    );
    let key = publish(1).key.as_str().to_owned();
    let message = Message { seq: 6, sender: "ann".into(), key, at_ms: 9, data: "1".into() };
    let (_, mut frames) = home.rooms[&room(0)].room.recent(5, 1).expect("it was passed on");
    assert_eq!(frames.next().map(|frame| frame.bytes.clone()), Some(encode(&room(0), &message)));
}
