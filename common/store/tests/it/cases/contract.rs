//! The contract as small cases, for any store that has a [`Rig`].

use futures::future::join_all;
use sluice_proto::ids::{Key, RoomId, UserId};
use sluice_store::{Class, NewMessage, Outcome, Range, Store, hash_of};

use crate::rig::Rig;

/// Later than any test runs.
pub const LATER: i64 = i64::MAX;

pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub fn message(in_room: &str, sender: &str, key: &str, data: &str) -> NewMessage {
    NewMessage {
        room: room(in_room),
        sender: UserId::parse(sender).unwrap(),
        key: Key::parse(key).unwrap(),
        hash: hash_of(data.as_bytes()),
        data: data.as_bytes().to_vec().into(),
    }
}

/// `n` messages of alice, keys k1…kn.
pub fn messages(in_room: &str, n: usize) -> Vec<NewMessage> {
    (1..=n).map(|i| message(in_room, "alice", &format!("k{i}"), &format!("{i}"))).collect()
}

/// What a test compares: stored at, was at, waits until, conflict.
#[derive(Debug, PartialEq, Eq)]
pub enum Is {
    New(u64),
    Old(u64),
    Waits(i64),
    Conflict,
}

pub async fn publish(store: &dyn Store, items: Vec<NewMessage>) -> Vec<Is> {
    let lane = items.first().map_or(0, |m| m.room.lane());
    let committed = store.publish(lane, LATER, items).await.unwrap();
    let stored = committed.rows.iter().any(|row| matches!(row.outcome, Outcome::Stored { .. }));
    assert_eq!(committed.note.is_some(), stored, "an outbox row exactly when something was stored");
    committed.rows.iter().map(|row| is(row.outcome)).collect()
}

pub fn is(outcome: Outcome) -> Is {
    match outcome {
        Outcome::Stored { seq, .. } => Is::New(seq),
        Outcome::Duplicate { seq } => Is::Old(seq),
        Outcome::Waits { due_ms } => Is::Waits(due_ms),
        Outcome::Conflict => Is::Conflict,
    }
}

pub fn after(name: &str, after: u64, limit: u32) -> Range {
    Range { room: room(name), after, before: None, limit }
}

/// `(oldest, head, seqs)` of one range.
pub async fn page(store: &dyn Store, range: Range) -> (u64, u64, Vec<u64>) {
    let pages = store.read(&[range], 1 << 20).await.unwrap().pages;
    (pages[0].oldest, pages[0].head, pages[0].messages.iter().map(|m| m.seq).collect())
}

pub async fn numbers_and_duplicates(rig: &mut impl Rig) {
    let store = rig.open().await;
    let mut group = messages("a", 3);
    group.push(message("b", "alice", "k1", "1"));
    assert_eq!(publish(&*store, group).await, [Is::New(1), Is::New(2), Is::New(3), Is::New(1)]);
    // A resend with something new in front of it, a reused key, and the same key by somebody else.
    let group = vec![
        message("a", "alice", "k4", "4"),
        message("a", "alice", "k2", "2"),
        message("a", "alice", "k3", "other"),
        message("a", "bob", "k2", "2"),
    ];
    assert_eq!(publish(&*store, group).await, [Is::New(4), Is::Old(2), Is::Conflict, Is::New(5)]);
    assert_eq!(publish(&*store, vec![]).await, []);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

pub async fn one_key_twice_in_a_group(rig: &mut impl Rig) {
    let store = rig.open().await;
    let group = vec![
        message("twice", "alice", "k", "1"),
        message("twice", "alice", "other", "1"),
        message("twice", "alice", "k", "1"),
        message("twice", "alice", "k", "2"),
    ];
    assert_eq!(publish(&*store, group).await, [Is::New(1), Is::New(2), Is::Old(1), Is::Conflict]);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

pub async fn what_was_stored_is_what_is_read(rig: &mut impl Rig) {
    let store = rig.open().await;
    let data = "{\"t\":\"grüße\\u0000\"}";
    let sent = store.publish(3, LATER, vec![message("read", "añn", "k", data)]).await.unwrap();
    let Outcome::Stored { seq: 1, at_ms } = sent.rows[0].outcome else { panic!("{sent:?}") };
    let pages = store.read(&[after("read", 0, 0)], 1).await.unwrap();
    assert_eq!(pages.epoch, sent.epoch);
    let found = &pages.pages[0].messages[0];
    assert_eq!((found.sender.as_str(), found.key.as_str(), &found.data[..]), ("añn", "k", data.as_bytes()));
    assert_eq!(found.at_ms, at_ms, "the answer and the table agree on the time");
    assert_eq!(store.heads(&[room("nobody"), room("read")]).await.unwrap().heads, [0, 1]);
    assert_eq!(store.epoch().await.unwrap(), sent.epoch);
}

pub async fn too_late_stores_nothing(rig: &mut impl Rig) {
    let store = rig.open().await;
    let error = store.publish(0, 1, messages("late", 2)).await.unwrap_err();
    assert_eq!(error.class(), Class::TooLate);
    assert!(error.definitely_not_stored());
    assert_eq!(page(&*store, after("late", 0, 0)).await, (1, 0, vec![]));
}

pub async fn closed_is_said(rig: &mut impl Rig) {
    let store = rig.open().await;
    assert_eq!(publish(&*store, messages("closed", 1)).await, [Is::New(1)]);
    store.close().await;
    store.close().await;
    let error = store.publish(0, LATER, messages("closed", 2)).await.unwrap_err();
    assert!(error.definitely_not_stored(), "{error}");
    assert!(store.heads(&[]).await.is_err());
}

pub async fn many_groups_at_once_are_each_whole(rig: &mut impl Rig) {
    let store = rig.open().await;
    // More than one commit takes along, from all lanes, into shared rooms and twice each.
    let groups = (0..96).map(|n| {
        let group: Vec<_> = (0..32)
            .map(|i| message(&format!("r{}", i % 3), "alice", &format!("{}-{i}", n / 2), "1"))
            .collect();
        let store = &store;
        async move { store.publish(n % 16, LATER, group).await.unwrap() }
    });
    let answers = join_all(groups).await;
    for (n, answer) in answers.iter().enumerate() {
        let new = answer.rows.iter().filter(|row| matches!(row.outcome, Outcome::Stored { .. })).count();
        assert!(new == 0 || new == 32, "{new} of group {n}");
        assert_eq!(answer.note.is_some(), new > 0);
    }
    let mut notes: Vec<_> = answers.iter().filter_map(|answer| answer.note).collect();
    notes.sort_unstable();
    notes.dedup();
    assert_eq!(notes.len(), 48, "each group once, with an outbox row of its own");
    let table = rig.table().await;
    assert_eq!((table.faults(), table.rows.len()), (vec![], 48 * 32));
}
