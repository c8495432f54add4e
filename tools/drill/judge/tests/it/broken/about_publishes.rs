//! Publishes: their order, their answers.

use sluice_judge::record::{ClientEvent, PublishOutcome};
use sluice_judge::verdict::AnomalyKind;

use super::{assert_found, assert_only};
use crate::records::Records;
use crate::script::{ROOM, Script, hash, key};

/// What was sent, then stored in this order, all answered.
fn stored(sends: &[(u32, u64)], order: &[u64], kind: &str) -> Records {
    let mut script = Script::people();
    script.join(4, "sender", kind);
    sends.iter().for_each(|(conn, n)| {
        script.send(4, *conn, *n);
    });
    order.iter().for_each(|n| {
        script.store((4, *n));
    });
    for (seq, n) in (1..).zip(order) {
        let (conn, _) = sends.iter().find(|(_, sent)| sent == n).expect("it was sent");
        script.ok(4, *conn, *n, seq);
        script.readers_get(seq..=seq);
    }
    script.done()
}

#[test]
fn one_connection_is_stored_in_the_order_sent() {
    let plain = [(1, 1), (1, 2), (1, 3)];
    stored(&plain, &[1, 2, 3], "plain").assert_green();
    assert_only(
        &stored(&plain, &[1, 3, 2], "plain"),
        AnomalyKind::Reordered,
        "message 3 of client 4 (user-4) is stored as 2",
    );
    let library = [(0, 1), (0, 2), (0, 3)];
    stored(&library, &[1, 2, 3], "library").assert_green();
    assert_only(&stored(&library, &[2, 1, 3], "library"), AnomalyKind::Reordered, "before message 1 (2)");
}

#[test]
fn a_backend_has_an_order_where_it_awaits_answers() {
    stored(&[(0, 1), (0, 2), (0, 3)], &[1, 2, 3], "api").assert_green();
    assert_only(
        &stored(&[(0, 1), (0, 2), (0, 3)], &[2, 1, 3], "api"),
        AnomalyKind::Reordered,
        "before message 1 (2)",
    );
    stored(&[(1, 1), (2, 2), (3, 3)], &[2, 1, 3], "api").assert_green();
}

/// It calls again after an answer that was lost: stored twice, lost, or without an outcome it is found as anybody's.
#[test]
fn calls_of_a_backend_are_judged_as_publishes() {
    let calls = || {
        let mut script = Script::people();
        script.join(4, "backend", "api");
        script.send(4, 0, 1);
        script
    };
    let mut script = calls();
    script.store((4, 1)).store((4, 1)).ok(4, 0, 1, 1).readers_get(1..=2);
    assert_found(&script.done(), AnomalyKind::Duplicate, "holds key");
    let mut script = calls();
    script.ok(4, 0, 1, 1);
    assert_only(&script.done(), AnomalyKind::LostWrite, "answered ok with seq 1");
    let mut script = calls();
    script.wait_s(40).answer(4, 0, 1, PublishOutcome::GaveUp);
    assert_only(&script.done(), AnomalyKind::Unresolved, "had no answer for 40 s");
}

#[test]
fn resending_keeps_the_order_or_makes_it() {
    // all again over another connection, in order
    let again = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)];
    stored(&again, &[1, 2, 3], "plain").assert_green();
    assert_found(&stored(&again, &[2, 1, 3], "plain"), AnomalyKind::Reordered, "before message 1");
    assert_found(&stored(&again, &[1, 3, 2], "plain"), AnomalyKind::Reordered, "before message 2");
    // the newer one first, over another connection: its own order
    stored(&[(1, 1), (1, 2), (2, 2), (2, 1)], &[2, 1], "plain").assert_green();
    // a doubled sending changes nothing
    stored(&[(1, 1), (1, 2), (2, 1)], &[1, 2], "plain").assert_green();
}

#[test]
fn behind_a_fence_nothing_is_stored() {
    let fenced = |first: &str| {
        let mut script = Script::people();
        script.send(1, 1, 1).send(1, 1, 2).again(1, 1, 1, first).store((1, 2)).ok(1, 1, 2, 1);
        script.open(1, 2, "gateway-b").send(1, 2, 1).store((1, 1)).ok(1, 2, 1, 2).readers_get(1..=2);
        script.done()
    };
    for code in ["not_sent", "unavailable"] {
        assert_only(&fenced(code), AnomalyKind::Reordered, "message 2 of client 1 (user-1) is stored as 1");
    }
    let mut refused = Script::people();
    refused.send(1, 1, 1).send(1, 1, 2).refused(1, 1, 1, "forbidden").store((1, 2)).ok(1, 1, 2, 1);
    refused.send(1, 2, 1).store((1, 1)).ok(1, 2, 1, 2).readers_get(1..=2);
    refused.done().assert_green();
}

#[test]
fn what_a_library_client_gave_up_binds_nothing_later() {
    let given_up = |before: bool| {
        let mut script = Script::people();
        script.join(4, "sender", "library");
        script.send(4, 0, 1);
        if before {
            script.answer(4, 0, 1, PublishOutcome::GaveUp);
        }
        script.send(4, 0, 2);
        if !before {
            script.answer(4, 0, 1, PublishOutcome::GaveUp);
        }
        script.store((4, 2)).ok(4, 0, 2, 1).store((4, 1)).readers_get(1..=2);
        script.done()
    };
    given_up(true).assert_green();
    assert_only(&given_up(false), AnomalyKind::Reordered, "before message 1");
}

#[test]
fn real_time_is_an_order() {
    let sent_later = |known: &dyn Fn(&mut Script)| {
        let mut script = Script::people();
        script.join(4, "sender", "plain");
        script.send(1, 1, 1);
        script.store((4, 1)).store((1, 1)); // the other one slips in before it
        known(&mut script);
        script.send(4, 1, 1).ok(4, 1, 1, 1).readers_get(1..=2);
        script.done()
    };
    let text = "message 1 of client 1 (user-1) (2) was known before message 1 of client 4";
    assert_only(
        &sent_later(&|script| {
            script.ok(1, 1, 1, 2);
        }),
        AnomalyKind::Reordered,
        text,
    );
    let delivered = sent_later(&|script| {
        script.join(5, "observer", "plain");
        script.sub(5, 1, Some(1), None).subscribed(5, 1, 1, true).got(5, 1, 2);
        script.ok(1, 1, 1, 2);
    });
    assert_found(&delivered, AnomalyKind::Reordered, text);
    sent_later(&|_| {}).assert_green();
}

#[test]
fn what_was_refused_is_not_stored() {
    let answered = |answers: &[PublishOutcome]| {
        let mut script = Script::people();
        for (conn, answer) in (1..).zip(answers) {
            script.send(1, conn, 1).answer(1, conn, 1, answer.clone());
        }
        script.store((1, 1)).readers_get(1..=1);
        script.done()
    };
    let (refused, not_sent) =
        (PublishOutcome::Refused("forbidden".into()), PublishOutcome::Again("not_sent".into()));
    let unknown = PublishOutcome::Again("unavailable".into());
    assert_only(
        &answered(std::slice::from_ref(&refused)),
        AnomalyKind::RefusedStored,
        "every sending was answered as not stored",
    );
    assert_only(&answered(&[not_sent.clone(), refused.clone()]), AnomalyKind::RefusedStored, "is seq 1");
    answered(&[unknown.clone(), refused]).assert_green();
    answered(&[not_sent, PublishOutcome::Ok(1)]).assert_green();
    answered(&[unknown]).assert_green();
}

#[test]
fn a_conflict_has_a_reason() {
    let conflict = |n: u64, key_of: u64| {
        let mut script = Script::usual();
        let (room, key) = (ROOM.into(), Some(key((1, key_of))));
        script.write(1, ClientEvent::Send { conn: 1, n, room, key, hash: hash((1, n)), bytes: 9 });
        script.refused(1, 1, n, "conflict");
        script.done()
    };
    conflict(5, 2).assert_green();
    assert_only(&conflict(5, 5), AnomalyKind::Dishonest, "its key was never used with other data");
}

#[test]
fn every_publish_comes_to_an_end() {
    let ends = |end: &dyn Fn(&mut Script)| {
        let mut script = Script::usual();
        script.send(1, 1, 5);
        end(&mut script);
        script.done()
    };
    let give_up = |script: &mut Script| {
        script.answer(1, 1, 5, PublishOutcome::GaveUp);
    };
    let gone = ends(&|script| give_up(script));
    gone.assert_green();
    assert_eq!(gone.judged().counts.unknown, 1);
    assert_only(
        &ends(&|script| give_up(script.wait_s(31))),
        AnomalyKind::Unresolved,
        "for 31 s while nothing was broken",
    );
    let troubled = ends(&|script| {
        script.wait_s(25);
        script.fault("freeze logic 5s", "logic-0");
        give_up(script.wait_s(25));
    });
    troubled.assert_green();
    let mut never = ends(&|_| {});
    never.clients.get_mut(&1).unwrap().pop(); // it does not even end
    assert_only(&never, AnomalyKind::Unresolved, "never had an answer");
    let again = ends(&|script| {
        script.again(1, 1, 5, "unavailable").wait_s(30);
    });
    assert_only(&again, AnomalyKind::Unresolved, "message 5");
    let mut bare = Script::usual();
    bare.send_bare(1, 1, 5).closed(1, 1, None).wait_s(40);
    bare.done().assert_green();
}
