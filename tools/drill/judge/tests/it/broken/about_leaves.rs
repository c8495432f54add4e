//! Who comes and goes in a room that is watched: client 2 comes and goes, client 4 is told.

use sluice_judge::record::ClientEvent;
use sluice_judge::verdict::AnomalyKind;

use super::assert_only;
use crate::script::{ROOM, Script, user};

const WATCHER: u32 = 4;

/// Somebody has watched for longer than it takes to hear everything.
fn watched() -> Script {
    let mut script = Script::usual();
    script.records.run.leave_grace_ms = 15_000;
    script.join(WATCHER, "watcher", "library");
    script.sub(WATCHER, 1, Some(4), Some("e1")).subscribed(WATCHER, 1, 4, true);
    script.wait_s(20);
    script
}

fn told(script: &mut Script, at_ms: i64) {
    let (room, user) = (ROOM.into(), user(2));
    script.write(WATCHER, ClientEvent::UserLeft { conn: 1, room, user, at_ms });
}

fn stale(script: &mut Script) {
    script.write(WATCHER, ClientEvent::Stale { conn: 1, room: ROOM.into() });
}

/// Client 2 is back, over another connection.
fn back(script: &mut Script) {
    script.open(2, 2, "gateway-b").sub(2, 2, Some(4), Some("e1")).subscribed(2, 2, 4, true);
}

/// The connection of client 2 ends like this, and after so many seconds its leave is told, if at all.
fn left(reason: &str, told_after_s: Option<u64>) -> Script {
    let mut script = watched();
    let code = (reason == "goodbye").then_some(1000);
    script.write(2, ClientEvent::Closed { conn: 1, code, reason: reason.into() });
    if let Some(after_s) = told_after_s {
        script.wait_s(after_s);
        told(&mut script, 1);
    }
    script
}

fn later(mut script: Script) -> crate::records::Records {
    script.wait_s(60);
    script.done()
}

#[test]
fn who_is_away_for_the_grace_leaves_once() {
    later(left("cut", Some(15))).assert_green();
    later(left("cut", Some(40))).assert_green();
    later(left("goodbye", Some(1))).assert_green();
    // Pushed again it is the same.
    let mut again = left("cut", Some(15));
    told(&mut again, 1);
    later(again).assert_green();
    let mut returned = left("cut", Some(17));
    back(&mut returned);
    later(returned).assert_green();
}

#[test]
fn who_is_back_or_was_never_away_did_not_leave() {
    let mut moved = watched();
    back(&mut moved);
    moved.closed(2, 1, Some(1000));
    told(&mut moved, 1);
    assert_only(&later(moved), AnomalyKind::FalseLeave, "user-2 left \"r\", who was never away before");
    let mut soon = left("cut", Some(2));
    back(&mut soon);
    assert_only(&later(soon), AnomalyKind::FalseLeave, "who was away for 2001 ms");
    let mut returned = left("cut", None);
    returned.wait_s(5);
    back(&mut returned);
    returned.wait_s(20);
    told(&mut returned, 1);
    assert_only(&later(returned), AnomalyKind::FalseLeave, "away for 5");
}

#[test]
fn a_leave_is_too_early_missing_late_or_doubled() {
    let mut early = left("cut", Some(2));
    early.wait_s(13);
    told(&mut early, 2);
    assert_only(&later(early), AnomalyKind::FalseLeave, "away for 2001 ms");
    for reason in ["cut", "goodbye"] {
        assert_only(&later(left(reason, None)), AnomalyKind::PresenceWrong, "told not within");
        assert_only(&later(left(reason, Some(50))), AnomalyKind::PresenceWrong, "told not within");
    }
    let mut twice = left("cut", Some(15));
    told(&mut twice, 2);
    assert_only(&later(twice), AnomalyKind::FalseLeave, "told 2 times that user-2 left");
}

#[test]
fn who_was_told_that_it_may_have_missed_something_is_owed_nothing() {
    let mut missed = left("cut", None);
    missed.wait_s(16);
    stale(&mut missed);
    later(missed).assert_green();
    let mut broken = left("cut", None);
    broken.fault("kill logic", "logic-0");
    later(broken).assert_green();
    let mut harmless = left("cut", None);
    harmless.fault("kill task", "task-0");
    assert_only(&later(harmless), AnomalyKind::PresenceWrong, "told not within 45 s");
    let mut away = left("cut", None);
    away.closed(WATCHER, 1, None);
    later(away).assert_green();
}

#[test]
fn without_anybody_who_watches_nothing_is_judged() {
    let mut script = left("cut", Some(1));
    script.records.run.leave_grace_ms = 0;
    later(script).assert_green();
}
