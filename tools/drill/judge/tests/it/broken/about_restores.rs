//! A store that was put back: what may be lost, and what must be said.

use sluice_judge::verdict::AnomalyKind;

use super::{assert_found, assert_only};
use crate::records::Records;
use crate::script::Script;

/// Two messages, a copy, two more, a restore, then what `after` writes.
fn restored(after: impl FnOnce(&mut Script)) -> Records {
    let mut script = Script::people();
    let mut copied_us = 0;
    for n in 1..=4 {
        script.send(1, 1, n).store((1, n)).ok(1, 1, n, n).readers_get(n..=n);
        if n == 2 {
            copied_us = script.now_us;
        }
    }
    script.restore(copied_us, 2);
    after(&mut script);
    script.done()
}

fn tell(script: &mut Script) {
    script.told(2, 1, 2, false, false).told(3, 1, 2, false, false);
}

#[test]
fn what_came_after_the_copy_may_be_lost_when_it_is_said() {
    restored(tell).assert_green();
    let goes_on = |script: &mut Script| {
        tell(script);
        script.send(1, 1, 5).store((1, 5)).ok(1, 1, 5, 3).readers_get(3..=3);
    };
    restored(goes_on).assert_green();
    let untold = restored(|script| {
        script.open(1, 2, "gateway-b");
    });
    assert_only(&untold, AnomalyKind::Gap, "never told that \"r\" has another epoch");
    assert_only(&restored(|_| {}), AnomalyKind::Phantom, "the store holds nothing there");
}

#[test]
fn who_gets_what_is_new_was_told() {
    let silent = restored(|script| {
        script.told(3, 1, 2, false, false).send(1, 1, 5).store((1, 5)).ok(1, 1, 5, 3).got(3, 1, 3);
        script.send(1, 1, 6).store((1, 6)).ok(1, 1, 6, 4).got(3, 1, 4);
        script.send(1, 1, 7).store((1, 7)).ok(1, 1, 7, 5).got(3, 1, 5).got(2, 1, 5);
    });
    assert_found(&silent, AnomalyKind::Gap, "was not told that epoch e1 is over");
    assert_eq!(silent.kinds(), [AnomalyKind::Gap]);
}

#[test]
fn what_came_before_the_copy_may_not() {
    let mut records = restored(tell);
    records.rows.pop();
    records.leftovers.heads.insert("r".into(), 1);
    assert_found(&records, AnomalyKind::LostWrite, "ok with seq 2");
    let late = restored(|script| {
        tell(script);
        script.send(1, 1, 5).ok(1, 1, 5, 3);
    });
    assert_only(&late, AnomalyKind::LostWrite, "ok with seq 3");
}

#[test]
fn a_resumption_says_so() {
    let resumed = |recovered: bool, epoch: Option<&'static str>| {
        restored(|script| {
            tell(script);
            script.send(1, 1, 5).store((1, 5)).ok(1, 1, 5, 3).send(1, 1, 6).store((1, 6)).ok(1, 1, 6, 4);
            script.readers_get(3..=4);
            script.closed(2, 1, None).open(2, 2, "gateway-b").sub(2, 2, Some(4), epoch);
            script.subscribed(2, 2, 4, recovered);
        })
    };
    resumed(false, Some("e1")).assert_green();
    resumed(true, Some("e2")).assert_green();
    assert_only(&resumed(true, Some("e1")), AnomalyKind::Dishonest, "of another epoch");
    assert_only(&resumed(false, Some("e2")), AnomalyKind::Dishonest, "position 4");
}

#[test]
fn two_do_not_see_different_pasts() {
    let mut records = restored(tell);
    let lines = records.clients.get_mut(&2).unwrap();
    let swapped = |what: &sluice_judge::record::ClientEvent, of: u64| matches!(what, sluice_judge::record::ClientEvent::Got { seq, .. } if *seq == of);
    let third = lines.iter().position(|(_, what)| swapped(what, 3)).unwrap();
    let fourth = lines.iter().position(|(_, what)| swapped(what, 4)).unwrap();
    for (index, of) in [(third, 4), (fourth, 3)] {
        if let sluice_judge::record::ClientEvent::Got { hash, key, .. } = &mut lines[index].1 {
            *hash = crate::script::hash((1, of));
            *key = Some(crate::script::key((1, of)));
        }
    }
    assert_only(&records, AnomalyKind::Phantom, "client 2 saw");
}

#[test]
fn an_epoch_does_not_change_by_itself() {
    let mut records = restored(tell);
    records.faults[0].kind = "restart postgres".into();
    records.faults[0].copied_us = None;
    assert_found(&records, AnomalyKind::Dishonest, "epoch became e2 after e1");
    let mut promoted = Script::usual();
    promoted.fault("promote postgres", "postgres");
    promoted.epoch = "e2";
    promoted.told(2, 1, 4, false, false).told(3, 1, 4, false, false);
    promoted.done().assert_green();
}

#[test]
fn what_is_stored_anew_has_another_place() {
    // 3 and 4 were lost; 4 without its answer, so both are sent again, and 4 came first by the gateway's own retry
    let records = restored(|script| {
        tell(script);
        script.store((1, 4)).send(1, 2, 3).store((1, 3)).ok(1, 2, 3, 4).readers_get(3..=4);
    });
    assert_eq!(records.kinds(), [], "{:#?}", records.judged().anomalies);
}
