//! Processes: how they end, what they say before, what they leave; and runs that say nothing.

use std::collections::BTreeMap;

use sluice_judge::record::{ClientEvent, PresenceAsked};
use sluice_judge::verdict::AnomalyKind;

use super::{assert_doubted, assert_only};
use crate::records::Records;
use crate::script::Script;

#[test]
fn ordered_stops_end_with_0_in_time() {
    let ended = |code, took_ms| {
        let mut script = Script::usual();
        script.stop("logic-0", code, took_ms);
        script.done()
    };
    ended(Some(0), 8_000).assert_green();
    assert_only(&ended(Some(0), 8_001), AnomalyKind::BadExit, "code 0 after 8001 ms of 8000 ms");
    assert_only(&ended(Some(1), 10), AnomalyKind::BadExit, "code 1");
    assert_only(&ended(None, 12_000), AnomalyKind::BadExit, "by a signal");
    let mut killed = Script::usual();
    killed.stop("logic-0", None, 1).exit.as_mut().unwrap().budget_ms = 0;
    killed.done().assert_green();
}

/// Gateway a stops; clients 2 and 3 are on it, 1 has gone.
fn stopped(happens: impl FnOnce(&mut Script)) -> Records {
    let mut script = Script::usual();
    script.closed(1, 1, Some(1000)).open(1, 2, "gateway-b");
    script.stop("gateway-0", Some(0), 1_000);
    happens(&mut script);
    script.open(2, 2, "gateway-b").sub(2, 2, Some(4), Some("e1")).subscribed(2, 2, 4, true);
    script.open(3, 2, "gateway-b").subscribed(3, 2, 4, true);
    script.done()
}

fn drain(script: &mut Script, client: u32) {
    script.write(client, ClientEvent::Drain { conn: 1, within_ms: 2_000, reconnect_ms: 5 });
}

fn bye(script: &mut Script, client: u32) {
    script.write(client, ClientEvent::Bye { conn: 1, code: 1012, reconnect: true, reconnect_ms: None });
}

#[test]
fn everybody_is_told_of_a_stop() {
    stopped(|script| {
        drain(script, 2);
        bye(script, 2);
        script.closed(2, 1, Some(1012));
        drain(script, 3);
        script.closed(3, 1, Some(1000)); // moved
    })
    .assert_green();
    let one = stopped(|script| {
        drain(script, 3);
        script.closed(3, 1, Some(1000)).closed(2, 1, Some(1012));
    });
    assert_only(&one, AnomalyKind::Untold, "connection 1 of client 2 ended while gateway-0 was stopped");
    let all = stopped(|script| {
        script.closed(3, 1, None).closed(2, 1, None);
    });
    assert_only(&all, AnomalyKind::Untold, "client 3");
    assert_eq!(all.judged().anomalies_total, 2);
}

#[test]
fn who_notices_late_hides_nothing() {
    let mut script = Script::usual();
    script.closed(1, 1, Some(1000)).open(1, 2, "gateway-b");
    script.join(4, "slow", "plain");
    script.join(5, "sender", "plain");
    script.stop("gateway-0", Some(0), 1_000);
    script.closed(2, 1, None).closed(3, 1, None).wait_s(4).closed(5, 1, None).closed(4, 1, None);
    script.open(2, 2, "gateway-b").sub(2, 2, Some(4), Some("e1")).subscribed(2, 2, 4, true);
    script.open(3, 2, "gateway-b").subscribed(3, 2, 4, true);
    let records = script.done();
    assert_only(&records, AnomalyKind::Untold, "connection 1 of client 2");
    assert_eq!(records.judged().anomalies_total, 2);
}

#[test]
fn who_does_not_read_is_not_told() {
    stopped(|script| {
        script.write(2, ClientEvent::Paused { conn: 1 });
        bye(script, 3);
        script.closed(3, 1, Some(1012)).closed(2, 1, None).write(2, ClientEvent::Unpaused { conn: 1 });
    })
    .assert_green();
}

#[test]
fn nobody_is_told_of_a_kill() {
    let mut records = stopped(|script| {
        script.closed(3, 1, None).closed(2, 1, None);
    });
    records.faults[0].exit.as_mut().unwrap().budget_ms = 0;
    records.faults[0].kind = "kill gateway".into();
    records.assert_green();
}

#[test]
fn nothing_is_left_behind() {
    let left = |change: &dyn Fn(&mut sluice_judge::record::Leftovers)| {
        let mut records = Script::usual().done();
        change(&mut records.leftovers);
        records
    };
    let good = left(&|leftovers| {
        (leftovers.outbox_rows, leftovers.idle_in_transaction) = (Some(0), Some(0));
        (leftovers.stray_etcd_keys, leftovers.stray_redis_fields) = (Some(Vec::new()), Some(Vec::new()));
        leftovers.files.insert("logic-0".into(), (20, 36));
    });
    good.assert_green();
    assert_only(
        &left(&|leftovers| leftovers.outbox_rows = Some(2)),
        AnomalyKind::Leak,
        "2 rows in the outbox",
    );
    assert_only(
        &left(&|leftovers| leftovers.idle_in_transaction = Some(1)),
        AnomalyKind::Leak,
        "idle in a transaction",
    );
    assert_only(
        &left(&|leftovers| leftovers.stray_etcd_keys = Some(vec!["/x".into()])),
        AnomalyKind::Leak,
        "1 keys in etcd",
    );
    assert_only(
        &left(&|leftovers| leftovers.stray_redis_fields = Some(vec!["y".into()])),
        AnomalyKind::Leak,
        "in Redis",
    );
    let files = left(&|leftovers| {
        leftovers.files.insert("gateway-0".into(), (20, 37));
    });
    assert_only(&files, AnomalyKind::Leak, "gateway-0 holds 37 files");
}

#[test]
fn what_was_read_has_its_outcome_before_bye() {
    let left = |outcome: bool, later: bool| {
        let mut script = Script::usual();
        script.open(1, 2, "gateway-b");
        script.send(1, 1, 5);
        if later {
            script.send(1, 1, 6).again(1, 1, 6, "not_sent");
        }
        if outcome {
            script.again(1, 1, 5, "unavailable");
        }
        bye(&mut script, 1);
        script.closed(1, 1, Some(1012));
        script.send(1, 2, 5).store((1, 5)).ok(1, 2, 5, 5);
        if later {
            script.send(1, 2, 6).store((1, 6)).ok(1, 2, 6, 6);
        }
        script.readers_get(5..=if later { 6 } else { 5 });
        script.done()
    };
    left(true, true).assert_green();
    left(true, false).assert_green();
    left(false, false).assert_green(); // perhaps it was never read
    assert_only(&left(false, true), AnomalyKind::Unresolved, "message 6, sent after it");
    let seen = |before: bool| {
        let mut script = Script::usual();
        script.open(1, 2, "gateway-b").send(1, 1, 5).store((1, 5));
        bye(&mut script, 1);
        script.closed(1, 1, Some(1012));
        if before {
            script.readers_get(5..=5);
        }
        script.send(1, 2, 5).ok(1, 2, 5, 5);
        if !before {
            script.readers_get(5..=5);
        }
        script.done()
    };
    seen(false).assert_green(); // perhaps stored by the second sending
    assert_only(&seen(true), AnomalyKind::Unresolved, "it was stored");
}

#[test]
fn presence_is_right() {
    let asked = |said: &[(&str, u32)], open: &[(&str, u32)]| {
        let users = |of: &[(&str, u32)]| -> BTreeMap<String, u32> {
            of.iter().map(|(user, count)| ((*user).to_owned(), *count)).collect()
        };
        let mut records = Script::usual().done();
        records.leftovers.presence.push(PresenceAsked {
            room: "r".into(),
            said: users(said),
            open: users(open),
        });
        records
    };
    asked(&[("ann", 1)], &[("ann", 1)]).assert_green();
    assert_only(&asked(&[("ann", 2)], &[("ann", 1)]), AnomalyKind::PresenceWrong, "ann 2 instead of 1");
    assert_only(&asked(&[], &[("ann", 1)]), AnomalyKind::PresenceWrong, "ann 0 instead of 1");
    assert_only(&asked(&[("ghost", 1)], &[]), AnomalyKind::PresenceWrong, "ghost 1 instead of 0");
}

#[test]
fn a_run_that_says_nothing_is_not_green() {
    let changed = |change: &dyn Fn(&mut Records)| {
        let mut records = Script::usual().done();
        change(&mut records);
        records
    };
    assert_doubted(&changed(&|it| it.run.interrupted = true), "interrupted");
    assert_doubted(&changed(&|it| it.run.clients = 4), "only 3 of 4 clients");
    assert_doubted(&changed(&|it| it.run.scenario = "crash".into()), "no fault was done");
    assert_doubted(&changed(&|it| it.leftovers.heads.clear()), "no heads");
    let slow = |it: &mut Records| (it.run.rate_per_s, it.run.load_us) = (6, 1_000_000);
    assert_doubted(&changed(&slow), "only 4 messages were sent of 6");
    changed(&|it| (it.run.rate_per_s, it.run.load_us) = (5, 1_000_000)).assert_green();
    let mut missed = Script::usual();
    missed.fault("kill logic", "logic-0").hit = false;
    assert_doubted(&missed.done(), "`kill logic` hit nothing, 1 times");
    let idle = Script::people().done();
    assert_doubted(&idle, "nothing was delivered");
    let early = changed(&|it| {
        it.run.settled_us = 100_000_000;
    });
    assert_doubted(&early, "no subscriber stayed");
}
