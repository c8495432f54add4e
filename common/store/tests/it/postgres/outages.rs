//! What callers are told when the server is frozen, gone or holds them up.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_store::postgres::{PgConfig, PgStore};
use sluice_store::{Class, Range, Store, StoreError};
use sqlx::Row;

use super::rig::PgRig;
use crate::cases::contract::{Is, LATER, message, messages, publish, room};
use crate::rig::Rig;

#[tokio::test]
async fn a_frozen_server_is_left_at_the_deadline_and_its_outcome_is_unknown() {
    let rig = PgRig::start().await;
    let config = PgConfig {
        call_timeout: Duration::from_millis(500),
        lane_connections: 1,
        ..PgConfig::new(rig.0.url())
    };
    let store = PgStore::connect(config).await.unwrap();
    assert!(store.publish(0, LATER, messages("a", 1)).await.is_ok());
    let sessions = "select pid::text from pg_stat_activity where query like '%publish_v2%' \
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
async fn a_store_that_was_opened_has_a_connection_for_each_lane_and_stored_nothing() {
    let rig = PgRig::start().await;
    let config = PgConfig { lane_connections: 5, ..PgConfig::new(rig.0.url()) };
    let store = PgStore::connect(config).await.unwrap();
    let lanes =
        "select from pg_stat_activity where query like '%publish_v2%' and application_name = 'sluice'";
    assert_eq!(rig.0.run(lanes).await.len(), 5);
    let table = rig.table().await;
    assert_eq!((table.heads.len(), table.rows.len(), table.owed.len()), (0, 0, 0));
    // the first number of a room is 1, and the lanes have not opened others for it
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
    assert_eq!(rig.0.run(lanes).await.len(), 5);
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
async fn the_servers_own_code_is_told() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    rig.refuse_poison().await;
    let poison = vec![message("a", "alice", "1", "poison")];
    let error = store.publish(0, LATER, poison).await.unwrap_err();
    assert!(matches!(&error, StoreError::Poison { sqlstate, .. } if sqlstate == "23514"), "{error}");
    publish(&*store, messages("a", 1)).await;
    let held = rig.hold().await;
    let error = store.publish(0, LATER, messages("a", 2)).await.unwrap_err();
    assert!(matches!(&error, StoreError::RolledBack { sqlstate, .. } if sqlstate == "55P03"), "{error}");
    drop(held);
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_ends_in_the_server_too() {
    let rig = PgRig::start().await;
    let config = PgConfig { read_connections: 1, ..PgConfig::new(rig.0.url()) };
    let store = PgStore::connect(config).await.unwrap();
    // Answers long after the statement timeout of 3 s.
    rig.run("alter function read_v1 rename to read_v1_before").await;
    rig.run(
        "create function read_v1(p_room text[], p_after bigint[], p_before bigint[], p_limit int[], p_bytes bigint) \
         returns table (ord int, head bigint, oldest bigint, deferred boolean, seq bigint, sender text, key text, \
         at_ms bigint, data bytea) language plpgsql as $$ begin perform pg_sleep(60); end $$",
    )
    .await;
    let busy = "select from pg_stat_activity where query like '%from read_v1(%' and state = 'active' \
                and application_name = 'sluice'";
    let ranges = [Range { room: room("a"), after: 0, before: None, limit: 1 }];
    {
        let read = store.read(&ranges, 1_000);
        let begun = until(async || rig.0.run(busy).await.len() == 1);
        tokio::select! {
            biased;
            answer = read => panic!("{answer:?}"),
            () = begun => {}
        }
    }
    let left = Instant::now();
    until(async || rig.0.run(busy).await.is_empty()).await;
    // By a request to cancel it, not by the statement timeout.
    assert!(left.elapsed() < Duration::from_millis(2_500), "gone after {:?}", left.elapsed());
    // The pool has its place back, on another connection.
    assert!(store.heads(&[room("a")]).await.is_ok());
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < by, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
