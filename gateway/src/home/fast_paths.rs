//! That a home takes the short way: own publishes are passed on by their answers, pages come from memory, one read
//! serves all, heads are asked when they are due and again when a call failed.

use std::time::Duration;

use sluice_proto::grpc::{self, PublishResult, ReadReply, RoomPage};
use sluice_proto::ids::{Key, SessionId, UserId};

use super::*;
use crate::defaults;
use crate::pushers::Pushers;
use crate::room::limits::RoomLimits;
use crate::room::link::{HandOver, Page, Run};
use crate::subscription::Ask;
use crate::uplink::Link;

mod edges;

const ACTIVE: Need = Need { attached: true, number: 1 };

/// Keeps all that a home sends.
#[derive(Default)]
struct Sent {
    runs: Vec<(ShardId, Vec<Seq>)>,
    hand_overs: usize,
    answers: Vec<Outcome>,
    pages: Vec<(ShardId, Option<Vec<Seq>>)>,
    oldest: Vec<Seq>,
    calls: Vec<HomeCall>,
    announced: usize,
    full: bool,
    conflicts: Vec<Conflict>,
}

impl HomeOutput for Sent {
    fn run(&mut self, shard: ShardId, _: &RoomId, run: &Run) -> bool {
        self.runs.push((shard, run.frames.iter().map(|frame| frame.seq).collect()));
        true
    }

    fn hand_over(&mut self, _: ShardId, _: &RoomId, _: HandOver) -> bool {
        self.hand_overs += usize::from(!self.full);
        !self.full
    }

    fn answer(&mut self, answered: Answered) {
        self.answers.push(answered.outcome);
    }

    fn page(&mut self, to: PageTo, page: Option<Page>) {
        self.oldest.extend(page.as_ref().map(|page| page.oldest));
        self.pages.push((to.shard, page.map(|page| page.frames.iter().map(|frame| frame.seq).collect())));
    }

    fn ask(&mut self, call: HomeCall) {
        self.calls.push(call);
    }

    fn conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    fn announce_all(&mut self) {
        self.announced += 1;
    }

    fn released(&mut self, _: Address) {}
}

impl Sent {
    /// The only call since the last look.
    fn call(&mut self) -> HomeCall {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        self.calls.remove(0)
    }

    fn heads(&mut self) -> RoomsCall {
        let HomeCall::Heads(call) = self.call() else { panic!("no heads were asked") };
        call
    }

    fn read(&mut self) -> ReadCall {
        let HomeCall::Read(call) = self.call() else { panic!("nothing was read") };
        call
    }

    fn publish(&mut self) -> PublishCall {
        let HomeCall::Publish(call) = self.call() else { panic!("nothing was published") };
        call
    }
}

fn room(n: usize) -> RoomId {
    RoomId::parse(&format!("room{n}")).unwrap()
}

fn names(call: &RoomsCall) -> Vec<String> {
    let mut names: Vec<String> = call.rooms().map(ToString::to_string).collect();
    names.sort();
    names
}

/// A home of one shard with so many open rooms, each at head 5, at time 0.
fn opened(rooms: usize) -> (Home, Sent) {
    let (mut home, mut sent) = (Home::new(HomeLimits::for_shards(1), 0, 1, 0), Sent::default());
    for n in 0..rooms {
        home.need(0, 0, &room(n), (ACTIVE, None), &mut sent);
    }
    while let Some(call) = sent.calls.pop() {
        let HomeCall::Subscribe(call) = call else { panic!("{call:?}") };
        let heads = vec![5; call.0.len()];
        let reply = SubscribeReply { epoch: 7, heads, interest_stored: true, ..SubscribeReply::default() };
        home.subscribed(0, call, Some(reply), &mut sent);
    }
    (home, sent)
}

fn publish(n: u64) -> Publish {
    let link = Link::new(SessionId(1), Address { shard: 0, slot: 0, generation: 0 });
    Publish {
        key: Key::mint(link.session, n),
        link,
        room: room(0),
        sender: UserId::parse("ann").unwrap(),
        data: Bytes::from_static(b"1"),
        later: None,
        id: None,
        not_after_ms: 1_000,
        taken_at: None,
        span: sluice_trace::Span::default(),
    }
}

fn reply(results: &[(grpc::Outcome, Seq)]) -> Result<PublishReply, CallFailed> {
    let result = |(outcome, seq): &(grpc::Outcome, Seq)| PublishResult {
        outcome: (*outcome).into(),
        seq: *seq,
        ..PublishResult::default()
    };
    Ok(PublishReply { results: results.iter().map(result).collect(), epoch: 7, delayed: Vec::new() })
}

#[test]
fn an_own_publish_is_passed_on_by_its_answer() {
    let (mut home, mut sent) = opened(1);
    let clock = (Instant::now(), 0);
    home.publish(publish(1), clock, &mut sent);
    assert_eq!((home.pending(), home.queued_bytes(), home.is_busy(0)), (1, 0, true));
    let call = sent.publish();
    home.publish(publish(2), clock, &mut sent);
    home.publish(publish(3), clock, &mut sent);
    assert_eq!((sent.calls.len(), home.pending(), home.queued_bytes()), (0, 3, 2 * publish(2).cost()));
    home.published(&call, reply(&[(grpc::Outcome::Stored, 6)]), 10, clock, &mut sent);
    assert_eq!((sent.runs.clone(), sent.answers.len()), (vec![(0, vec![6])], 1), "without any push");
    let call = sent.publish();
    assert_eq!(call.call.request.items.len(), 2);
    sent.runs.clear();
    home.published(
        &call,
        reply(&[(grpc::Outcome::Stored, 7), (grpc::Outcome::Stored, 8)]),
        11,
        clock,
        &mut sent,
    );
    assert_eq!(sent.runs, [(0, vec![7, 8])], "one run for all of a room");
    assert_eq!((home.pending(), home.is_busy(11)), (0, false));
}

#[test]
fn a_duplicate_only_says_that_there_is_something_to_wait_for() {
    let (mut home, mut sent) = opened(1);
    let clock = (Instant::now(), 0);
    home.publish(publish(1), clock, &mut sent);
    let call = sent.publish();
    home.published(&call, reply(&[(grpc::Outcome::Duplicate, 6)]), 10, clock, &mut sent);
    assert_eq!((sent.runs.len(), sent.answers.clone()), (0, vec![Outcome::Duplicate { seq: 6 }]));
    home.on_tick(29, clock, &mut sent);
    assert!(sent.calls.is_empty(), "its push may still come");
    home.on_tick(30, clock, &mut sent);
    assert_eq!(sent.read().0[0].after, 5);
}

#[test]
fn a_batch_that_failed_is_sent_again_by_a_tick() {
    let (mut home, mut sent) = opened(1);
    let begun = Instant::now();
    home.publish(publish(1), (begun, 0), &mut sent);
    let call = sent.publish();
    home.published(&call, Err(CallFailed::Unknown), 0, (begun, 0), &mut sent);
    let due = begun + HomeLimits::for_shards(1).lane.backoff_min;
    home.on_tick(1, (due - Duration::from_millis(1), 0), &mut sent);
    assert!(sent.calls.is_empty());
    home.on_tick(2, (due, 0), &mut sent);
    assert_eq!(sent.publish().call.number, 2);
    home.give_up(&mut sent);
    assert_eq!((sent.answers.clone(), home.pending()), (vec![Outcome::Unknown], 0));
}

#[test]
fn heads_of_active_rooms_are_asked_each_second_and_of_quiet_ones_in_turn() {
    let (mut home, mut sent) = opened(60);
    let clock = (Instant::now(), 0);
    home.on_tick(999, clock, &mut sent);
    assert!(sent.calls.is_empty() && home.heads_pass.is_none());
    home.on_tick(1_000, clock, &mut sent);
    let call = sent.heads();
    assert_eq!(call.0.len(), 60, "all are active");
    home.on_tick(2_000, clock, &mut sent);
    assert!(sent.calls.is_empty(), "nothing is asked twice");
    answer_heads(&mut home, 2_000, call, &mut sent);
    // Much later nobody is active but one: it, and two others each second, every one in its turn.
    let later = 1_000 + defaults::ROOM_ACTIVE_MS;
    home.pushed(
        later,
        (Epoch(7), PusherId::default()),
        &[grpc::RoomRun { room: "room9".into(), last: 5, ..Default::default() }],
        &mut sent,
    );
    let mut asked = Vec::new();
    for second in 1..=30 {
        let now = later + second * 1_000;
        home.on_tick(now, clock, &mut sent);
        let call = sent.heads();
        let these = names(&call);
        assert!(these.contains(&"room9".into()) && these.len() <= 3, "{these:?}");
        asked.extend(these);
        answer_heads(&mut home, now, call, &mut sent);
    }
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 60, "all within the period");
}

fn answer_heads(home: &mut Home, now: Ms, call: RoomsCall, sent: &mut Sent) {
    let heads = vec![5; call.0.len()];
    home.heads(now, call, Some(HeadsReply { epoch: 7, heads, ..HeadsReply::default() }), sent);
}

#[test]
fn a_lost_stream_asks_active_rooms_at_once_and_dropped_pushes_ask_all() {
    let (mut home, mut sent) = opened(40);
    let quiet = 10 + defaults::ROOM_ACTIVE_MS;
    home.on_tick(quiet, (Instant::now(), 0), &mut sent);
    let call = sent.heads();
    answer_heads(&mut home, quiet, call, &mut sent);
    home.missed(quiet + 1, false, &mut sent);
    let call = sent.heads();
    assert_eq!(call.0.len(), 2, "a slice of those in which nothing happens");
    answer_heads(&mut home, quiet + 1, call, &mut sent);
    home.missed(quiet + 2, true, &mut sent);
    let call = sent.heads();
    assert_eq!(call.0.len(), 40);
    answer_heads(&mut home, quiet + 2, call, &mut sent);
    assert!(sent.calls.is_empty());
}

#[test]
fn a_question_that_failed_is_asked_again() {
    let (mut home, mut sent) = opened(2);
    home.on_tick(1_000, (Instant::now(), 0), &mut sent);
    let call = sent.heads();
    home.heads(1_100, call, None, &mut sent);
    home.on_tick(2_000, (Instant::now(), 0), &mut sent);
    let call = sent.heads();
    assert_eq!(names(&call), ["room0", "room1"]);
    // An answer of another shape says nothing about any room.
    let odd = HeadsReply { epoch: 7, heads: vec![9], ..HeadsReply::default() };
    home.heads(2_100, call, Some(odd), &mut sent);
    assert_eq!(home.rooms[&room(0)].room.known(), 5);
}

#[test]
fn a_home_without_rooms_asks_too_for_the_epoch() {
    let (mut home, mut sent) = opened(0);
    home.on_tick(1_000, (Instant::now(), 0), &mut sent);
    assert_eq!(sent.heads().0.len(), 0);
    assert!(!home.is_busy(1_000));
}

#[test]
fn lanes_are_shared_by_the_shards_and_full_ones_answer() {
    let limits = HomeLimits::for_shards(3);
    assert_eq!(limits.lane.queue_items_max, 6 * defaults::SHARD_UNANSWERED_ITEMS_MAX);
    assert_eq!(limits.lane.queue_bytes_max, 6 * defaults::SHARD_UNANSWERED_BYTES_MAX);
    let lanes: Vec<usize> = (0..3).map(|me| Home::new(limits.clone(), me, 3, 0).lanes.len()).collect();
    assert_eq!(lanes, [6, 5, 5]);
    let mut limits = HomeLimits::for_shards(1);
    limits.lane.queue_items_max = 1;
    let (mut home, mut sent) = (Home::new(limits, 0, 1, 0), Sent::default());
    for n in 1..=3 {
        home.publish(publish(n), (Instant::now(), 0), &mut sent);
    }
    assert_eq!(sent.answers, [Outcome::NotSent]);
}

fn to(shard: ShardId, sub: u32, after: Seq, shared: bool) -> PageTo {
    let ask = Ask { sub, conn: 0, number: u64::from(sub), epoch: Epoch(7), after, shared };
    PageTo { shard, room: room(0), ask }
}

fn page_reply(oldest: Seq, seqs: std::ops::RangeInclusive<Seq>) -> ReadReply {
    let head = *seqs.end();
    let message = |seq| Message { seq, sender: "ann".into(), data: "1".into(), ..Message::default() };
    let page = RoomPage { oldest, head, messages: seqs.map(message).collect(), ..RoomPage::default() };
    ReadReply { epoch: 7, pages: vec![page] }
}

#[test]
fn a_page_in_memory_is_given_at_once() {
    let (mut home, mut sent) = opened(1);
    let messages = (6..=8).map(|seq| Message { seq, data: "1".into(), ..Message::default() }).collect();
    let run = grpc::RoomRun { room: "room0".into(), first: 6, last: 8, messages, ..Default::default() };
    home.pushed(0, (Epoch(7), PusherId::default()), &[run], &mut sent);
    home.wants_page(0, to(0, 1, 6, false), &mut sent);
    assert_eq!((sent.pages.clone(), sent.calls.len()), (vec![(0, Some(vec![7, 8]))], 0));
    home.wants_page(0, to(0, 1, 2, false), &mut sent);
    assert_eq!(sent.read().0[0].after, 2);
}

#[test]
fn one_read_serves_all_who_ask_for_a_page_and_a_failure_is_told_to_all() {
    let (mut home, mut sent) = opened(1);
    home.wants_page(0, to(0, 1, 0, true), &mut sent);
    home.wants_page(0, to(0, 2, 0, true), &mut sent);
    let call = sent.read();
    assert_eq!(call.0.len(), 1);
    home.read(1, call, Some(page_reply(1, 1..=5)), &mut sent);
    assert_eq!(sent.pages, [(0, Some(vec![1, 2, 3, 4, 5])), (0, Some(vec![1, 2, 3, 4, 5]))]);
    assert!(sent.calls.is_empty());
    sent.pages.clear();
    home.wants_page(2, to(0, 1, 0, true), &mut sent);
    let call = sent.read();
    home.read(3, call, None, &mut sent);
    assert_eq!(sent.pages, [(0, None)]);
}

#[test]
fn a_deferred_page_is_read_again_and_its_head_is_a_hint() {
    let (mut home, mut sent) = opened(1);
    home.wants_page(0, to(0, 1, 0, false), &mut sent);
    let call = sent.read();
    let mut deferred = page_reply(1, 1..=1);
    deferred.pages[0].deferred = true;
    home.read(1, call, Some(deferred), &mut sent);
    assert!(sent.pages.is_empty());
    let call = sent.read();
    home.read(2, call, Some(page_reply(1, 1..=7)), &mut sent);
    assert_eq!((sent.pages.len(), home.rooms[&room(0)].room.known()), (1, 7));
}

#[test]
fn a_repair_that_finds_much_makes_every_room_announce_itself() {
    let (mut home, mut sent) = opened(1);
    let clock = (Instant::now(), 0);
    let mut now = 0;
    for find in 0..=u64::from(defaults::REPAIR_FINDS_PER_MIN) {
        assert_eq!(sent.announced, 0, "after {find} finds");
        let missing = grpc::RoomRun { room: "room0".into(), last: 6 + find, ..Default::default() };
        home.pushed(now, (Epoch(7), PusherId::default()), &[missing], &mut sent);
        home.on_tick(now + 20, clock, &mut sent);
        let read = sent.calls.iter().position(|call| matches!(call, HomeCall::Read(_)));
        let HomeCall::Read(call) = sent.calls.remove(read.expect("a read")) else { continue };
        home.read(now + 20, call, Some(page_reply(1, 6 + find..=6 + find)), &mut sent);
        // Each find is a second after the last, so that it is one, and answers go on.
        now += 1_001;
        for call in std::mem::take(&mut sent.calls) {
            match call {
                HomeCall::Subscribe(call) => {
                    let heads = vec![6 + find; call.0.len()];
                    let reply = SubscribeReply {
                        epoch: 7,
                        heads,
                        interest_stored: true,
                        ..SubscribeReply::default()
                    };
                    home.subscribed(now, call, Some(reply), &mut sent);
                }
                HomeCall::Heads(call) => {
                    let heads = vec![6 + find; call.0.len()];
                    home.heads(
                        now,
                        call,
                        Some(HeadsReply { epoch: 7, heads, ..HeadsReply::default() }),
                        &mut sent,
                    );
                }
                HomeCall::Publish(_) | HomeCall::Remove(_) | HomeCall::Read(_) => {}
            }
        }
    }
    assert_eq!(sent.announced, 1);
}

#[test]
fn a_room_nobody_wants_is_removed_with_its_interest() {
    let (mut home, mut sent) = opened(1);
    assert_eq!((home.rooms_len(), home.interested(1).count()), (1, 1));
    home.need(10, 0, &room(0), (Need { attached: false, number: 1 }, None), &mut sent);
    let end = 10 + RoomLimits::default().linger_ms;
    assert!(!home.is_busy(end - 101) && home.is_busy(end - 100));
    home.on_tick(end, (Instant::now(), 0), &mut sent);
    let at = sent.calls.iter().position(|call| matches!(call, HomeCall::Remove(_)));
    let HomeCall::Remove(call) = sent.calls.remove(at.expect("a removal")) else { panic!("a removal") };
    assert_eq!(home.interested(1).count(), 0);
    home.removed(end, call, Some(true), &mut sent);
    assert_eq!(home.rooms_len(), 0);
    home.need(end, 0, &room(0), (Need { attached: false, number: 1 }, None), &mut sent);
    assert_eq!(home.rooms_len(), 0, "who leaves opens nothing");
}

#[test]
fn a_message_is_encoded_once_as_a_whole_frame() {
    let message = Message { seq: 6, sender: "ann".into(), key: "k".into(), at_ms: 9, data: "1".into() };
    let text = r#"{"msg":"room0","seq":6,"from":"ann","key":"k","at":9,"data":1}"#;
    let header = [0x81, u8::try_from(text.len()).unwrap()];
    assert_eq!(encode(&room(0), &message), [&header, text.as_bytes()].concat());
}

/// Else it is looked at every 100 ms only, and what is due waits for that.
#[test]
fn a_home_is_busy_while_any_one_thing_is_due() {
    let quiet = || opened(2);
    assert!(!quiet().0.is_busy(0));
    let (mut home, mut sent) = quiet();
    home.publish(publish(1), (Instant::now(), 0), &mut sent);
    assert!(home.is_busy(0), "a publish is without outcome");
    let (mut home, _) = quiet();
    home.repair.alarm(0);
    home.ask_due_heads(0, &mut Sent::default());
    assert!(home.is_busy(0), "rooms are still to be looked at for heads to ask");
    let (mut home, _) = quiet();
    home.announce_below = 1;
    assert!(home.is_busy(0), "a room is still to announce itself");
    let (mut home, mut sent) = quiet();
    home.need(0, 0, &room(0), (Need { attached: false, number: 1 }, None), &mut sent);
    assert!(home.is_busy(RoomLimits::default().linger_ms), "a room is due");
}

#[test]
fn who_pushed_is_named_where_two_versions_meet() {
    let (mut home, mut sent) = opened(1);
    let pushers = Pushers::default();
    let (rogue, task) = (pushers.opened("rogue".into()), pushers.opened("task".into()));
    let run = |data: &'static str| {
        let message = Message { seq: 6, data: data.into(), ..Message::default() };
        grpc::RoomRun {
            room: "room0".into(),
            first: 6,
            last: 6,
            messages: vec![message],
            ..Default::default()
        }
    };
    home.pushed(0, (Epoch(7), rogue), &[run("1")], &mut sent);
    home.pushed(1, (Epoch(7), rogue), &[run("1")], &mut sent);
    assert!(sent.conflicts.is_empty(), "the same twice");
    home.pushed(2, (Epoch(7), task), &[run("2")], &mut sent);
    let [Conflict { room: at, seq: 6, pushers: [before, now] }] = &sent.conflicts[..] else {
        panic!("{:?}", sent.conflicts)
    };
    assert_eq!((at, *before, *now), (&room(0), rogue, task));
}
