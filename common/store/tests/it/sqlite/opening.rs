//! What is refused, and that the words name the fix; who else may look at the file; epochs.

use std::fs;
use std::time::Duration;

use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{Class, Store, StoreError};
use sqlx::{Connection, Executor, Row};

use super::rig::{FileRig, outside, table_of};
use crate::cases::contract::{Is, LATER, after, messages, page, publish};
use crate::rig::Rig;

async fn refused(config: SqliteConfig) -> String {
    match SqliteStore::open(config).await {
        Err(StoreError::Misconfigured(text)) => text,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_file_has_one_store() {
    let rig = FileRig::start().await;
    let text = refused(SqliteConfig::at(rig.path())).await;
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    // By another name too.
    let alias = rig.path().with_file_name("alias.db");
    std::os::unix::fs::symlink(rig.path(), &alias).unwrap();
    assert!(refused(SqliteConfig::at(alias)).await.contains("is in use"));
    assert!(SqliteStore::new_epoch(&rig.path()).await.is_err());
    rig.open().await.close().await;
    assert!(SqliteStore::open(SqliteConfig::at(rig.path())).await.is_ok());
}

#[tokio::test]
async fn what_is_not_a_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    assert!(refused(SqliteConfig::at(path.join("store.db"))).await.contains("make the folder"));
    assert!(SqliteStore::new_epoch(&path).await.is_err(), "no store is made by that");
    assert!(!path.exists());

    fs::write(
        &path,
        "a letter to a friend, longer than the header of a database would be, one hundred bytes",
    )
    .unwrap();
    assert!(refused(SqliteConfig::at(&path)).await.contains("not a database"));
    fs::remove_file(&path).unwrap();

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    conn.execute("create table theirs (x)").await.unwrap();
    conn.close().await.unwrap();
    assert!(refused(SqliteConfig::at(&path)).await.contains("belongs to another program"));
}

#[tokio::test]
async fn others_read_while_it_runs_and_after_it_stopped() {
    let rig = FileRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 3)).await;
    let mut reader = outside(&rig.path(), true).await;
    reader.execute("begin").await.unwrap();
    let count = "select count(*) from messages";
    assert_eq!(reader.fetch_one(count).await.unwrap().get::<i64, _>(0), 3);
    // Whoever reads for long holds up nobody, and sees one instant.
    publish(&*store, messages("a", 500)).await;
    assert_eq!(reader.fetch_one(count).await.unwrap().get::<i64, _>(0), 3);
    store.close().await;
    assert_eq!(reader.fetch_one(count).await.unwrap().get::<i64, _>(0), 3);
    drop(reader);
    let table = table_of(&rig.path()).await;
    assert_eq!((table.faults(), table.rows.len()), (vec![], 500));
}

#[tokio::test]
async fn a_store_opened_again_goes_on() {
    let rig = FileRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 3)).await;
    let old = store.epoch().await.unwrap();
    store.close().await;
    assert!(!rig.path().with_file_name("store.db-wal").exists(), "a clean stop leaves one file");

    let store = SqliteStore::open(SqliteConfig::at(rig.path())).await.unwrap();
    assert!(store.is_durable());
    assert_eq!(store.epoch().await.unwrap(), old);
    assert_eq!(publish(&store, messages("a", 4)).await[2..], [Is::Old(3), Is::New(4)]);
    store.close().await;

    let new = SqliteStore::new_epoch(&rig.path()).await.unwrap();
    assert_ne!(new, old);
    let store = SqliteStore::open(SqliteConfig::at(rig.path())).await.unwrap();
    let sent = store.publish(0, LATER, messages("a", 5)).await.unwrap();
    assert_eq!((sent.epoch, store.epoch().await.unwrap()), (new, new));
}

#[tokio::test]
async fn another_file_is_another_history() {
    let (one, two) = (FileRig::start().await, FileRig::start().await);
    assert_ne!(one.open().await.epoch().await.unwrap(), two.open().await.epoch().await.unwrap());
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_itself_leaves_nothing() {
    let rig = FileRig::start().await;
    rig.open().await.close().await;
    let store = SqliteStore::open(SqliteConfig::at(rig.path())).await.unwrap();
    publish(&store, messages("a", 3)).await;
    // As some failed writes do: the driver still believes in the transaction, which is gone.
    rig.run(
        "create trigger gone before insert on messages when new.key = 'k9' \
         begin select raise(rollback, 'gone'); end",
    )
    .await;
    for _ in 0..3 {
        let error = store.publish(0, LATER, messages("a", 9)).await.unwrap_err();
        assert!(error.definitely_not_stored(), "{error}");
    }
    rig.run("drop trigger gone").await;
    assert_eq!(publish(&store, messages("a", 9)).await[3], Is::New(4));
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

#[tokio::test]
async fn who_waits_for_another_gives_up_for_certain() {
    let rig = FileRig::start().await;
    rig.open().await.close().await;
    let config = SqliteConfig { call_timeout: Duration::from_millis(600), ..SqliteConfig::at(rig.path()) };
    let store = SqliteStore::open(config).await.unwrap();
    let held = rig.hold().await;
    let calls = (0..4).map(|n| store.publish(n, LATER, messages(&format!("r{n}"), 1)));
    let answers = futures::future::join_all(calls).await;
    // Those behind it came so late to their turn that their time ended before the file's answer.
    let classes: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap_err().class()).collect();
    assert_eq!(classes[0], Class::Retry, "{answers:?}");
    assert!(classes.iter().all(|class| [Class::Retry, Class::Unknown].contains(class)), "{answers:?}");
    drop(held);
    assert_eq!(publish(&store, messages("r0", 2)).await, [Is::New(1), Is::New(2)]);
    assert_eq!(page(&store, after("r1", 0, 0)).await, (1, 0, vec![]));
}

#[tokio::test]
async fn times_of_a_room_do_not_follow_a_clock_that_is_set_back() {
    let rig = FileRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    // As if the clock had been half a minute ahead until now; by more than a minute no time may stay ahead.
    rig.run("update messages set at_ms = at_ms + 30000; update rooms set at_ms = at_ms + 30000").await;
    publish(&*store, messages("a", 3)).await;
    publish(&*store, messages("b", 1)).await;
    let table = rig.table().await;
    assert_eq!(table.faults(), [""; 0]);
    let ahead = |room: &str| table.rows.iter().filter(|row| row.room == room).map(|row| row.at_ms).max();
    assert!(ahead("b") < ahead("a"), "other rooms have the clock's time");
}
