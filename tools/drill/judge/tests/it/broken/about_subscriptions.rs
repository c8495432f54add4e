//! Subscriptions: contiguous, once, honest, complete.

use sluice_judge::record::ClientEvent;
use sluice_judge::verdict::AnomalyKind;

use super::{assert_found, assert_only};
use crate::script::{ROOM, Script};

fn got_of(client: u32, of: u64) -> impl Fn(u32, &ClientEvent) -> bool {
    move |id, what| id == client && matches!(what, ClientEvent::Got { seq, .. } if *seq == of)
}

/// The usual, and this delivery changed in its client's file.
fn with(
    client: u32,
    seq: u64,
    change: impl FnOnce(&mut Vec<(u64, ClientEvent)>, usize),
) -> crate::records::Records {
    let mut records = Script::usual().done();
    let lines = records.clients.get_mut(&client).unwrap();
    let index = lines.iter().position(|(_, what)| got_of(client, seq)(client, what)).unwrap();
    change(lines, index);
    records
}

#[test]
fn a_delivery_is_missing() {
    for client in [2, 3] {
        let records = with(client, 2, |lines, index| drop(lines.remove(index)));
        assert_only(&records, AnomalyKind::Gap, &format!("client {client} never got 2…2"));
        assert_eq!(records.judged().anomalies[0].slice.len(), 3, "where it began, before and after the hole");
        let last = with(client, 4, |lines, index| drop(lines.remove(index)));
        assert_only(&last, AnomalyKind::Gap, &format!("client {client} never got 4 of"));
    }
}

#[test]
fn deliveries_are_swapped_or_doubled() {
    for client in [2, 3] {
        let swapped = with(client, 2, |lines, index| {
            let (first, second) = (lines[index].1.clone(), lines[index + 1].1.clone());
            (lines[index].1, lines[index + 1].1) = (second, first);
        });
        assert_only(&swapped, AnomalyKind::Reordered, "got 2 of \"r\" after 3");
        let doubled = with(client, 2, |lines, index| lines.insert(index, lines[index].clone()));
        assert_only(&doubled, AnomalyKind::Duplicate, "got 2 of \"r\" again");
    }
}

#[test]
fn a_delivery_without_subscription() {
    let mut script = Script::usual();
    script.got(1, 1, 2);
    assert_only(&script.done(), AnomalyKind::Phantom, "no subscription");
}

#[test]
fn what_is_in_flight_after_unsubscribing_is_no_harm() {
    let mut script = Script::people();
    script.write(2, ClientEvent::Unsubscribed { conn: 1, room: ROOM.into() });
    for n in 1..=2 {
        script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).got(3, 1, n);
    }
    script.got(2, 1, 1);
    script.done().assert_green();
}

#[test]
fn a_resumption_goes_on() {
    let resumed = |seen: u64, asked: u64, after: u64, recovered: bool| {
        let mut script = Script::usual();
        let lines = script.records.clients.get_mut(&2).unwrap();
        lines.retain(|(_, what)| !matches!(what, ClientEvent::Got { seq, .. } if *seq > seen));
        script.closed(2, 1, None).open(2, 2, "gateway-b").sub(2, 2, Some(asked), Some("e1"));
        script.subscribed(2, 2, after, recovered);
        (after + 1..=4).for_each(|seq| {
            script.got(2, 2, seq);
        });
        script.done()
    };
    resumed(4, 4, 4, true).assert_green();
    resumed(2, 2, 2, true).assert_green();
    resumed(3, 1, 1, true).assert_green(); // from elsewhere by its own wish
    assert_only(
        &resumed(2, 2, 3, true),
        AnomalyKind::Dishonest,
        "from 2 and was told that this is kept, from 3",
    );
    assert_only(&resumed(2, 3, 3, true), AnomalyKind::Gap, "had come only to 2");
    assert_only(&resumed(2, 2, 4, false), AnomalyKind::Dishonest, "position 2 in \"r\" is not kept");
    assert_found(&resumed(4, 9, 4, true), AnomalyKind::Dishonest, "from 9");
    let made_up = resumed(4, 9, 4, false);
    made_up.assert_green();
    assert_eq!(made_up.judged().counts.honest_gaps, 1);
}

#[test]
fn a_position_that_is_known_is_not_called_unknown() {
    let mut script = Script::usual();
    script.closed(2, 1, None).open(2, 2, "gateway-b").sub(2, 2, Some(4), Some("e1"));
    let (room, epoch) = (ROOM.to_owned(), "e1".to_owned());
    script.write(
        2,
        ClientEvent::Subscribed { conn: 2, room, after: 3, head: 3, epoch, recovered: false, asked: true },
    );
    script.got(2, 2, 4);
    assert_only(&script.done(), AnomalyKind::Dishonest, "position 4");
}

#[test]
fn the_library_resumes_by_itself() {
    let resumed = |after: u64, seqs: &[u64], recovered| {
        let mut script = Script::people();
        for n in 1..=4 {
            script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).got(2, 1, n);
        }
        script.got(3, 1, 1).got(3, 1, 2).open(3, 2, "gateway-b").subscribed(3, 2, after, recovered);
        seqs.iter().for_each(|seq| {
            script.got(3, 2, *seq);
        });
        script.done()
    };
    resumed(2, &[3, 4], true).assert_green();
    assert_found(
        &resumed(1, &[2, 3, 4], true),
        AnomalyKind::Dishonest,
        "from 2 and was told that this is kept, from 1",
    );
    assert_found(&resumed(1, &[2, 3, 4], true), AnomalyKind::Duplicate, "got 2 of \"r\" again");
    assert_only(
        &resumed(3, &[4], true),
        AnomalyKind::Dishonest,
        "from 2 and was told that this is kept, from 3",
    );
    assert_only(&resumed(4, &[], false), AnomalyKind::Dishonest, "position 2 in \"r\" is not kept");
}

#[test]
fn two_connections_at_once_are_judged_each_from_its_position() {
    let mut script = Script::people();
    for n in 1..=4 {
        script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).got(3, 1, n);
    }
    script.got(2, 1, 1).open(2, 2, "gateway-b").sub(2, 2, Some(1), Some("e1")).subscribed(2, 2, 1, true);
    script.got(2, 1, 2).got(2, 2, 2).got(2, 2, 3).got(2, 1, 3).closed(2, 1, Some(1000)).got(2, 2, 4);
    script.clone().done().assert_green();
    script.got(2, 2, 3);
    assert_only(&script.done(), AnomalyKind::Duplicate, "got 3");
}

#[test]
fn unasked_news_is_of_another_epoch() {
    let mut script = Script::usual();
    script.told(2, 1, 4, false, false);
    assert_only(&script.done(), AnomalyKind::Dishonest, "unasked");
}

#[test]
fn a_position_beyond_the_head() {
    let mut script = Script::usual();
    script.join(4, "observer", "plain");
    script.sub(4, 1, None, None).subscribed(4, 1, 6, true);
    assert_only(&script.done(), AnomalyKind::Dishonest, "at 6 beyond its head 4");
}

#[test]
fn a_head_of_the_future() {
    let mut script = Script::people();
    script.join(4, "observer", "plain");
    let (room, epoch) = (ROOM.to_owned(), "e1".to_owned());
    script.sub(4, 1, None, None);
    script.write(
        4,
        ClientEvent::Subscribed { conn: 1, room, after: 1, head: 1, epoch, recovered: true, asked: true },
    );
    script.send(1, 1, 1).store((1, 1)).ok(1, 1, 1, 1).readers_get(1..=1);
    assert_only(&script.done(), AnomalyKind::Dishonest, "was sent later and is 1");
}

#[test]
fn skips_are_what_is_missing_and_have_a_reason() {
    let skip = |role: &str, from: u64, to: u64| {
        let mut script = Script::people();
        for n in 1..=4 {
            script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).readers_get(n..=n);
        }
        script.join(4, role, "plain");
        script.sub(4, 1, Some(0), None).subscribed(4, 1, 0, true).got(4, 1, 1).skipped(4, 1, from, to);
        (to + 1..=4).for_each(|seq| {
            script.got(4, 1, seq);
        });
        script.done()
    };
    skip("slow", 2, 3).assert_green();
    // Of one that reads well it is a reason only where gateways are set so.
    let short = |max_behind: u64| {
        let mut script = Script::people();
        script.records.run.max_behind = max_behind;
        for n in 1..=4 {
            script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).readers_get(n..=n);
        }
        script.join(4, "observer", "plain");
        script.sub(4, 1, Some(0), None).subscribed(4, 1, 0, true).got(4, 1, 1).skipped(4, 1, 2, 4);
        script.done()
    };
    short(2).assert_green();
    assert_only(&short(3), AnomalyKind::Dishonest, "it was not far behind");
    assert_only(&skip("observer", 2, 3), AnomalyKind::Dishonest, "nothing was trimmed or restored");
    assert_only(&skip("slow", 1, 3), AnomalyKind::Dishonest, "had come to 1");
    assert_found(&skip("slow", 3, 3), AnomalyKind::Dishonest, "had come to 1");
    let mut nowhere = Script::usual();
    nowhere.skipped(1, 1, 1, 2);
    assert_only(&nowhere.done(), AnomalyKind::Dishonest, "without a subscription");
}

#[test]
fn everything_arrives_in_time() {
    let late = |after_s: u64| {
        let mut script = Script::usual();
        script.send(1, 1, 5).store((1, 5)).ok(1, 1, 5, 5).got(2, 1, 5).settle();
        script.wait_s(after_s).got(3, 1, 5).done()
    };
    late(9).assert_green();
    assert_only(&late(12), AnomalyKind::Gap, "only 12 s after");
    let lacking = |role: &str, end: &dyn Fn(&mut Script)| {
        let mut script = Script::usual();
        script.join(4, role, "plain");
        script.sub(4, 1, Some(3), None).subscribed(4, 1, 3, true).settle();
        end(&mut script);
        script.done()
    };
    assert_only(&lacking("observer", &|_| {}), AnomalyKind::Gap, "client 4 never got 4");
    assert_only(&lacking("slow", &|_| {}), AnomalyKind::Gap, "client 4 never got 4");
    assert_only(
        &lacking("observer", &|script| {
            script.write(4, ClientEvent::End);
        }),
        AnomalyKind::Gap,
        "client 4 never got 4",
    );
    lacking("slow", &|script| {
        script.write(4, ClientEvent::End);
    })
    .assert_green();
    lacking("observer", &|script| {
        script.write(4, ClientEvent::Paused { conn: 1 });
    })
    .assert_green();
    lacking("observer", &|script| {
        script.write(4, ClientEvent::Unsubscribed { conn: 1, room: ROOM.into() });
    })
    .assert_green();
    assert_only(
        &lacking("observer", &|script| {
            script.closed(4, 1, None);
        }),
        AnomalyKind::Gap,
        "client 4 never got 4",
    );
}

/// Client 2 asks on a second connection and waits so long for the answer.
fn waits_s(seconds: u64) -> Script {
    let mut script = Script::usual();
    script.write(2, ClientEvent::Closed { conn: 1, code: None, reason: String::new() });
    script.open(2, 2, "gateway-a");
    script.sub(2, 2, Some(4), None);
    script.wait_s(seconds);
    script
}

#[test]
fn a_sub_is_left_without_an_answer() {
    let mut answered = waits_s(11);
    answered.subscribed(2, 2, 4, true);
    assert_only(&answered.done(), AnomalyKind::Starved, "client 2 waited 11.0 s for the answer to its sub");
    let mut closed = waits_s(11);
    closed.write(2, ClientEvent::Closed { conn: 2, code: None, reason: String::new() });
    assert_found(&closed.done(), AnomalyKind::Starved, "client 2 waited 11.0 s");
    let mut soon = waits_s(9);
    soon.subscribed(2, 2, 4, true);
    assert!(soon.done().judged().is_green(), "{:?}", soon.done().judged());
}
