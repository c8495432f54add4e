//! A lane without a schedule: when it calls, with what, and what it answers.

use super::*;
use crate::address::Address;
use crate::uplink::{Later, Link};
use bytes::Bytes;
use sluice_proto::grpc::PublishItem;
use sluice_proto::grpc::delayed_item::When;
use sluice_proto::ids::{RoomId, SessionId, UserId};
use sluice_proto::limits::BATCH_BYTES_MAX;

const LIMITS: LaneLimits = LaneLimits {
    queue_items_max: 10,
    queue_bytes_max: 1_000_000,
    horizon: Duration::from_secs(10),
    locked_horizon: Duration::from_millis(1_500),
    try_for: Duration::from_secs(2),
    backoff_min: Duration::from_millis(10),
    backoff_max: Duration::from_millis(250),
    scheduled_max: 7,
};

fn publish(link: &std::sync::Arc<Link>, n: u64) -> Publish {
    Publish {
        link: std::sync::Arc::clone(link),
        room: RoomId::parse("news").unwrap(),
        sender: UserId::parse("ann").unwrap(),
        key: Key::mint(link.session, n),
        data: Bytes::from_static(b"1"),
        later: None,
        id: None,
        not_after_ms: 1_000_000,
        taken_at: None,
        span: sluice_trace::Span::default(),
    }
}

fn link() -> std::sync::Arc<Link> {
    Link::new(SessionId(1), Address { shard: 0, slot: 0, generation: 0 })
}

fn replied_with(outcome: grpc::Outcome) -> Result<PublishReply, CallFailed> {
    let result = PublishResult { outcome: outcome.into(), ..PublishResult::default() };
    Ok(PublishReply { results: vec![result], epoch: 1, delayed: Vec::new() })
}

/// A lane with one publish in its first call.
fn calling() -> (Lane, Instant, Vec<Answered>) {
    let (mut lane, now, mut answers) = (Lane::new(LIMITS), Instant::now(), Vec::new());
    lane.push(publish(&link(), 1), &mut answers).unwrap();
    assert_eq!(lane.next(now, 0, &mut answers).unwrap().number, 1);
    (lane, now, answers)
}

#[test]
fn a_locked_room_is_given_up_soon_for_the_others_of_its_lane() {
    let (mut lane, mut now, mut answers) = calling();
    let began = now;
    lane.push(publish(&link(), 2), &mut answers).unwrap();
    for number in 1.. {
        let outcome = grpc::Outcome::NotStored.into();
        let locked = PublishResult { outcome, code: ROOM_LOCKED.into(), ..PublishResult::default() };
        lane.replied(
            number,
            Ok(PublishReply { results: vec![locked], epoch: 1, delayed: Vec::new() }),
            now,
            &mut answers,
        );
        if !answers.is_empty() {
            break;
        }
        now = lane.wake_at().unwrap().max(now + Duration::from_millis(500));
        assert_eq!(lane.next(now, 0, &mut answers).unwrap().number, number + 1);
    }
    assert_eq!((answers.len(), &answers[0].outcome), (1, &Outcome::NotSent));
    assert!(answers[0].publish.link.fenced());
    let waited = now - began;
    assert!(waited >= Duration::from_secs(1) && waited <= LIMITS.locked_horizon, "{waited:?}");
    assert!(lane.next(now, 0, &mut answers).is_some(), "the next batch goes out");
}

#[test]
fn a_refusal_after_an_unknown_try_is_no_final_answer() {
    for (first, told) in [
        (Err(CallFailed::Unknown), Outcome::Unknown),
        (Err(CallFailed::NotSent), Outcome::Refused { code: ErrorCode::BadRequest, message: String::new() }),
    ] {
        let (mut lane, now, mut answers) = calling();
        lane.replied(1, first, now, &mut answers);
        let later = now + LIMITS.backoff_min;
        assert_eq!(lane.next(later, 0, &mut answers).unwrap().number, 2);
        lane.replied(2, replied_with(grpc::Outcome::Refused), later, &mut answers);
        assert_eq!(answers.last().unwrap().outcome, told);
    }
}

#[test]
fn a_late_reply_to_a_former_call_is_dropped() {
    let (mut lane, now, mut answers) = calling();
    lane.replied(1, Err(CallFailed::Unknown), now, &mut answers);
    lane.next(now + LIMITS.backoff_min, 0, &mut answers).unwrap();
    lane.replied(1, replied_with(grpc::Outcome::Stored), now, &mut answers);
    assert!(answers.is_empty() && lane.pending() == 1);
}

#[test]
fn a_batch_is_given_up_together_at_its_horizon_and_sets_the_fence() {
    let (mut lane, now, mut answers) = calling();
    lane.push(publish(&link(), 1), &mut answers).unwrap();
    lane.replied(1, Err(CallFailed::NotSent), now + LIMITS.horizon, &mut answers);
    assert_eq!(answers.last().unwrap().outcome, Outcome::NotSent);
    assert!(answers.last().unwrap().publish.link.fenced());
    assert!(lane.next(now + LIMITS.horizon, 0, &mut answers).is_some(), "the next batch goes out");
}

#[test]
fn what_waited_too_long_is_not_sent() {
    let (mut lane, now, mut answers) = (Lane::new(LIMITS), Instant::now(), Vec::new());
    lane.push(publish(&link(), 1), &mut answers).unwrap();
    assert!(lane.next(now, 2_000_000, &mut answers).is_none());
    assert_eq!(answers.last().unwrap().outcome, Outcome::NotSent);
}

#[test]
fn a_failed_try_is_made_again_when_its_pause_is_over_and_not_before() {
    let (mut lane, mut now, mut answers) = calling();
    assert_eq!(lane.wake_at(), None, "a call is under way");
    assert!(lane.next(now + LIMITS.horizon, 0, &mut answers).is_none());
    for (number, pause) in [10, 20, 40, 80, 160, 250, 250].into_iter().enumerate() {
        lane.replied(number as u64 + 1, Err(CallFailed::Unknown), now, &mut answers);
        let due = now + Duration::from_millis(pause);
        assert_eq!(lane.wake_at(), Some(due));
        assert!(lane.next(due - Duration::from_millis(1), 0, &mut answers).is_none());
        let call = lane.next(due, 0, &mut answers).unwrap();
        assert_eq!(
            (call.number, call.within, call.request.items.len()),
            (number as u64 + 2, LIMITS.try_for, 1)
        );
        now = due;
    }
    lane.replied(8, replied_with(grpc::Outcome::Stored), now, &mut answers);
    assert_eq!((lane.wake_at(), lane.pending(), answers.len()), (None, 0, 1));
}

#[test]
fn the_last_try_ends_with_the_horizon() {
    let (mut lane, now, mut answers) = calling();
    let late = now + LIMITS.horizon - Duration::from_secs(1);
    lane.replied(1, Err(CallFailed::Unknown), late, &mut answers);
    let call = lane.next(late + LIMITS.backoff_min, 0, &mut answers).unwrap();
    assert_eq!(call.within, Duration::from_millis(990));
}

#[test]
fn what_gathers_during_a_call_goes_out_as_one_batch_after_it() {
    let (mut lane, now, mut answers) = calling();
    let link = link();
    for n in 2..=4 {
        lane.push(publish(&link, n), &mut answers).unwrap();
    }
    let cost = publish(&link, 2).cost();
    assert_eq!((lane.pending(), lane.queued_bytes()), (4, 3 * cost));
    assert!(lane.next(now, 0, &mut answers).is_none(), "one at a time");
    lane.replied(1, replied_with(grpc::Outcome::Stored), now, &mut answers);
    let call = lane.next(now, 0, &mut answers).unwrap();
    let keys: Vec<_> = call.request.items.iter().map(|item| item.key.clone()).collect();
    let expected: Vec<_> = (2..=4).map(|n| Key::mint(link.session, n).as_str().to_owned()).collect();
    assert_eq!((keys, lane.pending(), lane.queued_bytes()), (expected, 3, 0));
    assert_eq!(call.request.not_after_ms, 1_000_000);
}

#[test]
fn a_retry_leaves_out_what_has_its_answer() {
    let (mut lane, now, mut answers) = (Lane::new(LIMITS), Instant::now(), Vec::new());
    for n in 1..=3 {
        lane.push(publish(&link(), n), &mut answers).unwrap();
    }
    assert_eq!(lane.next(now, 0, &mut answers).unwrap().request.items.len(), 3);
    let result = |outcome: grpc::Outcome| PublishResult {
        outcome: outcome.into(),
        seq: 9,
        ..PublishResult::default()
    };
    let results =
        [grpc::Outcome::Duplicate, grpc::Outcome::NotStored, grpc::Outcome::Conflict].map(result).into();
    lane.replied(1, Ok(PublishReply { results, epoch: 1, delayed: Vec::new() }), now, &mut answers);
    let outcomes: Vec<_> = answers.iter().map(|answered| answered.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Duplicate { seq: 9 }, Outcome::Conflict]);
    assert!(!answers.iter().any(|answered| answered.publish.link.fenced()));
    let call = lane.next(now + LIMITS.backoff_min, 0, &mut answers).unwrap();
    assert_eq!((call.request.items.len(), lane.pending()), (1, 1));
}

#[test]
fn a_full_lane_gives_a_publish_back() {
    let (mut lane, _, mut answers) = calling();
    for n in 0..10 {
        lane.push(publish(&link(), n), &mut answers).unwrap();
    }
    assert!(lane.push(publish(&link(), 11), &mut answers).is_err());
}

#[test]
fn a_fence_stops_what_waits_and_what_comes() {
    let (mut lane, now, mut answers) = calling();
    let (fenced, open) = (link(), link());
    lane.push(publish(&fenced, 1), &mut answers).unwrap();
    lane.push(publish(&open, 1), &mut answers).unwrap();
    fenced.fence();
    lane.push(publish(&fenced, 2), &mut answers).unwrap();
    assert_eq!((answers.len(), lane.pending()), (1, 3), "the second was answered at once");
    lane.replied(1, replied_with(grpc::Outcome::Stored), now, &mut answers);
    assert_eq!(lane.next(now, 0, &mut answers).unwrap().request.items.len(), 1);
    assert_eq!(answers.iter().filter(|answered| answered.outcome == Outcome::NotSent).count(), 2);
}

#[test]
fn a_lane_given_up_answers_all_and_knows_what_may_be_stored() {
    let (mut lane, now, mut answers) = calling();
    lane.push(publish(&link(), 2), &mut answers).unwrap();
    lane.give_up(&mut answers);
    let outcomes: Vec<_> = answers.iter().map(|answered| answered.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotSent], "the first was under way");
    assert!(answers.iter().all(|answered| answered.publish.link.fenced()));
    assert_eq!((lane.pending(), lane.wake_at()), (0, None));
    lane.push(publish(&link(), 3), &mut answers).unwrap();
    assert_eq!(lane.next(now, 0, &mut answers).unwrap().number, 2, "and goes on");
    // Between two tries nothing is under way: what never reached a logic is certainly not stored.
    lane.replied(2, Err(CallFailed::NotSent), now, &mut answers);
    lane.give_up(&mut answers);
    assert_eq!(answers.last().unwrap().outcome, Outcome::NotSent);
}

/// Sends and stores all that waits: the items of each batch.
fn stored_by(lane: &mut Lane, now: Instant, answers: &mut Vec<Answered>) -> Vec<Vec<PublishItem>> {
    let mut batches = Vec::new();
    while let Some(call) = lane.next(now, 0, answers) {
        let stored = PublishResult { outcome: grpc::Outcome::Stored.into(), ..PublishResult::default() };
        let results = vec![stored; call.request.items.len()];
        lane.replied(call.number, Ok(PublishReply { results, epoch: 1, delayed: Vec::new() }), now, answers);
        batches.push(call.request.items);
    }
    batches
}

/// Who publishes as fast as it is read has hundreds waiting: another's only one goes with the next batch, which is short.
#[test]
fn hundreds_of_one_sender_do_not_stand_before_the_one_of_another() {
    let limits = LaneLimits { queue_items_max: 1_000, ..LIMITS };
    let (mut lane, now, mut answers) = (Lane::new(limits), Instant::now(), Vec::new());
    // Both of one user, as when it comes back and sends again.
    let loud = [link(), link()];
    for n in 0..600 {
        lane.push(publish(&loud[n as usize % 2], n), &mut answers).unwrap();
    }
    let quiet = Publish { sender: UserId::parse("bob").unwrap(), ..publish(&link(), 1_000) };
    lane.push(quiet, &mut answers).unwrap();
    let batches = stored_by(&mut lane, now, &mut answers);
    let of_bob = batches[0].iter().position(|item| item.sender == "bob");
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!((of_bob, &sizes[..]), (Some(1), &[32, 256, 256, 57][..]));
    let keys = batches.iter().flatten().filter(|item| item.sender == "ann").map(|item| item.key.clone());
    let expected = (0..600).map(|n| Key::mint(loud[0].session, n).as_str().to_owned());
    assert!(keys.eq(expected), "what one sends is stored in its order");
    assert_eq!((lane.pending(), lane.queued_bytes()), (0, 0));
}

/// A batch is bounded in bytes; one that is above the bound goes alone.
#[test]
fn a_batch_is_as_long_as_a_call_may_be() {
    let limits = LaneLimits { queue_bytes_max: 16 * BATCH_BYTES_MAX, ..LIMITS };
    let (mut lane, now, mut answers) = (Lane::new(limits), Instant::now(), Vec::new());
    for (n, bytes) in
        [1, BATCH_BYTES_MAX + 1, 1, BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2].into_iter().enumerate()
    {
        let data = vec![b'1'; bytes].into();
        lane.push(Publish { data, ..publish(&link(), n as u64) }, &mut answers).unwrap();
    }
    let sizes: Vec<usize> = stored_by(&mut lane, now, &mut answers).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1, 2, 1]);
}

#[test]
fn a_reply_of_another_shape_says_nothing_about_any_publish() {
    for results in [0, 2] {
        let (mut lane, now, mut answers) = calling();
        let stored = PublishResult { outcome: grpc::Outcome::Stored.into(), ..PublishResult::default() };
        lane.replied(
            1,
            Ok(PublishReply { results: vec![stored; results], epoch: 1, delayed: Vec::new() }),
            now,
            &mut answers,
        );
        let due = Some(now + LIMITS.backoff_min);
        assert_eq!((answers.len(), lane.pending(), lane.wake_at()), (0, 1, due), "{results} results");
        lane.give_up(&mut answers);
        assert_eq!(answers.last().unwrap().outcome, Outcome::Unknown, "it may be stored");
    }
}

#[test]
fn a_retry_is_the_same_request() {
    let (mut lane, now, mut answers) = (Lane::new(LIMITS), Instant::now(), Vec::new());
    lane.push(publish(&link(), 1), &mut answers).unwrap();
    let first = lane.next(now, 0, &mut answers).unwrap().request;
    lane.replied(1, Err(CallFailed::Unknown), now, &mut answers);
    let again = lane.next(now + LIMITS.backoff_min, 0, &mut answers).unwrap().request;
    assert_eq!(again, first, "with its key");
}

#[test]
fn a_publish_counts_its_data_its_names_and_a_fixed_share() {
    let short = publish(&link(), 1);
    let names = "news".len() + "ann".len() + short.key.as_str().len();
    assert_eq!(short.cost(), 64 + names + 1);
    let long = Publish { data: Bytes::from(vec![b'1'; 1_000]), ..short };
    assert_eq!(long.cost(), 64 + names + 1_000);
}

/// Both kinds go in one call, and each hears its own result.
#[test]
fn what_is_for_later_goes_with_what_is_for_now_and_waits_for_a_logic_that_knows_it() {
    let (mut lane, now, mut answers) = (Lane::new(LIMITS), Instant::now(), Vec::new());
    let link = link();
    let asks = [Some(Later::In(5)), None, Some(Later::At(7)), Some(Later::Cancel)];
    for (n, later) in asks.into_iter().enumerate() {
        lane.push(Publish { later: later.map(Box::new), ..publish(&link, n as u64) }, &mut answers).unwrap();
    }
    let call = lane.next(now, 0, &mut answers).unwrap();
    let keys: Vec<_> = call.request.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys, [Key::mint(link.session, 1).as_str()]);
    let whens: Vec<_> = call.request.delayed.iter().map(|item| item.when.unwrap()).collect();
    assert_eq!(whens, [When::DelayMs(5), When::DueMs(7), When::Cancel(true)]);
    assert_eq!(call.request.scheduled_max, LIMITS.scheduled_max, "logic sees to it");

    // One of the version before: what it does not know is tried again, the rest has its outcome.
    lane.replied(1, replied_with(grpc::Outcome::Stored), now, &mut answers);
    assert_eq!(answers.drain(..).map(|answer| answer.outcome).collect::<Vec<_>>(), [stored_at_0()]);
    let later = now + LIMITS.backoff_min;
    let call = lane.next(later, 0, &mut answers).unwrap();
    assert_eq!((call.request.items.len(), call.request.delayed.len()), (0, 3));
    let result = |outcome: grpc::Outcome, due_ms| PublishResult {
        outcome: outcome.into(),
        due_ms,
        ..PublishResult::default()
    };
    let delayed = vec![
        result(grpc::Outcome::Scheduled, 9),
        result(grpc::Outcome::Scheduled, 7),
        result(grpc::Outcome::TooLate, 0),
    ];
    lane.replied(2, Ok(PublishReply { delayed, ..PublishReply::default() }), later, &mut answers);
    let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.outcome).collect();
    let waits = |due_ms| Outcome::Scheduled { due_ms };
    assert_eq!(outcomes, [waits(9), waits(7), Outcome::TooLate]);
    assert!(lane.pending() == 0 && !link.fenced());
}

fn stored_at_0() -> Outcome {
    Outcome::Stored { seq: 0, at_ms: 0 }
}
