//! Messages that are to be published later: each once, none early, and none that was cancelled (D4, D5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use sluice_proto::ids::{Key, UserId};
use sluice_store::{
    Class, DelayedItem, DelayedOutcome, Due, Fired, LockedRooms, NewMessage, Store, StoreError, WaitingLimit,
};

use super::contract::{Is, LATER, after, message, page, publish, room};
use crate::rig::Rig;

const HOUR_MS: i64 = 3_600_000;

fn schedule(message: NewMessage, due: Due) -> DelayedItem {
    DelayedItem::Schedule { message, due }
}

fn cancel(in_room: &str, sender: &str, key: &str) -> DelayedItem {
    DelayedItem::Cancel {
        room: room(in_room),
        sender: UserId::parse(sender).unwrap(),
        key: Key::parse(key).unwrap(),
    }
}

async fn delay(store: &dyn Store, items: Vec<DelayedItem>) -> Vec<DelayedOutcome> {
    let lane = match &items[0] {
        DelayedItem::Schedule { message, .. } => message.room.lane(),
        DelayedItem::Cancel { room, .. } => room.lane(),
    };
    store.delay(lane, LATER, &WaitingLimit::default(), items).await.unwrap()
}

async fn one(store: &dyn Store, item: DelayedItem) -> DelayedOutcome {
    delay(store, vec![item]).await[0]
}

/// All that is due of the lane of a room, now.
async fn fire(store: &dyn Store, name: &str) -> Fired {
    store.fire_due(room(name).lane(), 256, &LockedRooms::default()).await.unwrap()
}

pub async fn what_is_due_is_published_once_with_its_key(rig: &mut impl Rig) {
    let store = rig.open().await;
    let lanes = [room("a").lane()];
    assert_eq!(store.next_due(&lanes).await.unwrap(), None);
    assert_eq!(publish(&*store, vec![message("a", "bob", "k", "0")]).await, [Is::New(1)]);
    let late = schedule(message("a", "alice", "late", "1"), Due::In(HOUR_MS));
    let soon = schedule(message("a", "alice", "soon", "2"), Due::At(1));
    let outcomes = delay(&*store, vec![late, soon]).await;
    assert!(matches!(outcomes[0], DelayedOutcome::Waits { due_ms } if due_ms > HOUR_MS), "{outcomes:?}");
    assert_eq!(outcomes[1], DelayedOutcome::Waits { due_ms: 1 });
    assert_eq!(store.next_due(&lanes).await.unwrap(), Some(Duration::ZERO));

    let fired = fire(&*store, "a").await;
    assert_eq!((fired.taken, fired.conflicts, fired.epoch), (1, 0, store.epoch().await.unwrap()));
    let runs: Vec<_> = fired.runs.iter().map(|run| (run.room.as_str(), run.first, run.last)).collect();
    assert_eq!(runs, [("a", 2, 2)]);
    assert!(fired.note.is_some(), "subscribers are owed a notice");
    let stored = store.read(&[after("a", 1, 0)], 1 << 20).await.unwrap().pages[0].messages.clone();
    let stored: Vec<_> = stored.iter().map(|m| (m.sender.as_str(), m.key.as_str(), &m.data[..])).collect();
    assert_eq!(stored, [("alice", "soon", &b"2"[..])]);

    assert_eq!(fire(&*store, "a").await.taken, 0, "once, and nothing early");
    let next = store.next_due(&lanes).await.unwrap().unwrap();
    assert!(next > Duration::from_secs(3_500) && next <= Duration::from_secs(3_600), "{next:?}");
    // A resend of the publish itself finds it too.
    assert_eq!(publish(&*store, vec![message("a", "alice", "soon", "2")]).await, [Is::Old(2)]);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

pub async fn what_is_sent_again_finds_the_first(rig: &mut impl Rig) {
    let store = rig.open().await;
    let again = |data: &str, due| schedule(message("a", "alice", "k", data), due);
    let first = one(&*store, again("1", Due::In(HOUR_MS))).await;
    assert_eq!(one(&*store, again("1", Due::At(5))).await, first, "the first due counts");
    assert_eq!(one(&*store, again("2", Due::At(5))).await, DelayedOutcome::Conflict);
    let other = schedule(message("a", "bob", "k", "1"), Due::At(5));
    assert_eq!(
        one(&*store, other.clone()).await,
        DelayedOutcome::Waits { due_ms: 5 },
        "a key is its sender's"
    );
    assert_eq!(fire(&*store, "a").await.taken, 1);
    // After it was fired: a second one would be a second message (D4).
    assert_eq!(one(&*store, other).await, DelayedOutcome::Published { seq: 1 });
    let reused = schedule(message("a", "bob", "k", "2"), Due::At(5));
    assert_eq!(one(&*store, reused).await, DelayedOutcome::Conflict);
    assert_eq!((fire(&*store, "a").await.taken, page(&*store, after("a", 0, 0)).await.1), (0, 1));
    // Twice in one group, and a key that was published at once.
    publish(&*store, vec![message("a", "alice", "now", "1")]).await;
    let twice = schedule(message("a", "alice", "twice", "1"), Due::At(7));
    let now = schedule(message("a", "alice", "now", "1"), Due::At(7));
    let outcomes = delay(&*store, vec![twice.clone(), now, twice]).await;
    let waits = DelayedOutcome::Waits { due_ms: 7 };
    assert_eq!(outcomes, [waits, DelayedOutcome::Published { seq: 2 }, waits]);
}

pub async fn a_cancel_is_final_and_can_be_sent_again(rig: &mut impl Rig) {
    let store = rig.open().await;
    let item = || schedule(message("a", "alice", "k", "1"), Due::At(1));
    assert_eq!(one(&*store, cancel("a", "alice", "k")).await, DelayedOutcome::NothingWaits);
    one(&*store, item()).await;
    assert_eq!(one(&*store, cancel("a", "bob", "k")).await, DelayedOutcome::NothingWaits, "not bob's");
    assert_eq!(one(&*store, cancel("a", "alice", "k")).await, DelayedOutcome::Cancelled);
    assert_eq!(one(&*store, cancel("a", "alice", "k")).await, DelayedOutcome::Cancelled, "sent again");
    // A late copy of the call that scheduled it.
    assert_eq!(one(&*store, item()).await, DelayedOutcome::Cancelled);
    assert_eq!(store.next_due(&[room("a").lane()]).await.unwrap(), None);
    assert_eq!(fire(&*store, "a").await.taken, 0);

    let both = delay(
        &*store,
        vec![schedule(message("a", "alice", "k2", "1"), Due::At(1)), cancel("a", "alice", "k2")],
    );
    assert_eq!(both.await[1], DelayedOutcome::Cancelled, "in the order they came");
    one(&*store, schedule(message("a", "alice", "fired", "1"), Due::At(1))).await;
    assert_eq!(fire(&*store, "a").await.taken, 1);
    assert_eq!(one(&*store, cancel("a", "alice", "fired")).await, DelayedOutcome::NothingWaits, "too late");

    assert_eq!(store.forget_cancelled(Duration::from_secs(60), 10).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(store.forget_cancelled(Duration::ZERO, 1).await.unwrap(), 1, "the limit holds");
    assert_eq!(store.forget_cancelled(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(one(&*store, item()).await, DelayedOutcome::Waits { due_ms: 1 });
}

pub async fn a_delay_that_comes_too_late_stores_nothing(rig: &mut impl Rig) {
    let store = rig.open().await;
    let item = schedule(message("a", "alice", "k", "1"), Due::At(1));
    let error = store.delay(room("a").lane(), 1, &WaitingLimit::default(), vec![item]).await.unwrap_err();
    assert_eq!(error.class(), Class::TooLate);
    assert_eq!(store.next_due(&[room("a").lane()]).await.unwrap(), None);
}

pub async fn one_step_fires_no_more_than_its_limit(rig: &mut impl Rig) {
    let store = rig.open().await;
    let item = |n: i64| schedule(message("a", "alice", &format!("k{n}"), "1"), Due::At(10 - n));
    delay(&*store, (0..5).map(item).collect()).await;
    let (lane, none) = (room("a").lane(), LockedRooms::default());
    assert_eq!(store.fire_due(lane, 3, &none).await.unwrap().taken, 3);
    let other = (lane + 1) % 16;
    assert_eq!(store.fire_due(other, 3, &none).await.unwrap().taken, 0, "of another lane");
    assert_eq!(store.fire_due(lane, 3, &none).await.unwrap().taken, 2);
    let stored = store.read(&[after("a", 0, 0)], 1 << 20).await.unwrap().pages[0].messages.clone();
    let keys: Vec<_> = stored.iter().map(|m| m.key.as_str()).collect();
    assert_eq!(keys, ["k4", "k3", "k2", "k1", "k0"], "what is due first is fired first");
}

pub async fn no_more_of_a_user_wait_than_may(rig: &mut impl Rig) {
    let store = rig.open().await;
    let item =
        |name: &str, sender: &str, key: &str| schedule(message(name, sender, key, "1"), Due::In(HOUR_MS));
    let within = async |max, items: Vec<DelayedItem>| {
        let lane = match &items[0] {
            DelayedItem::Schedule { message, .. } => message.room.lane(),
            DelayedItem::Cancel { room, .. } => room.lane(),
        };
        store.delay(lane, LATER, &WaitingLimit::per_sender(max), items).await.unwrap()
    };
    let waits = |outcome: &DelayedOutcome| matches!(outcome, DelayedOutcome::Waits { .. });
    let three = ["k1", "k2", "k3"].map(|key| item("a", "alice", key)).to_vec();
    let outcomes = within(2, three).await;
    assert!(waits(&outcomes[0]) && waits(&outcomes[1]), "{outcomes:?}");
    assert_eq!(outcomes[2], DelayedOutcome::TooMany);
    // In all rooms together, and each user for themself.
    assert_eq!(within(2, vec![item("b", "alice", "k1")]).await, [DelayedOutcome::TooMany]);
    assert!(waits(&within(2, vec![item("b", "bob", "k1")]).await[0]));
    // What is sent again is answered as before, also above a limit that has become smaller.
    assert!(waits(&within(1, vec![item("a", "alice", "k1")]).await[0]));
    let other = schedule(message("a", "alice", "k1", "2"), Due::At(1));
    assert_eq!(within(1, vec![other]).await, [DelayedOutcome::Conflict]);
    publish(&*store, vec![message("b", "alice", "now", "1")]).await;
    assert_eq!(within(2, vec![item("b", "alice", "now")]).await, [DelayedOutcome::Published { seq: 1 }]);
    // Whoever takes one back has a place, also in the same call.
    let swap =
        within(2, vec![cancel("a", "alice", "k1"), item("a", "alice", "k4"), item("a", "alice", "k5")]);
    let swap = swap.await;
    assert_eq!((swap[0], swap[2]), (DelayedOutcome::Cancelled, DelayedOutcome::TooMany));
    assert!(waits(&swap[1]), "{swap:?}");
    // What was refused has left no trace; with 0 there is no limit.
    assert_eq!(one(&*store, cancel("a", "alice", "k5")).await, DelayedOutcome::NothingWaits);
    assert!(waits(&within(0, vec![item("a", "alice", "k5")]).await[0]));
    // What was fired waits no more.
    one(&*store, schedule(message("c", "carol", "k1", "1"), Due::At(1))).await;
    assert_eq!(within(1, vec![item("c", "carol", "k2")]).await, [DelayedOutcome::TooMany]);
    assert_eq!(fire(&*store, "c").await.taken, 1);
    assert!(waits(&within(1, vec![item("c", "carol", "k2")]).await[0]));
}

pub async fn no_more_wait_by_an_api_key_than_may_whoever_sends_them(rig: &mut impl Rig) {
    let store = rig.open().await;
    let item =
        |name: &str, sender: &str, key: &str| schedule(message(name, sender, key, "1"), Due::In(HOUR_MS));
    let by = async |api_key: &str, max, items: Vec<DelayedItem>| {
        let lane = match &items[0] {
            DelayedItem::Schedule { message, .. } => message.room.lane(),
            DelayedItem::Cancel { room, .. } => room.lane(),
        };
        let limit = WaitingLimit { max, api_key: Some(api_key.into()) };
        store.delay(lane, LATER, &limit, items).await.unwrap()
    };
    let waits = |outcome: &DelayedOutcome| matches!(outcome, DelayedOutcome::Waits { .. });
    // What a client scheduled, or another key, is not among them.
    one(&*store, item("a", "alice", "own")).await;
    assert!(waits(&by("other", 1, vec![item("a", "alice", "k0")]).await[0]));
    let outcomes =
        by("key", 2, vec![item("a", "alice", "k1"), item("a", "bob", "k1"), item("a", "carol", "k1")]).await;
    assert!(waits(&outcomes[0]) && waits(&outcomes[1]), "{outcomes:?}");
    assert_eq!(outcomes[2], DelayedOutcome::TooMany);
    assert_eq!(by("key", 2, vec![item("b", "dora", "k1")]).await, [DelayedOutcome::TooMany]);
    assert!(waits(&by("key", 0, vec![item("b", "dora", "k1")]).await[0]), "any number");
    assert!(waits(&by("key", 1, vec![item("a", "alice", "k1")]).await[0]), "as it was answered before");
    // Taking back one of its own gives it a place, one of somebody else does not.
    one(&*store, cancel("b", "dora", "k1")).await;
    let foreign = by("key", 2, vec![cancel("a", "alice", "own"), item("a", "erin", "k1")]).await;
    assert_eq!(foreign, [DelayedOutcome::Cancelled, DelayedOutcome::TooMany]);
    let own = by("key", 2, vec![cancel("a", "alice", "k1"), item("a", "erin", "k1")]).await;
    assert!(own[0] == DelayedOutcome::Cancelled && waits(&own[1]), "{own:?}");
    // In a user's name it counts among that user's.
    let limit = WaitingLimit::per_sender(1);
    let theirs = store.delay(room("a").lane(), LATER, &limit, vec![item("a", "erin", "k2")]).await.unwrap();
    assert_eq!(theirs, [DelayedOutcome::TooMany]);
}

pub async fn a_key_that_waits_is_not_published_at_once(rig: &mut impl Rig) {
    let store = rig.open().await;
    one(&*store, schedule(message("a", "alice", "k", "1"), Due::At(7))).await;
    one(&*store, schedule(message("a", "alice", "gone", "1"), Due::At(7))).await;
    one(&*store, cancel("a", "alice", "gone")).await;
    let mine = |key: &str, data: &str| message("a", "alice", key, data);
    let group = vec![
        mine("k", "1"),
        mine("new", "1"),
        mine("k", "2"),
        mine("gone", "1"),
        message("a", "bob", "k", "1"),
        mine("k", "1"),
    ];
    let answers = publish(&*store, group).await;
    let expected = [Is::Waits(7), Is::New(1), Is::Conflict, Is::Conflict, Is::New(2), Is::Waits(7)];
    assert_eq!(answers, expected);
    assert_eq!(publish(&*store, vec![mine("k", "1")]).await, [Is::Waits(7)], "alone, nothing is owed");
    let fired = fire(&*store, "a").await;
    assert_eq!((fired.taken, fired.conflicts), (1, 0), "it comes when it is due");
    assert_eq!(publish(&*store, vec![mine("k", "1"), mine("k", "2")]).await, [Is::Old(3), Is::Conflict]);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

const RACED: u64 = 400;

/// Each key is asked for twice at the same time, to be kept and to be published at once: one of both has it.
pub async fn a_key_is_kept_or_published_and_never_both(rig: &mut impl Rig) {
    let handles = [rig.open().await, rig.open().await];
    let lane = room("race").lane();
    let (none, data) = (LockedRooms::default(), |n: u64| message("race", "alice", &format!("k{n}"), "1"));
    let mut kept = 0;
    for part in 0..RACED / 4 {
        let keys = || part * 4..(part + 1) * 4;
        let later = keys().map(|n| schedule(data(n), Due::In(HOUR_MS))).collect();
        let (later, now) = tokio::join!(
            delay(&*handles[0], later),
            publish(&*handles[1], keys().map(data).collect::<Vec<_>>())
        );
        for (later, now) in later.iter().zip(&now) {
            match (later, now) {
                (DelayedOutcome::Waits { due_ms }, Is::Waits(also)) if due_ms == also => kept += 1,
                (DelayedOutcome::Published { seq }, Is::New(also)) if seq == also => {}
                _ => panic!("{later:?} and {now:?}"),
            }
        }
    }
    assert_eq!(handles[0].fire_due(lane, 256, &none).await.unwrap().taken, 0, "none is due");
    let table = rig.table().await;
    assert_eq!(table.faults(), [""; 0]);
    assert_eq!(table.rows.len() as u64 + kept, RACED);
}

const SCHEDULED: u64 = 3_000;

/// What was heard while firing and cancelling raced.
#[derive(Default)]
struct Heard {
    cancelled: AtomicU64,
    too_late: AtomicU64,
    fires: AtomicU64,
}

/// Until the call is answered: every one of these may be made again.
async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!([Class::Retry, Class::Unknown].contains(&error.class()), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn fire_all(store: Arc<dyn Store>, lane: u8, heard: &Heard) {
    while insist(async || store.next_due(&[lane]).await).await.is_some() {
        insist(async || store.fire_due(lane, 64, &LockedRooms::default()).await).await;
        heard.fires.fetch_add(1, Ordering::Relaxed);
    }
}

async fn cancel_some(store: Arc<dyn Store>, keys: impl Iterator<Item = u64>, heard: &Heard) {
    for key in keys {
        let item = cancel("race", "alice", &format!("k{key}"));
        let any = WaitingLimit::default();
        let answer =
            insist(async || store.delay(room("race").lane(), LATER, &any, vec![item.clone()]).await).await;
        let count = match answer[0] {
            DelayedOutcome::Cancelled => &heard.cancelled,
            DelayedOutcome::NothingWaits => &heard.too_late,
            DelayedOutcome::Waits { .. }
            | DelayedOutcome::Published { .. }
            | DelayedOutcome::Conflict
            | DelayedOutcome::TooMany => {
                panic!("{answer:?}")
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub async fn d5_whatever_is_cancelled_is_not_fired_and_the_rest_once(rig: &mut impl Rig) {
    let handles = [rig.open().await, rig.open().await];
    let lane = room("race").lane();
    let item = |n| schedule(message("race", "alice", &format!("k{n}"), "1"), Due::At(1));
    for part in 0..SCHEDULED / 250 {
        delay(&*handles[0], (part * 250..(part + 1) * 250).map(item).collect()).await;
    }
    let heard = Heard::default();
    let firers = (0..4).map(|n| fire_all(Arc::clone(&handles[n % 2]), lane, &heard));
    // From the end, which is fired last, and each key by two who ask.
    let cancels =
        (0..2).map(|n| cancel_some(Arc::clone(&handles[n]), (SCHEDULED / 2..SCHEDULED).rev(), &heard));
    let cuts = async {
        for _ in 0..10 {
            rig.cut().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::join!(join_all(firers), join_all(cancels), cuts);

    let table = rig.table().await;
    assert_eq!(table.faults(), [""; 0]);
    let (cancelled, too_late) =
        (heard.cancelled.load(Ordering::Relaxed), heard.too_late.load(Ordering::Relaxed));
    assert_eq!(cancelled + too_late, SCHEDULED, "each was asked for twice");
    assert_eq!(cancelled % 2, 0, "both who asked heard the same");
    assert_eq!(cancelled / 2 + table.rows.len() as u64, SCHEDULED, "cancelled + fired = scheduled");
    // Sent again now, none comes to life.
    let store = &handles[0];
    let outcomes = delay(&**store, (SCHEDULED - 250..SCHEDULED).map(item).collect()).await;
    let ended = |outcome: &DelayedOutcome| {
        matches!(outcome, DelayedOutcome::Cancelled | DelayedOutcome::Published { .. })
    };
    assert!(outcomes.iter().all(ended), "{outcomes:?}");
    let published = publish(&**store, vec![message("race", "alice", "k0", "1")]).await;
    assert!(matches!(published[..], [Is::Old(_)]), "{published:?}");
}
