//! What callers are told when things go wrong: never "not stored" on a guess (A3, A7, A11).

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_store::postgres::{PgConfig, PgStore};
use sluice_store::{Class, Store, StoreError};
use sqlx::{Connection, Executor, Row};

use crate::contract::{Is, LATER, after, message, messages, page, publish, room};
use crate::rig::{PgRig, Rig};

#[tokio::test]
async fn a_poison_item_is_told_from_a_bad_day() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    rig.0.run("alter table messages add constraint taste check (data <> 'poison')").await;
    let group = vec![message("a", "alice", "1", "fine"), message("a", "alice", "2", "poison")];
    let error = store.publish(0, LATER, group.clone()).await.unwrap_err();
    assert_eq!(error.class(), Class::Reject, "{error}");
    assert!(matches!(&error, StoreError::Poison { sqlstate, .. } if sqlstate == "23514"));
    // Run singly, as the caller will.
    assert_eq!(publish(&*store, group[..1].to_vec()).await, [Is::New(1)]);
    assert_eq!(store.publish(0, LATER, group[1..].to_vec()).await.unwrap_err().class(), Class::Reject);
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

#[tokio::test]
async fn a_key_stored_twice_would_be_an_alarm_not_the_senders_fault() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 2)).await;
    // Corrupt the head, as a lost commit would: the next position is taken already.
    rig.0.run("update rooms set head = 1").await;
    let error = store.publish(0, LATER, vec![message("a", "bob", "k", "1")]).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");
}

#[tokio::test]
async fn a_lock_held_too_long_rolls_back_for_certain() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let mut holder = rig.0.sql().await;
    holder.execute("begin; select from rooms for update").await.unwrap();
    let error = store.publish(0, LATER, messages("a", 2)).await.unwrap_err();
    assert!(matches!(&error, StoreError::RolledBack { sqlstate, .. } if sqlstate == "55P03"), "{error}");
    assert!(error.definitely_not_stored());
    holder.execute("rollback").await.unwrap();
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::Old(1), Is::New(2)]);
}

#[tokio::test]
async fn a11_not_after_is_judged_under_the_locks() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let mut holder = rig.0.sql().await;
    let now = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
    holder.execute("begin; select from rooms for update").await.unwrap();
    let now: i64 = holder.fetch_one(now).await.unwrap().get(0);
    let (late, ()) = tokio::join!(store.publish(0, now + 400, messages("a", 2)), async {
        holder.execute("select pg_sleep(0.6)").await.unwrap();
        holder.execute("commit").await.unwrap();
    });
    assert_eq!(late.unwrap_err().class(), Class::TooLate);
    assert_eq!(page(&*store, after("a", 0, 0)).await, (1, 1, vec![1]));
    // In time is in time.
    assert!(store.publish(0, now + 60_000, messages("a", 2)).await.is_ok());
}

#[tokio::test]
async fn a_frozen_server_is_left_at_the_deadline_and_its_outcome_is_unknown() {
    let rig = PgRig::start().await;
    let config = PgConfig { call_timeout: Duration::from_millis(500), ..PgConfig::new(rig.0.url()) };
    let store = PgStore::connect(config).await.unwrap();
    assert!(store.publish(0, LATER, messages("a", 1)).await.is_ok());
    let sessions = "select pid::text from pg_stat_activity where query like '%publish_v1%' \
                    and application_name = 'sluice'";
    let pid: i32 = rig.0.run(sessions).await[0].get::<&str, _>(0).parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let error = store.publish(0, LATER, messages("a", 2)).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error}");
    // The next call of the lane has another connection and need not wait.
    assert!(store.publish(0, LATER, messages("b", 1)).await.is_ok());
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    // Thawed, it stores the group or not; the retry finds out, and both answers are right.
    let again = publish(&store, messages("a", 2)).await;
    assert!([Is::New(2), Is::Old(2)].contains(&again[1]), "{again:?}");
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

#[tokio::test]
async fn a_cancelled_publish_leaves_no_transaction_behind() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    for n in 2..30 {
        // Cut off at a different point each time, from before sending to after the answer.
        let allowed = Duration::from_micros(100 * u64::try_from(n).unwrap());
        drop(tokio::time::timeout(allowed, store.publish(0, LATER, messages("a", n))).await);
        let again = store.publish(0, LATER, messages("a", n)).await.unwrap();
        assert_eq!(again.rows.len(), n);
    }
    assert_eq!(rig.table().await.faults(), [""; 0]);
    let open = rig.0.run("select from pg_stat_activity where state like 'idle in transaction%'").await;
    assert_eq!(open.len(), 0);
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_is_down() {
    let mut rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    rig.0.down();
    // A lane that had a connection cannot know what became of the group; without one it is certain.
    let lane = room("a").lane();
    let first = store.publish(lane, LATER, messages("a", 2)).await.unwrap_err();
    assert_eq!(first.class(), Class::Unknown, "{first}");
    let second = store.publish(lane, LATER, messages("a", 2)).await.unwrap_err();
    assert!(second.definitely_not_stored(), "{second}");
    assert!(store.heads(&[]).await.is_err());
    rig.0.up().await;
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::Old(1), Is::New(2)]);
    assert!(store.heads(&[]).await.is_ok());
}

#[tokio::test]
async fn close_does_not_wait_for_ever() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let mut holder = rig.0.sql().await;
    holder
        .execute("begin; select from rooms for update; set idle_in_transaction_session_timeout = 0")
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    let (stuck, ()) = tokio::join!(store.publish(0, LATER, messages("a", 2)), async {
        tokio::task::yield_now().await;
        store.close().await;
    });
    assert!(stuck.is_err());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(matches!(store.epoch().await, Err(StoreError::Closed)));
    holder.close().await.unwrap();
}
