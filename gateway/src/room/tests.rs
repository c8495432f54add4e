//! That the fast paths are taken: repair and later turns would make good what a broken one misses, only slower, and
//! no promise would be seen broken.

mod conflict;

use super::*;

mod edges;

const EPOCH: Epoch = Epoch(7);
const OTHER: Epoch = Epoch(8);
/// Every message, whoever brings it.
const MESSAGE: &[u8] = b"0123456789";

/// Keeps what a room sends and asks; queues are full on demand.
#[derive(Default)]
struct Sent {
    calls: CallId,
    actions: Vec<Action>,
    runs: Vec<(ShardId, Vec<Seq>)>,
    /// Without the number of their beginning, which is kept apart.
    hand_overs: Vec<(ShardId, HandOver)>,
    begun: Vec<u64>,
    full: bool,
}

impl RoomOutput for Sent {
    fn number(&mut self) -> CallId {
        self.calls += 1;
        self.calls
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn run(&mut self, shard: ShardId, run: &Run) -> bool {
        if !self.full {
            self.runs.push((shard, run.frames.iter().map(|frame| frame.seq).collect()));
        }
        !self.full
    }

    fn hand_over(&mut self, shard: ShardId, hand_over: HandOver) -> bool {
        if !self.full {
            self.hand_overs.push((shard, HandOver { opened: 0, ..hand_over }));
            self.begun.push(hand_over.opened);
        }
        !self.full
    }
}

impl Sent {
    fn runs(&mut self) -> Vec<(ShardId, Vec<Seq>)> {
        std::mem::take(&mut self.runs)
    }

    fn hand_overs(&mut self) -> Vec<(ShardId, HandOver)> {
        std::mem::take(&mut self.hand_overs)
    }
}

fn limits() -> RoomLimits {
    RoomLimits { ring_items: 4, ..RoomLimits::default() }
}

/// A room with one shard attached that was opened at `head`, at time 0.
fn opened_with(limits: RoomLimits, head: Seq) -> (Room, Sent) {
    let (mut room, mut out) = (Room::new(Arc::new(limits), 2), Sent::default());
    room.need(0, 0, Need { attached: true, number: 1 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 0, &mut out)[..] else { panic!("not subscribed") };
    room.subscribed(0, call, SubscribedRoom { epoch: EPOCH, head, stored: true }, &mut out);
    let told = HandOver { epoch: EPOCH, opened: 0, head, known: head, answered: 1 };
    assert_eq!(out.hand_overs(), [(0, told)]);
    assert_eq!((asked(&mut room, 0, &mut out), room.next_deadline(), room.check()), (vec![], None, Ok(())));
    (room, out)
}

fn opened(head: Seq) -> (Room, Sent) {
    opened_with(limits(), head)
}

/// What was asked for since the last look, all of it sent at `now`.
fn asked(room: &mut Room, now: Ms, out: &mut Sent) -> Vec<Action> {
    let actions = std::mem::take(&mut out.actions);
    for action in &actions {
        match *action {
            Action::Subscribe(call) | Action::Unsubscribe(call) | Action::AskHead(call) => {
                assert!(room.sent(now, call), "{action:?} is wanted");
            }
            Action::Read { call, .. } => assert!(room.sent(now, call), "{action:?} is wanted"),
            Action::Reannounced | Action::Conflict(_) | Action::Forget => {}
        }
    }
    actions
}

fn push(room: &mut Room, now: Ms, seqs: &[Seq], out: &mut Sent) {
    let messages = seqs.iter().map(|seq| (*seq, || Bytes::from_static(MESSAGE)));
    room.push(now, EPOCH, messages, out);
    assert_eq!(room.check(), Ok(()));
}

/// The read among what was asked for.
fn read_of(actions: &[Action]) -> Option<(CallId, Seq)> {
    let read =
        |action: &Action| if let Action::Read { call, after } = *action { Some((call, after)) } else { None };
    actions.iter().find_map(read)
}

fn page(oldest: Seq, store_head: Seq, seqs: std::ops::RangeInclusive<Seq>) -> Page {
    let frames = seqs.map(|seq| Frame::new(seq, Bytes::from_static(MESSAGE)));
    Page { epoch: EPOCH, oldest, store_head, frames: frames.collect() }
}

#[test]
fn what_came_before_its_turn_is_passed_on_without_a_read() {
    let (mut room, mut out) = opened(1);
    push(&mut room, 10, &[3, 5], &mut out);
    assert_eq!((out.runs(), room.head(), room.known()), (vec![], 1, 5));
    push(&mut room, 20, &[2], &mut out);
    assert_eq!(out.runs(), [(0, vec![2, 3])]);
    push(&mut room, 29, &[4], &mut out);
    assert_eq!(out.runs(), [(0, vec![4, 5])], "the stash was not needed from the store");
    room.on_tick(100_000, &mut out);
    assert_eq!(
        (asked(&mut room, 100_000, &mut out), room.next_deadline()),
        (vec![], None),
        "nothing was read"
    );
}

#[test]
fn what_was_passed_on_is_neither_kept_nor_encoded() {
    let (mut room, mut out) = opened(5);
    let never = || -> Bytes { panic!("encoded for nothing") };
    room.push(0, EPOCH, [(5, never), (4, never)], &mut out);
    assert_eq!((out.runs(), room.known()), (vec![], 5));
    push(&mut room, 0, &[7, 7], &mut out);
    assert_eq!(room.ahead.len(), 1);
}

#[test]
fn the_stash_is_bounded_by_messages_and_bytes() {
    let (mut room, mut out) = opened_with(RoomLimits { ahead_items: 3, ..limits() }, 1);
    push(&mut room, 0, &[3, 4, 5, 6], &mut out);
    push(&mut room, 0, &[2], &mut out);
    assert_eq!((out.runs(), room.known()), (vec![(0, vec![2, 3, 4, 5])], 6), "known remembers the fourth");
    let (mut room, mut out) = opened_with(RoomLimits { ahead_bytes: 20, ..limits() }, 1);
    push(&mut room, 0, &[3, 4, 5], &mut out);
    push(&mut room, 0, &[2], &mut out);
    assert_eq!(out.runs(), [(0, vec![2, 3, 4])]);
    // Its bytes were given back.
    push(&mut room, 0, &[6, 7, 8], &mut out);
    push(&mut room, 0, &[5], &mut out);
    assert_eq!(out.runs(), [(0, vec![5, 6, 7])]);
}

#[test]
fn what_came_while_it_opened_is_passed_on_if_it_is_of_that_history() {
    let (mut room, mut out) = (Room::new(Arc::new(limits()), 1), Sent::default());
    push(&mut room, 0, &[1], &mut out);
    room.need(0, 0, Need { attached: true, number: 1 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 0, &mut out)[..] else { panic!("not subscribed") };
    push(&mut room, 1, &[4, 5], &mut out);
    room.push(1, OTHER, [(6, || Bytes::from_static(b"y"))], &mut out);
    room.subscribed(2, call, SubscribedRoom { epoch: EPOCH, head: 3, stored: true }, &mut out);
    assert_eq!((out.runs(), room.head(), room.known()), (vec![(0, vec![4, 5])], 5, 5));
    assert_eq!((asked(&mut room, 2, &mut out), room.next_deadline()), (vec![], None));
}

#[test]
fn a_lost_push_is_read_once_after_the_hold_and_interest_announced_again() {
    let (mut room, mut out) = opened(1);
    let hold = limits().hold_min_ms;
    room.hint(10, EPOCH, 4, &mut out);
    assert_eq!(
        (asked(&mut room, 10, &mut out), room.next_deadline()),
        (vec![], Some(10 + hold)),
        "the push may still come"
    );
    room.on_tick(10 + hold - 1, &mut out);
    assert_eq!(asked(&mut room, 10 + hold - 1, &mut out), []);
    room.on_tick(10 + hold, &mut out);
    let [Action::Read { call, after: 1 }] = asked(&mut room, 10 + hold, &mut out)[..] else {
        panic!("not read")
    };
    assert_eq!(room.next_deadline(), Some(10 + hold + limits().call_ms));
    room.on_tick(50, &mut out);
    assert_eq!(asked(&mut room, 50, &mut out), [], "one read at a time");
    room.page(60, call, &page(1, 4, 2..=3), &mut out);
    assert_eq!(out.runs(), [(0, vec![2, 3])]);
    let actions = asked(&mut room, 60, &mut out);
    assert!(
        matches!(actions[..], [Action::Reannounced, Action::Read { after: 3, .. }, Action::Subscribe(_)]),
        "{actions:?}"
    );
    let Action::Read { call, .. } = actions[1] else { panic!("the rest is read at once") };
    room.page(61, call, &page(1, 4, 4..=4), &mut out);
    assert_eq!((out.runs(), room.head(), asked(&mut room, 61, &mut out)), (vec![(0, vec![4])], 4, vec![]));
}

#[test]
fn interest_is_announced_again_at_most_once_a_second() {
    let (mut room, mut out) = opened(1);
    let mut reannounced = Vec::new();
    for (n, now) in [(2, 1_000), (3, 1_500), (4, 2_100)] {
        room.hint(now, EPOCH, n, &mut out);
        room.on_tick(now + 20, &mut out);
        let (call, _) = read_of(&asked(&mut room, now + 20, &mut out)).expect("a read");
        room.page(now + 20, call, &page(1, n, n..=n), &mut out);
        let actions = asked(&mut room, now + 20, &mut out);
        reannounced.push(actions.contains(&Action::Reannounced));
        for action in actions {
            if let Action::Subscribe(call) = action {
                room.subscribed(
                    now + 21,
                    call,
                    SubscribedRoom { epoch: EPOCH, head: n, stored: true },
                    &mut out,
                );
            }
        }
    }
    assert_eq!(reannounced, [true, false, true]);
}

#[test]
fn a_read_that_failed_waits_longer_each_time_and_not_after_a_success() {
    let (mut room, mut out) = opened(1);
    room.hint(0, EPOCH, 9, &mut out);
    room.on_tick(20, &mut out);
    let mut now = 20;
    for wait in [50, 100, 200] {
        let [Action::Read { call, .. }] = asked(&mut room, 20, &mut out)[..] else { panic!("not read") };
        room.failed(now, call, &mut out);
        assert_eq!((asked(&mut room, now, &mut out), room.next_deadline()), (vec![], Some(now + wait)));
        now += wait;
        room.on_tick(now, &mut out);
    }
    let [Action::Read { call, .. }] = asked(&mut room, now, &mut out)[..] else { panic!("not read") };
    room.page(now, call, &page(1, 9, 2..=8), &mut out);
    let (call, after) = read_of(&asked(&mut room, now, &mut out)).expect("the rest at once");
    assert_eq!(after, 8);
    room.failed(now, call, &mut out);
    assert!(room.next_deadline().is_some_and(|due| due <= now + 50), "the shortest wait again");
}

#[test]
fn a_call_without_an_answer_is_given_up_and_its_late_answer_is_dropped() {
    let (mut room, mut out) = opened(1);
    room.hint(0, EPOCH, 2, &mut out);
    room.on_tick(20, &mut out);
    let [Action::Read { call, .. }] = asked(&mut room, 20, &mut out)[..] else { panic!("not read") };
    let end = 20 + limits().call_ms;
    room.on_tick(end - 1, &mut out);
    assert_eq!(asked(&mut room, end - 1, &mut out), []);
    room.on_tick(end, &mut out);
    room.page(end, call, &page(1, 2, 2..=2), &mut out);
    assert_eq!((out.runs(), room.head()), (vec![], 1));
    room.on_tick(end + 50, &mut out);
    assert!(matches!(asked(&mut room, end + 50, &mut out)[..], [Action::Read { after: 1, .. }]));
}

#[test]
fn what_retention_removed_is_jumped_over_and_handed_over_with_the_stash_behind_it() {
    let (mut room, mut out) = opened(1);
    push(&mut room, 0, &[8, 12], &mut out);
    room.on_tick(20, &mut out);
    let [Action::Read { call, .. }] = asked(&mut room, 20, &mut out)[..] else { panic!("not read") };
    room.page(21, call, &page(8, 9, 8..=9), &mut out);
    let told = HandOver { epoch: EPOCH, opened: 0, head: 7, known: 12, answered: 1 };
    assert_eq!((out.hand_overs(), out.runs()), (vec![(0, told)], vec![(0, vec![8, 9])]));
    assert_eq!(room.check(), Ok(()));
    push(&mut room, 22, &[10, 11], &mut out);
    assert_eq!((out.runs(), room.head()), (vec![(0, vec![10, 11, 12])], 12), "the stash was kept");
}

#[test]
fn a_full_queue_costs_a_hand_over_and_no_run_goes_before_it() {
    let (mut room, mut out) = opened(1);
    out.full = true;
    push(&mut room, 0, &[2], &mut out);
    out.full = false;
    room.space(1, &mut out);
    let told = HandOver { epoch: EPOCH, opened: 0, head: 2, known: 2, answered: 1 };
    assert_eq!((out.hand_overs(), out.runs()), (vec![(0, told)], vec![]));
    push(&mut room, 2, &[3], &mut out);
    assert_eq!((out.hand_overs(), out.runs()), (vec![], vec![(0, vec![3])]));
}

#[test]
fn a_second_shard_is_handed_over_and_gets_runs_and_one_that_left_gets_none() {
    let (mut room, mut out) = opened(1);
    room.need(5, 1, Need { attached: true, number: 0 }, &mut out);
    assert_eq!(
        (asked(&mut room, 5, &mut out), out.hand_overs().len()),
        (vec![], 1),
        "known already: nothing is asked"
    );
    push(&mut room, 6, &[2], &mut out);
    assert_eq!(out.runs(), [(0, vec![2]), (1, vec![2])]);
    room.need(7, 0, Need { attached: false, number: 1 }, &mut out);
    push(&mut room, 8, &[3], &mut out);
    assert_eq!((out.runs(), room.next_deadline()), (vec![(1, vec![3])], None));
}

#[test]
fn a_sub_to_an_open_room_is_answered_by_its_own_subscribe() {
    let (mut room, mut out) = opened(1);
    room.need(5, 0, Need { attached: true, number: 2 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 5, &mut out)[..] else { panic!("not subscribed") };
    room.need(6, 0, Need { attached: true, number: 3 }, &mut out);
    assert_eq!(asked(&mut room, 6, &mut out), [], "one at a time");
    room.subscribed(7, call, SubscribedRoom { epoch: EPOCH, head: 1, stored: true }, &mut out);
    assert_eq!(out.hand_overs().last().map(|(_, told)| told.answered), Some(2), "not the later one");
    assert!(matches!(asked(&mut room, 7, &mut out)[..], [Action::Subscribe(_)]));
}

#[test]
fn a_deserted_room_lingers_then_gives_its_interest_back_and_is_forgotten() {
    let (mut room, mut out) = opened(1);
    room.need(100, 0, Need { attached: false, number: 1 }, &mut out);
    let end = 100 + limits().linger_ms;
    assert_eq!(room.next_deadline(), Some(end));
    room.on_tick(end - 1, &mut out);
    assert!(room.is_open() && room.is_announced() && asked(&mut room, end - 1, &mut out).is_empty());
    room.on_tick(end, &mut out);
    let [Action::Unsubscribe(call)] = asked(&mut room, end, &mut out)[..] else { panic!("interest is kept") };
    assert!(!room.is_open() && !room.is_announced());
    assert_eq!(room.next_deadline(), Some(end + limits().call_ms));
    room.removed(end + 10, call, false, &mut out);
    assert_eq!(
        (asked(&mut room, end + 10, &mut out), room.next_deadline()),
        (vec![], Some(end + 60)),
        "again, later"
    );
    room.on_tick(end + 60, &mut out);
    let [Action::Unsubscribe(call)] = asked(&mut room, end + 60, &mut out)[..] else {
        panic!("not tried again")
    };
    room.removed(end + 61, call, true, &mut out);
    assert_eq!(asked(&mut room, end + 61, &mut out), [Action::Forget]);
}

#[test]
fn who_comes_back_while_it_lingers_finds_it_open() {
    let (mut room, mut out) = opened(1);
    room.need(100, 0, Need { attached: false, number: 1 }, &mut out);
    room.need(200, 0, Need { attached: true, number: 1 }, &mut out);
    assert_eq!((out.hand_overs().len(), room.next_deadline()), (1, None));
    room.on_tick(1_000_000, &mut out);
    assert!(room.is_open() && asked(&mut room, 1_000_000, &mut out).is_empty());
}

#[test]
fn interest_that_could_not_be_stored_is_announced_again_and_no_sub_waits_for_that() {
    let (mut room, mut out) = (Room::new(Arc::new(limits()), 1), Sent::default());
    room.need(0, 0, Need { attached: true, number: 1 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 0, &mut out)[..] else { panic!("not subscribed") };
    let reply = SubscribedRoom { epoch: EPOCH, head: 1, stored: false };
    room.subscribed(0, call, reply, &mut out);
    assert_eq!((asked(&mut room, 0, &mut out), room.next_deadline()), (vec![], Some(50)));
    room.need(10, 0, Need { attached: true, number: 2 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 10, &mut out)[..] else {
        panic!("a new sub waits for nothing")
    };
    room.subscribed(11, call, SubscribedRoom { stored: true, ..reply }, &mut out);
    assert_eq!((asked(&mut room, 11, &mut out), room.next_deadline()), (vec![], None));
}

#[test]
fn another_history_is_asked_for_once_and_then_opened_anew() {
    let (mut room, mut out) = opened(5);
    room.hint(1, OTHER, 3, &mut out);
    room.push(2, OTHER, [(4, || Bytes::from_static(b"y"))], &mut out);
    let [Action::AskHead(call)] = asked(&mut room, 2, &mut out)[..] else {
        panic!("asked more than once, or not")
    };
    assert_eq!(room.next_deadline(), Some(2 + limits().call_ms));
    room.head_is(3, call, OTHER, 4, &mut out);
    assert_eq!((room.epoch(), room.is_open()), (Some(OTHER), false));
    let [Action::Subscribe(call)] = asked(&mut room, 3, &mut out)[..] else { panic!("not subscribed anew") };
    room.subscribed(4, call, SubscribedRoom { epoch: OTHER, head: 4, stored: true }, &mut out);
    let told = HandOver { epoch: OTHER, opened: 0, head: 4, known: 4, answered: 1 };
    assert_eq!((out.hand_overs(), room.is_open()), (vec![(0, told)], true));
}

#[test]
fn the_recent_past_is_given_without_the_store() {
    let (mut room, mut out) = opened(1);
    push(&mut room, 0, &[2, 3, 4, 5, 6], &mut out);
    let recent = |after, limit| {
        let (epoch, frames) = room.recent(after, limit)?;
        Some((epoch, frames.map(|frame| frame.seq).collect::<Vec<_>>()))
    };
    assert_eq!(recent(2, 10), Some((EPOCH, vec![3, 4, 5, 6])));
    assert_eq!(recent(3, 2), Some((EPOCH, vec![4, 5])));
    assert_eq!(recent(1, 10), None, "the ring holds four");
    assert_eq!(recent(6, 10), None);
}

#[test]
fn an_answer_from_before_the_room_took_its_epoch_closes_nothing_and_is_asked_again() {
    let (mut room, mut out) = opened(5);
    let before = 1;
    room.head_is(1, before, OTHER, 9, &mut out);
    let [Action::AskHead(call)] = asked(&mut room, 1, &mut out)[..] else { panic!("the head is not asked") };
    assert_eq!((room.epoch(), room.is_open(), room.known()), (Some(EPOCH), true, 5));
    room.head_is(2, call, EPOCH, 5, &mut out);
    assert_eq!((asked(&mut room, 2, &mut out), room.next_deadline()), (vec![], None));
}

#[test]
fn a_subscribe_from_before_the_room_took_its_epoch_is_believed_only_if_it_names_the_same() {
    for (epoch, believed) in [(EPOCH, false), (OTHER, true)] {
        let (mut room, mut out) = opened(5);
        room.need(1, 0, Need { attached: true, number: 2 }, &mut out);
        let [Action::Subscribe(early)] = asked(&mut room, 1, &mut out)[..] else { panic!("not subscribed") };
        let heads = out.number();
        room.head_is(2, heads, OTHER, 3, &mut out);
        room.subscribed(3, early, SubscribedRoom { epoch, head: 6, stored: true }, &mut out);
        assert_eq!((room.epoch(), room.is_open()), (Some(OTHER), believed));
        let told = HandOver { epoch: OTHER, opened: 0, head: 6, known: 6, answered: 2 };
        assert_eq!(out.hand_overs(), if believed { vec![(0, told)] } else { vec![] });
        let again = (!believed).then(|| 3 + limits().backoff_min_ms);
        assert_eq!((asked(&mut room, 3, &mut out), room.next_deadline()), (vec![], again));
    }
}

#[test]
fn a_later_subscribe_that_names_another_history_opens_the_room_anew() {
    let (mut room, mut out) = opened(5);
    room.announce(1, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 1, &mut out)[..] else { panic!("not announced") };
    room.subscribed(2, call, SubscribedRoom { epoch: OTHER, head: 3, stored: true }, &mut out);
    let told = HandOver { epoch: OTHER, opened: 0, head: 3, known: 3, answered: 1 };
    assert_eq!((out.hand_overs(), asked(&mut room, 2, &mut out)), (vec![(0, told)], vec![]));
}

#[test]
fn an_announcement_is_handed_over_to_nobody_and_what_it_says_of_the_head_is_read() {
    let (mut room, mut out) = opened(5);
    room.need(1, 1, Need { attached: true, number: 0 }, &mut out);
    room.need(2, 0, Need { attached: true, number: 2 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 2, &mut out)[..] else { panic!("not subscribed") };
    // Who asked has left, and who is there did not ask.
    room.need(3, 0, Need { attached: false, number: 2 }, &mut out);
    out.hand_overs();
    room.subscribed(4, call, SubscribedRoom { epoch: EPOCH, head: 7, stored: true }, &mut out);
    assert_eq!((out.hand_overs(), room.head(), room.known()), (vec![], 5, 7));
    let due = 4 + limits().hold_min_ms;
    assert_eq!((asked(&mut room, 4, &mut out), room.next_deadline()), (vec![], Some(due)));
    room.on_tick(due, &mut out);
    assert!(matches!(asked(&mut room, due, &mut out)[..], [Action::Read { after: 5, .. }]));
}

#[test]
fn a_page_that_brings_nothing_is_no_find_and_the_next_read_is_waited_for() {
    let (mut room, mut out) = opened(1);
    room.hint(0, EPOCH, 2, &mut out);
    room.on_tick(20, &mut out);
    let (call, _) = read_of(&asked(&mut room, 20, &mut out)).expect("a read");
    let nothing = Page { frames: Arc::from([]), ..page(1, 2, 2..=2) };
    room.page(21, call, &nothing, &mut out);
    assert_eq!(
        (asked(&mut room, 21, &mut out), room.next_deadline()),
        (vec![], Some(21 + limits().hold_min_ms))
    );
}

#[test]
fn each_broken_invariant_is_named() {
    let stash = |room: &mut Room, seq| {
        assert!(room.ahead.stash((9, 99), EPOCH, seq, || Bytes::from_static(b"x")).is_ok())
    };
    let limits = RoomLimits { ahead_items: 1, ..limits() };
    let (mut room, _) = opened_with(limits.clone(), 5);
    stash(&mut room, 7);
    assert_eq!(room.check(), Ok(()));
    stash(&mut room, 8);
    assert_eq!(room.check(), Err("R4: the stash is too large"));
    let (mut room, _) = opened_with(limits.clone(), 5);
    stash(&mut room, 6);
    assert_eq!(room.check(), Err("R4: a stashed message is due"));
    room.phase = RoomPhase::Opening;
    assert_eq!(room.check(), Ok(()), "the epoch decides later");
    let (mut room, _) = opened_with(limits, 5);
    room.known = 4;
    assert_eq!(room.check(), Err("R1: head beyond known"));
    room.known = 6;
    assert_eq!(room.check(), Ok(()));
    room.ring.push(Frame::new(4, Bytes::new()), (4, 4));
    assert_eq!(room.check(), Err("R3: the ring does not end at the head"));
}
