//! Two versions of one position, wherever they meet.

use super::*;

/// Everything but the room's interest begins anew, and those who heard the first version are told so (P6).
fn begins_anew(room: &mut Room, seq: Seq, out: &mut Sent) {
    assert_eq!(
        (out.runs(), room.is_open(), room.epoch(), room.check()),
        (vec![], false, Some(EPOCH), Ok(()))
    );
    let [Action::Conflict(at), Action::Subscribe(call)] = asked(room, 50, out)[..] else {
        panic!("no conflict, or not opened anew")
    };
    assert_eq!(at, seq);
    room.subscribed(51, call, SubscribedRoom { epoch: EPOCH, head: 7, stored: true }, out);
    let told = HandOver { epoch: EPOCH, opened: 0, head: 7, known: 7, answered: 1 };
    assert_eq!((out.hand_overs(), room.recent(5, 9).is_none()), (vec![(0, told)], true));
    let [.., before, now] = out.begun[..] else { panic!("handed over once") };
    assert_ne!(before, now, "another beginning of the same history");
    push(room, 52, &[8], out);
    assert_eq!(out.runs(), [(0, vec![8])]);
}

#[test]
fn two_versions_of_what_was_passed_on_open_the_room_anew() {
    let (mut room, mut out) = opened(5);
    room.push(0, EPOCH, [(6, || Bytes::from_static(b"forged"))], &mut out);
    assert_eq!(out.runs(), [(0, vec![6])], "nobody could tell");
    push(&mut room, 50, &[6, 7], &mut out);
    begins_anew(&mut room, 6, &mut out);
}

#[test]
fn two_versions_of_what_waits_for_its_turn_open_the_room_anew() {
    let (mut room, mut out) = opened(5);
    push(&mut room, 0, &[8], &mut out);
    // What came before it in the same push is not passed on either.
    let forged = [(6, "6"), (8, "forged")];
    room.push(
        50,
        EPOCH,
        forged.map(|(seq, text)| (seq, move || Bytes::from_static(text.as_bytes()))),
        &mut out,
    );
    begins_anew(&mut room, 8, &mut out);
}

#[test]
fn a_page_that_has_another_version_opens_the_room_anew() {
    let (mut room, mut out) = opened(5);
    room.push(0, EPOCH, [(7, || Bytes::from_static(b"forged"))], &mut out);
    room.on_tick(20, &mut out);
    let (call, _) = read_of(&asked(&mut room, 20, &mut out)).expect("a read");
    room.page(50, call, &page(1, 7, 6..=7), &mut out);
    begins_anew(&mut room, 7, &mut out);
    // One that was read for a subscriber, too.
    let (mut room, mut out) = opened(5);
    push(&mut room, 0, &[6], &mut out);
    out.runs();
    room.seen(10, &page(1, 6, 3..=6), &mut out);
    assert!(room.is_open() && asked(&mut room, 10, &mut out).is_empty());
    let other =
        Page { frames: Arc::from([Frame::new(6, Bytes::from_static(b"other"))]), ..page(1, 7, 6..=6) };
    room.seen(50, &other, &mut out);
    begins_anew(&mut room, 6, &mut out);
}

#[test]
fn two_versions_while_it_opens_are_both_forgotten() {
    let (mut room, mut out) = (Room::new(Arc::new(limits()), 1), Sent::default());
    room.need(0, 0, Need { attached: true, number: 1 }, &mut out);
    let [Action::Subscribe(call)] = asked(&mut room, 0, &mut out)[..] else { panic!("not subscribed") };
    push(&mut room, 1, &[4], &mut out);
    room.push(1, EPOCH, [(4, || Bytes::from_static(b"forged"))], &mut out);
    assert_eq!(asked(&mut room, 1, &mut out), [Action::Conflict(4)]);
    room.subscribed(2, call, SubscribedRoom { epoch: EPOCH, head: 3, stored: true }, &mut out);
    assert_eq!((out.runs(), room.head(), room.known()), (vec![], 3, 3), "read, when its head is asked");
}
