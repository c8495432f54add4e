//! That the fast paths are taken: a subscriber that reads stays Live, and what is at hand is not asked for.

use bytes::Bytes;
use sluice_trace::Spans;

use super::*;

const EPOCH: Epoch = Epoch(7);
const HIGH: usize = 100;

#[derive(Default)]
struct Queue {
    level: usize,
    frames: usize,
}

impl SubscriberQueue for Queue {
    fn level(&self) -> usize {
        self.level
    }

    fn append(&mut self, _: Epoch, frame: &Frame) {
        self.level += frame.bytes.len();
        self.frames += 1;
    }
}

/// A shard of some connections.
#[derive(Default)]
struct Shard {
    queues: [Queue; 4],
    numbers: u64,
    told: Vec<(ConnKey, SubFrame)>,
    asks: Vec<Ask>,
    needs: Vec<Need>,
    behind: [i32; 4],
}

impl ViewOutput for Shard {
    type Out = Queue;

    fn outbound(&mut self, conn: ConnKey) -> &mut Queue {
        &mut self.queues[conn as usize]
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn tell(&mut self, conn: ConnKey, _: SubKey, told: SubFrame) {
        self.told.push((conn, told));
    }

    fn ask(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    fn need(&mut self, need: Need) {
        self.needs.push(need);
    }

    fn behind(&mut self, conn: ConnKey, began: bool) {
        self.behind[conn as usize] += if began { 1 } else { -1 };
    }
}

fn limits() -> ViewLimits {
    ViewLimits { ring_items: 4, queue_low: 50, queue_high: HIGH, max_behind: 6, ..ViewLimits::default() }
}

/// A view at `head` with a live subscription for each of the first `conns` connections.
fn live(head: Seq, conns: u32) -> (View, Shard, Vec<SubKey>) {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let subs = (0..conns).map(|conn| view.sub(conn, None, None, &mut shard)).collect();
    hand_over(&mut view, 0, head, head, &mut shard);
    assert_eq!((view.live_len(), shard.asks.len()), (conns as usize, 0));
    assert_eq!(shard.behind, [0; 4]);
    shard.told.clear();
    (view, shard, subs)
}

fn hand_over(view: &mut View, now: Ms, head: Seq, known: Seq, shard: &mut Shard) {
    let to = HandOver { epoch: EPOCH, opened: 1, head, known, answered: shard.numbers };
    view.hand_over(now, to, shard);
    assert_eq!(view.check(), Ok(()));
}

fn frames(seqs: std::ops::RangeInclusive<Seq>) -> Arc<[Frame]> {
    seqs.map(|seq| Frame::new(seq, Bytes::from_static(b"0123456789"))).collect()
}

fn run(view: &mut View, now: Ms, seqs: std::ops::RangeInclusive<Seq>, shard: &mut Shard) {
    view.run(now, &Run { epoch: EPOCH, frames: frames(seqs), spans: Spans::default() }, shard);
    assert_eq!(view.check(), Ok(()));
}

fn page(oldest: Seq, store_head: Seq, seqs: std::ops::RangeInclusive<Seq>) -> Page {
    Page { epoch: EPOCH, oldest, store_head, frames: frames(seqs) }
}

fn at(view: &View, sub: SubKey) -> SubscriptionState {
    view.state(sub).expect("a subscription")
}

#[test]
fn who_reads_stays_live_and_asks_for_nothing() {
    let (mut view, mut shard, subs) = live(5, 2);
    for seq in 6..=12 {
        run(&mut view, seq, seq..=seq, &mut shard);
        assert!(subs.iter().all(|sub| at(&view, *sub) == SubscriptionState::Live));
    }
    assert_eq!((shard.queues[0].frames, shard.queues[1].frames), (7, 7));
    assert_eq!((shard.asks.len(), shard.told.len(), shard.behind), (0, 0, [0; 4]));
    assert_eq!((view.head(), view.known(), view.next_deadline()), (12, 12, None));
}

#[test]
fn who_is_slow_falls_back_alone_and_catches_up_from_memory() {
    let (mut view, mut shard, subs) = live(5, 2);
    shard.queues[0].level = HIGH;
    run(&mut view, 1, 6..=7, &mut shard);
    assert_eq!(at(&view, subs[0]), SubscriptionState::CatchingUp { cursor: 5 });
    assert_eq!((at(&view, subs[1]), shard.queues[1].frames), (SubscriptionState::Live, 2));
    assert_eq!(shard.behind, [1, 0, 0, 0]);
    // Not yet below the low mark.
    shard.queues[0].level = 50;
    view.advance(2, subs[0], &mut shard);
    assert_eq!(shard.queues[0].frames, 0);
    shard.queues[0].level = 0;
    view.advance(3, subs[0], &mut shard);
    assert_eq!((at(&view, subs[0]), shard.queues[0].frames), (SubscriptionState::Live, 2));
    assert_eq!((shard.asks.len(), shard.behind), (0, [0; 4]), "nothing was asked of the store");
}

#[test]
fn a_run_moves_nobody_who_waits_for_something_else() {
    let (mut view, mut shard, subs) = live(5, 1);
    shard.queues[0].level = HIGH;
    run(&mut view, 1, 6..=6, &mut shard);
    shard.queues[0].level = 0;
    run(&mut view, 2, 7..=7, &mut shard);
    assert_eq!(at(&view, subs[0]), SubscriptionState::CatchingUp { cursor: 5 }, "its event is its queue");
}

#[test]
fn a_resume_beyond_the_head_is_live_as_soon_as_the_runs_are_there() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(7), Some(EPOCH), &mut shard);
    assert_eq!(at(&view, sub), SubscriptionState::Pending);
    hand_over(&mut view, 0, 5, 7, &mut shard);
    let ok =
        SubFrame::Ok { after: 7, head: 7, epoch: EPOCH, recovered: true, resumed: true, solicited: true };
    assert_eq!(
        (shard.told.clone(), at(&view, sub)),
        (vec![(0, ok)], SubscriptionState::CatchingUp { cursor: 7 })
    );
    run(&mut view, 1, 6..=6, &mut shard);
    assert_eq!(at(&view, sub), SubscriptionState::CatchingUp { cursor: 7 });
    run(&mut view, 2, 7..=7, &mut shard);
    assert_eq!((at(&view, sub), shard.queues[0].frames), (SubscriptionState::Live, 0));
    run(&mut view, 3, 8..=8, &mut shard);
    assert_eq!((shard.queues[0].frames, shard.asks.len()), (1, 0));
}

#[test]
fn a_position_that_cannot_be_is_not_recovered() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    view.sub(0, Some(9), None, &mut shard);
    view.sub(1, Some(3), Some(Epoch(1)), &mut shard);
    hand_over(&mut view, 0, 5, 7, &mut shard);
    let ok =
        SubFrame::Ok { after: 7, head: 7, epoch: EPOCH, recovered: false, resumed: true, solicited: true };
    assert_eq!(shard.told, [(0, ok), (1, ok)]);
}

#[test]
fn the_past_is_read_page_by_page_each_asked_for_once() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(300), None, &mut shard);
    hand_over(&mut view, 10, 305, 305, &mut shard);
    let [ask] = shard.asks[..] else { panic!("asked {:?}", shard.asks) };
    assert_eq!((ask.after, ask.shared, view.next_deadline()), (256, true, Some(10 + limits().ask_ms)));
    run(&mut view, 11, 306..=306, &mut shard);
    view.advance(11, sub, &mut shard);
    assert_eq!(shard.asks.len(), 1, "one at a time");
    view.page(12, sub, ask.number + 1, &page(1, 305, 257..=305), &mut shard);
    assert_eq!(shard.queues[0].frames, 0, "not the page it waits for");
    view.page(13, sub, ask.number, &page(1, 305, 257..=305), &mut shard);
    assert_eq!(at(&view, sub), SubscriptionState::CatchingUp { cursor: 305 }, "its queue is at the low mark");
    shard.queues[0].level = 0;
    view.advance(14, sub, &mut shard);
    assert_eq!(
        (shard.queues[0].frames, at(&view, sub)),
        (6, SubscriptionState::Live),
        "the last from the ring"
    );
    assert_eq!(shard.asks.len(), 1);
}

#[test]
fn a_shared_page_that_brought_nothing_is_followed_by_one_of_its_own() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(300), None, &mut shard);
    hand_over(&mut view, 0, 305, 305, &mut shard);
    let first = shard.asks[0];
    view.page(1, sub, first.number, &page(1, 300, 257..=300), &mut shard);
    let second = shard.asks[1];
    assert_eq!((second.after, second.shared), (300, false), "at once, from its own position");
    let nothing = Page { frames: Arc::default(), ..page(1, 300, 300..=300) };
    view.page(2, sub, second.number, &nothing, &mut shard);
    assert_eq!(shard.asks.len(), 2, "nothing again: it waits");
    view.on_tick(2 + limits().backoff_min_ms, &mut shard);
    assert_eq!(shard.asks.len(), 3);
    let third = shard.asks[2];
    view.page(60, sub, third.number, &page(1, 305, 301..=305), &mut shard);
    assert_eq!((at(&view, sub), shard.queues[0].frames), (SubscriptionState::Live, 5));
}

#[test]
fn a_page_that_fails_or_never_comes_is_asked_for_again_later_each_time() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(1), None, &mut shard);
    hand_over(&mut view, 0, 5, 5, &mut shard);
    view.page_failed(10, sub, shard.asks[0].number, &mut shard);
    assert_eq!((shard.asks.len(), view.next_deadline()), (1, Some(60)));
    view.on_tick(59, &mut shard);
    assert_eq!(shard.asks.len(), 1);
    view.on_tick(60, &mut shard);
    assert_eq!(shard.asks.len(), 2);
    let end = 60 + limits().ask_ms;
    assert_eq!(view.next_deadline(), Some(end));
    view.on_tick(end, &mut shard);
    assert_eq!((shard.asks.len(), view.next_deadline()), (2, Some(end + 100)), "given up, and twice as long");
    view.on_tick(end + 100, &mut shard);
    assert_eq!(shard.asks.len(), 3);
}

#[test]
fn only_who_was_live_is_cut_short_and_it_is_told() {
    let (mut view, mut shard, subs) = live(5, 1);
    shard.queues[0].level = HIGH;
    run(&mut view, 1, 6..=6, &mut shard);
    run(&mut view, 2, 7..=12, &mut shard);
    shard.queues[0].level = 0;
    view.advance(3, subs[0], &mut shard);
    let skipped = SubFrame::Skipped { epoch: EPOCH, from: 6, to: 12 };
    assert_eq!((shard.told.clone(), at(&view, subs[0])), (vec![(0, skipped)], SubscriptionState::Live));
    assert_eq!(shard.asks.len(), 0);
    // Six behind is not more than six.
    let (mut view, mut shard, subs) = live(5, 1);
    shard.queues[0].level = HIGH;
    run(&mut view, 1, 6..=11, &mut shard);
    shard.queues[0].level = 0;
    view.advance(2, subs[0], &mut shard);
    assert_eq!((shard.told.len(), shard.asks.len()), (0, 1));
}

#[test]
fn what_retention_removed_is_told_once_and_the_rest_is_delivered() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(1), None, &mut shard);
    hand_over(&mut view, 0, 5, 5, &mut shard);
    shard.told.clear();
    view.page(1, sub, shard.asks[0].number, &page(4, 5, 4..=5), &mut shard);
    assert_eq!(shard.told, [(0, SubFrame::Skipped { epoch: EPOCH, from: 2, to: 3 })]);
    assert_eq!((shard.queues[0].frames, at(&view, sub)), (2, SubscriptionState::Live));
}

#[test]
fn a_page_stops_at_the_high_mark_and_goes_on_where_it_stopped() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(0), None, &mut shard);
    hand_over(&mut view, 0, 20, 20, &mut shard);
    view.page(1, sub, shard.asks[0].number, &page(1, 20, 1..=20), &mut shard);
    assert_eq!((shard.queues[0].frames, at(&view, sub)), (10, SubscriptionState::CatchingUp { cursor: 10 }));
    shard.queues[0].level = 0;
    view.advance(2, sub, &mut shard);
    assert_eq!((shard.asks.len(), shard.asks[1].shared), (2, true));
    view.page(3, sub, shard.asks[1].number, &page(1, 20, 1..=20), &mut shard);
    assert_eq!((shard.queues[0].frames, at(&view, sub)), (20, SubscriptionState::Live));
}

#[test]
fn a_jump_makes_the_live_read_what_they_miss() {
    let (mut view, mut shard, subs) = live(5, 2);
    hand_over(&mut view, 1, 9, 9, &mut shard);
    assert_eq!(at(&view, subs[0]), SubscriptionState::CatchingUp { cursor: 5 });
    assert_eq!((shard.asks.len(), shard.behind), (2, [1, 1, 0, 0]));
    hand_over(&mut view, 2, 9, 12, &mut shard);
    assert_eq!((view.known(), shard.asks.len()), (12, 2), "a hand-over without a jump asks for nothing");
}

#[test]
fn another_history_is_told_to_all_who_were_answered() {
    let (mut view, mut shard, subs) = live(5, 1);
    shard.queues[0].level = HIGH;
    run(&mut view, 1, 6..=6, &mut shard);
    let late = view.sub(1, None, None, &mut shard);
    let to = HandOver { epoch: Epoch(8), opened: 2, head: 3, known: 4, answered: 0 };
    view.hand_over(2, to, &mut shard);
    let ok = SubFrame::Ok {
        after: 3,
        head: 4,
        epoch: Epoch(8),
        recovered: false,
        resumed: false,
        solicited: false,
    };
    assert_eq!(shard.told, [(0, ok)], "not whoever waits for an answer");
    assert_eq!((at(&view, subs[0]), at(&view, late)), (SubscriptionState::Live, SubscriptionState::Pending));
    assert_eq!(view.epoch(), Some(Epoch(8)));
}

/// What was delivered may not be what the store has: a client that is told so reads again (P6).
#[test]
fn a_room_that_begins_anew_in_the_same_history_is_told_too() {
    let (mut view, mut shard, subs) = live(5, 1);
    let to = HandOver { epoch: EPOCH, opened: 2, head: 5, known: 5, answered: 1 };
    view.hand_over(1, to, &mut shard);
    let ok =
        SubFrame::Ok { after: 5, head: 5, epoch: EPOCH, recovered: false, resumed: false, solicited: false };
    assert_eq!((shard.told.as_slice(), at(&view, subs[0])), ([(0, ok)].as_slice(), SubscriptionState::Live));
    view.hand_over(2, to, &mut shard);
    assert_eq!(shard.told.len(), 1, "once");
}

#[test]
fn who_leaves_leaves_nothing_behind_and_the_last_one_takes_the_room_along() {
    let (mut view, mut shard, subs) = live(5, 3);
    assert!(!view.unsub(subs[0], &mut shard));
    assert_eq!((view.check(), view.live_len(), view.state(subs[0])), (Ok(()), 2, None));
    run(&mut view, 1, 6..=6, &mut shard);
    assert_eq!((shard.queues[0].frames, shard.queues[1].frames, shard.queues[2].frames), (0, 1, 1));
    shard.queues[1].level = HIGH;
    shard.queues[2].level = HIGH;
    run(&mut view, 2, 7..=7, &mut shard);
    assert_eq!(shard.behind, [0, 1, 1, 0]);
    shard.needs.clear();
    assert!(!view.unsub(subs[1], &mut shard) && view.check().is_ok());
    assert_eq!((shard.behind, shard.needs.len()), ([0, 0, 1, 0], 0));
    assert!(view.unsub(subs[2], &mut shard) && view.is_empty());
    assert_eq!(shard.needs, [Need { attached: false, number: 3 }]);
    assert!(view.unsub(subs[2], &mut shard), "twice is once");
    assert_eq!(shard.needs.len(), 1);
}

/// A view at head 5 with one subscription after position 1, which asks for a page, at time 0.
fn asking(known: Seq) -> (View, Shard, SubKey, u64) {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    let sub = view.sub(0, Some(1), None, &mut shard);
    hand_over(&mut view, 0, 5, known, &mut shard);
    shard.told.clear();
    let [ask] = shard.asks[..] else { panic!("asked {:?}", shard.asks) };
    (view, shard, sub, ask.number)
}

#[test]
fn a_run_follows_where_history_and_position_are_the_next() {
    let (view, ..) = live(5, 1);
    for (epoch, seq, follows) in
        [(EPOCH, 6, true), (EPOCH, 5, false), (EPOCH, 7, false), (Epoch(8), 6, false)]
    {
        let run = Run { epoch, frames: frames(seq..=seq), spans: Spans::default() };
        assert_eq!(view.follows(&run), follows, "{seq} of {epoch:?}");
    }
}

#[test]
fn a_run_that_does_not_follow_is_made_good_by_reading_if_it_is_news() {
    for (epoch, seq, news) in [(EPOCH, 9, true), (EPOCH, 6, false), (Epoch(8), 9, false)] {
        let (mut view, mut shard, _) = live(5, 1);
        run(&mut view, 1, 6..=6, &mut shard);
        view.recover_gap(2, &Run { epoch, frames: frames(seq..=seq), spans: Spans::default() }, &mut shard);
        let head = if news { seq } else { 6 };
        assert_eq!((view.head(), view.known(), view.check()), (head, head, Ok(())), "{seq} of {epoch:?}");
        assert_eq!((shard.asks.len(), view.ring.ends().is_none()), (usize::from(news), news));
    }
}

#[test]
fn a_hand_over_at_the_same_head_forgets_nothing() {
    let (mut view, mut shard, _) = live(5, 1);
    run(&mut view, 1, 6..=7, &mut shard);
    view.sub(1, Some(5), None, &mut shard);
    hand_over(&mut view, 2, 7, 7, &mut shard);
    assert_eq!((shard.queues[1].frames, shard.asks.len(), view.live_len()), (2, 0, 2));
}

#[test]
fn a_run_does_not_look_at_who_waits_for_a_back_off() {
    let (mut view, mut shard, _) = live(5, 1);
    let sub = view.sub(1, Some(3), None, &mut shard);
    hand_over(&mut view, 10, 5, 5, &mut shard);
    view.page_failed(10, sub, shard.asks[0].number, &mut shard);
    run(&mut view, 500, 6..=6, &mut shard);
    assert_eq!(shard.asks.len(), 1, "its event is the tick");
    view.on_tick(500, &mut shard);
    assert_eq!(shard.asks.len(), 2);
}

/// A deadline that has passed would be looked at in every turn until there is space.
#[test]
fn a_back_off_that_is_over_is_no_deadline() {
    let (mut view, mut shard, sub, number) = asking(5);
    view.page_failed(10, sub, number, &mut shard);
    shard.queues[0].level = HIGH;
    view.on_tick(10 + limits().backoff_min_ms, &mut shard);
    assert_eq!((shard.asks.len(), view.next_deadline()), (1, None), "its event is its queue");
}

#[test]
fn a_page_moves_nobody_beyond_the_head() {
    let (mut view, mut shard, sub, number) = asking(9);
    view.page(1, sub, number, &page(1, 9, 2..=9), &mut shard);
    assert_eq!((view.head(), shard.queues[0].frames, at(&view, sub)), (5, 4, SubscriptionState::Live));
    run(&mut view, 2, 6..=9, &mut shard);
    assert_eq!((shard.queues[0].frames, shard.asks.len()), (8, 1), "each once");
}

#[test]
fn a_store_that_begins_right_behind_the_cursor_has_nothing_to_be_told_of() {
    let (mut view, mut shard, sub, number) = asking(5);
    view.page(1, sub, number, &page(2, 5, 2..=5), &mut shard);
    assert_eq!((shard.told.len(), shard.queues[0].frames, at(&view, sub)), (0, 4, SubscriptionState::Live));
}

#[test]
fn a_page_that_found_no_space_is_asked_for_again_as_one_that_others_share() {
    let (mut view, mut shard, sub, number) = asking(5);
    shard.queues[0].level = HIGH;
    view.page(1, sub, number, &page(1, 5, 1..=5), &mut shard);
    shard.queues[0].level = 0;
    view.advance(2, sub, &mut shard);
    assert_eq!((shard.asks.len(), shard.asks[1].shared), (2, true), "it has brought something");
}

#[test]
fn a_room_with_one_subscriber_keeps_no_place_in_reserve() {
    let (mut view, mut shard) = (View::new(Arc::new(limits())), Shard::default());
    view.sub(0, None, None, &mut shard);
    assert_eq!((view.places.capacity(), view.waiting.capacity()), (1, 1));
    hand_over(&mut view, 0, 5, 5, &mut shard);
    assert_eq!((view.waiting.capacity(), view.live.capacity()), (0, 1));
}

type Break = fn(&mut View);

#[test]
fn each_broken_invariant_is_named() {
    let broken: [(Break, &str); 4] = [
        (|view| view.live.clear(), "a subscription is lost"),
        (|view| view.live[0].sub += 9, "a subscription is at another place"),
        (|view| view.waiting[0].waits_for = caught_up(7), "S2: CatchingUp at the head"),
        (|view| view.head = 8, "the view's ring does not end at its head"),
    ];
    for (breaks, name) in broken {
        let (mut view, mut shard, _) = live(5, 2);
        shard.queues[0].level = HIGH;
        run(&mut view, 1, 6..=7, &mut shard);
        breaks(&mut view);
        assert_eq!(view.check(), Err(name));
    }
}

fn caught_up(cursor: Seq) -> WaitingFor {
    WaitingFor::CatchingUp(CatchingUp { cursor, ..CatchingUp::default() })
}
