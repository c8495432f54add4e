//! The edges of a room: the moment at which something is due, the position at which a gap begins, and what may not be
//! under way together.

use super::*;

/// Something that happens to a room.
type Event = fn(&mut Room, &mut Sent);

const LEFT: Need = Need { attached: false, number: 1 };

#[test]
fn whatever_tells_of_another_history_is_dropped_and_the_truth_is_asked_for() {
    let events: [(&str, Event); 3] = [
        ("push", |room, out| room.push(1, OTHER, [(6, || Bytes::from_static(b"y"))], out)),
        ("hint", |room, out| room.hint(1, OTHER, 9, out)),
        ("head", |room, out| room.head_is(1, 1, OTHER, 9, out)),
    ];
    for (what, event) in events {
        let (mut room, mut out) = opened(5);
        event(&mut room, &mut out);
        let asked = asked(&mut room, 1, &mut out);
        assert!(matches!(asked[..], [Action::AskHead(_)]), "{what}: {asked:?}");
        assert_eq!((room.epoch(), room.head(), room.known()), (Some(EPOCH), 5, 5), "{what}");
        assert_eq!(out.runs(), [], "{what}");
    }
}

#[test]
fn an_answer_about_a_head_ends_only_the_question_it_answers() {
    let (mut room, mut out) = opened(5);
    room.hint(1, OTHER, 9, &mut out);
    let [Action::AskHead(call)] = asked(&mut room, 1, &mut out)[..] else { panic!("the head is not asked") };
    let slice = out.number();
    room.head_is(2, slice, EPOCH, 5, &mut out);
    assert_eq!(room.next_deadline(), Some(1 + limits().call_ms), "it was another's");
    room.head_is(3, call, EPOCH, 5, &mut out);
    assert_eq!(room.next_deadline(), None);
}

/// A room at head 1 that reads what is missing up to `known`, at 20 ms.
fn reading(known: Seq) -> (Room, Sent, CallId) {
    let (mut room, mut out) = opened(1);
    room.hint(0, EPOCH, known, &mut out);
    room.on_tick(20, &mut out);
    let (call, _) = read_of(&asked(&mut room, 20, &mut out)).expect("a read");
    (room, out, call)
}

#[test]
fn a_store_that_begins_right_behind_the_head_hides_nothing() {
    let (mut room, mut out, call) = reading(2);
    room.page(21, call, &page(2, 2, 2..=2), &mut out);
    assert_eq!((out.hand_overs(), out.runs()), (vec![], vec![(0, vec![2])]));
}

#[test]
fn a_page_of_another_history_opens_the_room_anew_and_is_not_passed_on() {
    let (mut room, mut out, call) = reading(2);
    room.page(21, call, &Page { epoch: OTHER, ..page(1, 2, 2..=2) }, &mut out);
    assert_eq!((room.epoch(), room.is_open(), out.runs()), (Some(OTHER), false, vec![]));
    assert!(matches!(asked(&mut room, 21, &mut out)[..], [Action::Subscribe(_)]));
}

/// How long the room waits for the message behind its head, missed at `now`.
fn next_wait(room: &mut Room, now: Ms, out: &mut Sent) -> Option<Ms> {
    let missing = room.head() + 1;
    room.hint(now, EPOCH, missing, out);
    room.next_deadline().map(|due| due - now)
}

#[test]
fn a_repair_that_found_all_leaves_the_next_gap_its_wait() {
    let (mut room, mut out, call) = reading(2);
    room.page(21, call, &page(1, 2, 2..=2), &mut out);
    out.actions.clear();
    assert_eq!(next_wait(&mut room, 100, &mut out), Some(limits().hold_min_ms));
    assert_eq!(out.actions, [], "its push may still come");
}

#[test]
fn a_push_that_was_late_makes_the_next_gap_wait_longer() {
    let (mut room, mut out) = opened(1);
    push(&mut room, 10, &[3], &mut out);
    push(&mut room, 25, &[2], &mut out);
    assert_eq!(next_wait(&mut room, 30, &mut out), Some(30), "twice the 15 ms");
    // Also one that comes for what was read meanwhile.
    let (mut room, mut out, call) = reading(2);
    room.page(25, call, &page(1, 2, 2..=2), &mut out);
    push(&mut room, 300, &[2], &mut out);
    assert_eq!(next_wait(&mut room, 300, &mut out), Some(600), "twice the 300 ms since it was missed");
}

#[test]
fn interest_is_not_stored_while_its_removal_is_under_way() {
    let (mut room, mut out) = opened(1);
    let end = limits().linger_ms;
    room.need(0, 0, LEFT, &mut out);
    room.on_tick(end, &mut out);
    let [Action::Unsubscribe(call)] = asked(&mut room, end, &mut out)[..] else { panic!("interest is kept") };
    room.need(end + 1, 0, Need { attached: true, number: 2 }, &mut out);
    assert_eq!(asked(&mut room, end + 1, &mut out), []);
    room.removed(end + 2, call, true, &mut out);
    assert!(matches!(asked(&mut room, end + 2, &mut out)[..], [Action::Subscribe(_)]));
}

#[test]
fn a_room_does_not_close_while_its_interest_is_being_stored() {
    let (mut room, mut out) = opened_with(RoomLimits { linger_ms: 100, ..limits() }, 1);
    room.announce(10, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 10, &mut out)[..] else { panic!("not announced") };
    room.need(20, 0, LEFT, &mut out);
    room.on_tick(120, &mut out);
    assert_eq!((asked(&mut room, 120, &mut out), room.is_open()), (vec![], true));
    assert_eq!(room.next_deadline(), Some(10 + limits().call_ms), "of the call, as nothing else is due");
    room.subscribed(130, call, SubscribedRoom { epoch: EPOCH, head: 1, stored: true }, &mut out);
    assert!(matches!(asked(&mut room, 130, &mut out)[..], [Action::Unsubscribe(_)]));
}

#[test]
fn a_room_that_lingers_announces_nothing_until_somebody_comes_back() {
    let (mut room, mut out) = opened(1);
    room.need(0, 0, LEFT, &mut out);
    room.announce(10, &mut out);
    let end = Some(limits().linger_ms);
    assert_eq!((asked(&mut room, 10, &mut out), room.next_deadline()), (vec![], end));
    room.need(20, 0, Need { attached: true, number: 1 }, &mut out);
    assert!(matches!(asked(&mut room, 20, &mut out)[..], [Action::Subscribe(_)]));
}

#[test]
fn a_room_that_never_opened_goes_at_once_and_one_whose_history_changed_lingers() {
    let (mut room, mut out) = (Room::new(Arc::new(limits()), 1), Sent::default());
    room.need(0, 0, Need { attached: true, number: 1 }, &mut out);
    let Some(Action::Subscribe(call)) = out.actions.pop() else { panic!("not subscribed") };
    room.need(1, 0, LEFT, &mut out);
    assert_eq!(out.actions, [Action::Forget]);
    assert!(!room.sent(2, call), "nobody wants it any more");
    let (mut room, mut out) = opened(5);
    let slice = out.number();
    room.head_is(1, slice, OTHER, 3, &mut out);
    room.need(2, 0, LEFT, &mut out);
    assert_eq!(room.next_deadline(), Some(2 + limits().linger_ms));
    assert!(matches!(out.actions[..], [Action::Subscribe(_)]), "and nothing else: {:?}", out.actions);
}

#[test]
fn a_call_is_sent_once_and_only_if_it_was_asked_for() {
    let (mut room, mut out) = opened(1);
    room.hint(0, EPOCH, 2, &mut out);
    room.hint(0, OTHER, 2, &mut out);
    room.on_tick(20, &mut out);
    let [Action::AskHead(head), Action::Read { call: read, .. }] = out.actions[..] else {
        panic!("{:?}", out.actions)
    };
    let never_given = out.number();
    assert!(!room.sent(20, never_given) && room.next_deadline().is_none());
    assert!(room.sent(20, head) && !room.sent(30, head), "twice is once");
    assert_eq!(room.next_deadline(), Some(20 + limits().call_ms));
    room.on_tick(20 + limits().call_ms, &mut out);
    assert!(room.sent(9_000, read), "it waited longer than the other's deadline");
}
