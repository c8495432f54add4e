//! The store, and what was seen of it.

use sluice_judge::record::{ClientEvent, PageMessage, StoreRow};
use sluice_judge::verdict::AnomalyKind;

use super::{assert_found, assert_only};
use crate::records::Records;
use crate::script::{ROOM, Script, hash, key, user};

#[test]
fn the_usual_is_green() {
    Script::usual().done().assert_green();
}

#[test]
fn an_acknowledged_row_is_gone() {
    let mut records = Script::usual().done();
    records.rows.pop();
    records.leftovers.heads.insert(ROOM.into(), 3);
    assert_found(&records, AnomalyKind::LostWrite, "ok with seq 4");
    assert_found(&records, AnomalyKind::Phantom, "saw message 4 of client 1");
    let mut nobody_reads = Script::usual();
    nobody_reads.send(1, 1, 5).ok(1, 1, 5, 5);
    assert_only(&nobody_reads.done(), AnomalyKind::LostWrite, "not stored");
}

#[test]
fn an_ok_names_another_seq() {
    let mut records = Script::usual().done();
    let place = records.places(|what| matches!(what, ClientEvent::Answer { n: 3, .. }))[0];
    *records.line(place) =
        ClientEvent::Answer { conn: 1, n: 3, outcome: sluice_judge::record::PublishOutcome::Ok(2) };
    assert_only(&records, AnomalyKind::LostWrite, "it is stored as 3");
}

#[test]
fn an_answer_to_nothing() {
    let mut script = Script::usual();
    script.ok(1, 1, 77, 4);
    assert_only(&script.done(), AnomalyKind::Phantom, "never sent");
}

#[test]
fn a_message_without_key_is_stored_twice() {
    let mut script = Script::usual();
    script.send_bare(1, 1, 5).store_as((1, 5), "~s/1").ok(1, 1, 5, 5).readers_get(5..=5);
    script.clone().done().assert_green();
    script.store_as((1, 5), "~s/2").readers_get(6..=6);
    assert_only(&script.done(), AnomalyKind::Duplicate, "without key is stored 2 times");
}

#[test]
fn a_key_is_stored_twice() {
    let mut script = Script::usual();
    script.store((1, 4)).readers_get(5..=5);
    assert_only(&script.done(), AnomalyKind::Duplicate, "twice: as 4 and as 5");
}

fn without(change: impl FnOnce(&mut Vec<StoreRow>)) -> Records {
    let mut records = Script::usual().done();
    change(&mut records.rows);
    records
}

#[test]
fn the_store_has_a_hole() {
    assert_found(&without(|rows| drop(rows.remove(1))), AnomalyKind::StoreHole, "between seq 1 and 3");
    assert_found(&without(|rows| drop(rows.remove(0))), AnomalyKind::StoreHole, "begins with seq 2");
    assert_found(&without(|rows| rows[3].seq = 3), AnomalyKind::StoreHole, "two rows under seq 3");
    let mut records = Script::usual().done();
    records.leftovers.heads.insert(ROOM.into(), 5);
    assert_only(&records, AnomalyKind::StoreHole, "the head 5, but its last message is 4");
    records.leftovers.heads = [("other".to_owned(), 1)].into();
    assert_found(&records, AnomalyKind::StoreHole, "\"other\" has the head 1");
    assert_found(&records, AnomalyKind::StoreHole, "no head");
}

#[test]
fn retention_may_take_what_is_old() {
    let mut script = Script::usual();
    script.wait_s(3_700).send(1, 1, 5).store((1, 5)).ok(1, 1, 5, 5).readers_get(5..=5);
    let mut records = script.done();
    records.rows.drain(..3);
    records.assert_green();
    records.rows.remove(0); // the ok of 4 is an hour old too
    records.assert_green();
    records.rows.clear();
    assert_found(&records, AnomalyKind::LostWrite, "ok with seq 5");
}

#[test]
fn nobody_sent_what_is_stored() {
    let mut script = Script::usual();
    script.store((1, 9)).readers_get(5..=5);
    assert_found(&script.done(), AnomalyKind::Phantom, "holds a message of user-1");
    let mut script = Script::usual();
    script.send(1, 1, 5).store_as((1, 5), "another").readers_get(5..=5).ok(1, 1, 5, 5);
    assert_found(&script.done(), AnomalyKind::Phantom, "nobody sent");
}

#[test]
fn somebody_sees_something_else() {
    let got = |what: &ClientEvent| matches!(what, ClientEvent::Got { seq: 2, .. });
    let changed = |change: &dyn Fn(&mut u64, &mut String, &mut Option<String>)| {
        let mut records = Script::usual().done();
        let place = records.places(got)[0];
        if let ClientEvent::Got { hash, from, key, .. } = records.line(place) {
            change(hash, from, key);
        }
        records
    };
    assert_only(&changed(&|hash, _, _| *hash += 7), AnomalyKind::Phantom, "nobody sent it");
    assert_only(&changed(&|_, from, _| *from = "eve".into()), AnomalyKind::Phantom, "nobody sent it");
    assert_only(&changed(&|_, _, key| *key = Some("~s/1".into())), AnomalyKind::Phantom, "nobody sent it");
    assert_only(&changed(&|_, _, key| *key = None), AnomalyKind::Phantom, "nobody sent it");
    let other = changed(&|hash_of, _, key_of| (*hash_of, *key_of) = (hash((1, 3)), Some(key((1, 3)))));
    assert_only(&other, AnomalyKind::Phantom, "the store holds message 2");
}

#[test]
fn pages_are_looked_at() {
    let page = |seqs: &[(u64, u64)], before| {
        let seen = |(seq, n): &(u64, u64)| PageMessage {
            seq: *seq,
            from: user(1),
            key: Some(key((1, *n))),
            hash: hash((1, *n)),
        };
        let messages = seqs.iter().map(seen).collect();
        let mut script = Script::usual();
        script.write(2, ClientEvent::History { conn: 1, room: ROOM.into(), before, messages });
        script.done()
    };
    page(&[(2, 2), (3, 3)], Some(4)).assert_green();
    assert_only(&page(&[(1, 1), (3, 3)], None), AnomalyKind::Gap, "with 3 behind 1");
    assert_only(&page(&[(3, 3), (2, 2)], None), AnomalyKind::Reordered, "with 2 behind 3");
    assert_only(&page(&[(3, 3), (4, 4)], Some(4)), AnomalyKind::Dishonest, "before 4 and got 4");
    assert_only(&page(&[(3, 2)], None), AnomalyKind::Phantom, "the store holds message 3");
}

#[test]
fn a_bad_neighbour_publishes_to_its_own_rooms_alone() {
    let beside = |room: &str, sender: &str| {
        let mut records = Script::usual().done();
        let row = StoreRow { room: room.into(), seq: 1, sender: sender.into(), ..records.rows[0].clone() };
        records.rows.insert(0, StoreRow { key: "bad".into(), ..row });
        records.leftovers.heads.insert(room.into(), 1);
        records.run.neighbours = vec!["bad-7-publisher".into(), "bad-7-tiny".into()];
        records
    };
    beside("bad-7-publisher.3", "bad-7-publisher-1").assert_green();
    for (room, sender) in [
        ("bad-7-publisher.3", "bad-7-tiny-1"),
        ("bad-7-publisher.3", "user-1"),
        ("else", "bad-7-publisher-1"),
        ("bad-8-publisher.3", "bad-8-publisher-1"),
    ] {
        assert_only(&beside(room, sender), AnomalyKind::Phantom, "which nobody sent there like this");
    }
}
