//! What callers are told when things go wrong: never "not stored" on a guess (A3, A7, A11).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use sluice_store::{Class, Outcome, StoreError};

use super::contract::{Is, LATER, after, message, messages, page, publish};
use crate::rig::Rig;

pub async fn a_poison_item_is_told_from_a_bad_day(rig: &mut impl Rig) {
    let store = rig.open().await;
    rig.refuse_poison().await;
    let group = vec![message("a", "alice", "1", "fine"), message("a", "alice", "2", "poison")];
    let error = store.publish(0, LATER, group.clone()).await.unwrap_err();
    assert_eq!(error.class(), Class::Reject, "{error}");
    // Run singly, as the caller will.
    assert_eq!(publish(&*store, group[..1].to_vec()).await, [Is::New(1)]);
    assert_eq!(store.publish(0, LATER, group[1..].to_vec()).await.unwrap_err().class(), Class::Reject);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

pub async fn a_poison_item_harms_no_other_group(rig: &mut impl Rig) {
    let store = rig.open().await;
    rig.refuse_poison().await;
    let calls = (0..48).map(|n| {
        let data = if n % 6 == 0 { "poison" } else { "fine" };
        let group = vec![
            message("a", "alice", &format!("{n}-1"), "fine"),
            message("a", "alice", &format!("{n}-2"), data),
        ];
        let store = &store;
        async move { (n % 6 == 0, store.publish(0, LATER, group).await) }
    });
    for (poisoned, answer) in join_all(calls).await {
        match answer {
            Ok(_) => assert!(!poisoned),
            Err(error) => assert!(poisoned && error.class() == Class::Reject, "{error}"),
        }
    }
    let table = rig.table().await;
    assert_eq!((table.faults(), table.rows.len()), (vec![], 80));
}

pub async fn a_key_stored_twice_would_be_an_alarm_not_the_senders_fault(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 2)).await;
    // Corrupt the head, as a lost commit would: the next position is taken already.
    rig.run("update rooms set head = 1").await;
    let error = store.publish(0, LATER, vec![message("a", "bob", "k", "1")]).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");
}

pub async fn a_lock_held_too_long_rolls_back_for_certain(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let held = rig.hold().await;
    let error = store.publish(0, LATER, messages("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::RolledBack { .. }), "{error}");
    assert!(error.definitely_not_stored());
    drop(held);
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::Old(1), Is::New(2)]);
}

pub async fn a11_not_after_is_judged_under_the_locks(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let held = rig.hold().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let (late, ()) = tokio::join!(store.publish(0, now + 200, messages("a", 2)), async {
        tokio::time::sleep(Duration::from_millis(350)).await;
        drop(held);
    });
    assert_eq!(late.unwrap_err().class(), Class::TooLate);
    assert_eq!(page(&*store, after("a", 0, 0)).await, (1, 1, vec![1]));
    // In time is in time.
    assert!(store.publish(0, now + 60_000, messages("a", 2)).await.is_ok());
}

pub async fn a_cancelled_publish_leaves_no_transaction_behind(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    for n in 2..60 {
        // Cut off at a different point each time, from before sending to after the answer.
        let allowed = Duration::from_micros(100 * u64::try_from(n).unwrap());
        drop(tokio::time::timeout(allowed, store.publish(0, LATER, messages("a", n))).await);
        let again = store.publish(0, LATER, messages("a", n)).await.unwrap();
        assert_eq!(again.rows.len(), n);
        assert!(again.rows.iter().all(|row| !matches!(row.outcome, Outcome::Conflict)));
    }
    assert_eq!(rig.table().await.faults(), [""; 0]);
    assert_eq!(rig.open_transactions().await, 0);
}

pub async fn close_does_not_wait_for_ever(rig: &mut impl Rig) {
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let held = rig.hold().await;
    let started = tokio::time::Instant::now();
    let (stuck, ()) = tokio::join!(store.publish(0, LATER, messages("a", 2)), async {
        tokio::task::yield_now().await;
        store.close().await;
    });
    assert!(stuck.is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(matches!(store.epoch().await, Err(StoreError::Closed)));
    drop(held);
}

pub async fn the_epoch_stays_over_a_crash(rig: &mut impl Rig) {
    let store = rig.open().await;
    let old = store.epoch().await.unwrap();
    publish(&*store, messages("a", 2)).await;
    rig.crash().await;
    let store = rig.open().await;
    assert_eq!(publish(&*store, messages("a", 3)).await, [Is::Old(1), Is::Old(2), Is::New(3)]);
    assert_eq!(store.epoch().await.unwrap(), old);
}
