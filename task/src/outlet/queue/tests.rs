//! The breaker by cases, and under any order of events.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

type Ticket = Arc<()>;

fn push(epoch: u64, bytes: usize, ticket: &Ticket) -> NoticePart<Ticket> {
    NoticePart { epoch, runs: vec![vec![0; bytes].into()], ticket: Arc::clone(ticket) }
}

fn open() -> OutletQueue<Ticket> {
    let mut line = OutletQueue::new();
    line.opened();
    line
}

/// How many still wait.
fn waiting(ticket: &Ticket) -> usize {
    Arc::strong_count(ticket) - 1
}

fn sizes(line: &mut OutletQueue<Ticket>) -> Vec<(u64, usize)> {
    std::iter::from_fn(|| line.next())
        .map(|next| match next {
            Next::Resync => (0, 0),
            Next::Batch { id, runs, .. } => (id, runs.len()),
        })
        .collect()
}

#[test]
fn what_gathers_while_batches_are_in_flight_goes_as_one() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    for n in 1..=PUSHES_IN_FLIGHT_MAX {
        assert!(line.offer(push(1, 10, &ticket), now));
        assert_eq!(sizes(&mut line), [(n as u64, 1)]);
    }
    for _ in 0..5 {
        assert!(line.offer(push(1, 10, &ticket), now));
        assert_eq!(line.next(), None);
    }
    assert_eq!(line.acked(2), Some(now), "since when they waited");
    assert_eq!(line.acked(2), None, "once");
    assert_eq!(sizes(&mut line), [(5, 5)]);
    assert_eq!(waiting(&ticket), 2 + 5);
    line.acked(5);
    assert_eq!((waiting(&ticket), line.is_settled(), line.deadline()), (0, true, None));
}

#[test]
fn a_batch_has_one_epoch_and_a_bounded_size() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    for epoch in [1, 1, 2, 1] {
        assert!(line.offer(push(epoch, 10, &ticket), now));
    }
    assert_eq!(sizes(&mut line), [(1, 2), (2, 1), (3, 1)]);
    line.acked(3);
    for _ in 0..3 {
        assert!(line.offer(push(1, PUSH_BYTES_MAX / 2 - FRAMING, &ticket), now));
    }
    assert_eq!(sizes(&mut line), [(4, 2), (5, 1)]);
}

#[test]
fn silence_makes_it_lag_until_all_is_acknowledged() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(1, 1)]);
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(2, 1)]);
    assert_eq!(line.deadline(), Some(now + LAGS_AFTER));
    line.tick(now + LAGS_AFTER - Duration::from_millis(1));
    assert_eq!((line.state(), waiting(&ticket)), (OutletState::Open, 2));
    line.tick(now + LAGS_AFTER);
    assert_eq!((line.state(), waiting(&ticket)), (OutletState::Lagging, 0));
    assert!(!line.offer(push(1, 10, &ticket), now));
    assert_eq!((line.next(), line.deadline(), line.is_settled()), (None, None, true));
    line.acked(1);
    assert_eq!(line.state(), OutletState::Lagging);
    line.acked(2);
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(0, 0), (3, 1)]);
}

#[test]
fn a_full_queue_makes_it_lag() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(1, 1)]);
    while line.offer(push(1, 10, &ticket), now) {}
    assert_eq!((line.state(), waiting(&ticket), line.queued()), (OutletState::Lagging, 0, 0));
}

#[test]
fn with_nothing_on_the_way_it_goes_on_at_once() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    while line.offer(push(1, 10, &ticket), now) {}
    assert_eq!((line.state(), waiting(&ticket)), (OutletState::Open, 0));
    assert_eq!(sizes(&mut line), [(0, 0)]);
}

#[test]
fn the_end_of_a_stream_lets_everybody_go_and_the_next_one_begins_with_resync() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = open();
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(1, 1)]);
    assert!(line.offer(push(1, 10, &ticket), now));
    line.ended();
    assert_eq!((line.state(), waiting(&ticket)), (OutletState::Away, 0));
    assert!(!line.offer(push(1, 10, &ticket), now));
    line.opened();
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!(sizes(&mut line), [(0, 0), (1, 1)]);
}

#[test]
fn an_orderly_life_has_no_resync_and_pushes_wait_for_the_first_attempt() {
    let (now, ticket) = (Instant::now(), Ticket::default());
    let mut line = OutletQueue::new();
    assert!(line.offer(push(1, 10, &ticket), now));
    assert_eq!((line.next(), waiting(&ticket)), (None, 1));
    line.opened();
    assert_eq!(sizes(&mut line), [(1, 1)]);
    line.acked(1);
    line.ended();
    line.opened();
    assert_eq!(line.next(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Offer(usize),
    Send,
    Ack(u64),
    Pass(u64),
    Open,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..PUSH_BYTES_MAX).prop_map(Step::Offer),
        8 => Just(Step::Send),
        4 => (0..6_u64).prop_map(Step::Ack),
        3 => (0..1_500_u64).prop_map(Step::Pass),
        1 => Just(Step::Open),
        1 => Just(Step::End),
    ]
}

proptest! {
    /// Nobody waits longer than [`LAGS_AFTER`], nothing is bounded by luck, and whatever was not acknowledged is
    /// followed by a resync on the next occasion.
    #[test]
    fn nobody_waits_long_and_nothing_is_forgotten(steps in prop::collection::vec(step(), 0..200)) {
        let (mut now, mut line, mut streaming) = (Instant::now(), OutletQueue::new(), false);
        let mut tickets: Vec<(Instant, Ticket)> = Vec::new();
        let (mut sent, mut acked, mut owed) = (0, 0, false);
        for step in steps {
            match step {
                Step::Offer(bytes) => {
                    let ticket = Ticket::default();
                    owed |= !line.offer(push(1, bytes, &ticket), now);
                    tickets.push((now, ticket));
                }
                Step::Send => while let Some(next) = line.next() {
                    prop_assert!(streaming);
                    match next {
                        Next::Resync => owed = false,
                        Next::Batch { id, .. } => {
                            prop_assert!(!owed);
                            sent += 1;
                            prop_assert_eq!(id, sent);
                        }
                    }
                },
                Step::Ack(ahead) if streaming => {
                    acked = (acked + ahead).min(sent);
                    line.acked(acked);
                }
                Step::Ack(_) => {}
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    owed |= line.deadline().is_some_and(|deadline| deadline <= now);
                    line.tick(now);
                }
                Step::Open if !streaming => {
                    line.opened();
                    (streaming, sent, acked) = (true, 0, 0);
                }
                Step::Open => {}
                Step::End => {
                    owed |= line.queued() + line.in_flight() > 0;
                    line.ended();
                    streaming = false;
                }
            }
            tickets.retain(|(_, ticket)| waiting(ticket) > 0);
            prop_assert!(tickets.iter().all(|(since, _)| now.duration_since(*since) < LAGS_AFTER));
            prop_assert!(line.state() != OutletState::Lagging && line.state() != OutletState::Away || tickets.is_empty());
            prop_assert!(line.in_flight() <= PUSHES_IN_FLIGHT_MAX && line.queued() <= OUTLET_ITEMS_MAX + PUSH_ITEMS_MAX);
            prop_assert!(line.state() != OutletState::Lagging || line.in_flight() > 0);
        }
    }
}
