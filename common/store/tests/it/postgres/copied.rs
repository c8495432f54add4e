//! A store in one file is copied into a database: all of it, all or nothing, with its epoch, for as long as the database
//! is the one it was copied into.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_proto::ids::{Key, UserId};
use sluice_store::copy::{ANSWER_WITHIN, Copied, copy};
use sluice_store::postgres::{PgAccess, PgConfig, PgStore, new_epoch};
use sluice_store::sqlite::{SqliteConfig, SqliteStore};
use sluice_store::{DelayedItem, DelayedOutcome, Due, Store, StoreError, WaitingLimit};
use sqlx::Connection as _;

use super::hole::Hole;
use super::server::PgServer;
use crate::cases::contract::{Is, LATER, after, message, messages, page, publish, room};

async fn copied(file: &Path, server: &PgServer) -> Result<Copied, StoreError> {
    copy(file, &PgAccess::at(server.url()), ANSWER_WITHIN, |_| {}).await
}

fn delay(key: &str) -> DelayedItem {
    DelayedItem::Schedule { message: message("later", "ann", key, "1"), due: Due::In(3_600_000) }
}

async fn pg(server: &PgServer) -> PgStore {
    PgStore::connect(PgConfig::new(server.url())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_is_there_and_positions_stay_good_until_the_database_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let file = SqliteStore::open(SqliteConfig::at(&path)).await.unwrap();
    publish(&file, messages("a", 1_100)).await;
    publish(&file, messages("b", 3)).await;
    let lane = room("later").lane();
    let kept = file
        .delay(lane, LATER, &WaitingLimit::default(), vec![delay("kept"), delay("cancelled")])
        .await
        .unwrap();
    let cancel = DelayedItem::Cancel {
        room: room("later"),
        sender: UserId::parse("ann").unwrap(),
        key: Key::parse("cancelled").unwrap(),
    };
    file.delay(lane, LATER, &WaitingLimit::default(), vec![cancel]).await.unwrap();
    let user = UserId::parse("eve").unwrap();
    let revoked = file.revoke(&user, Some(17)).await.unwrap();
    let epoch = file.epoch().await.unwrap();
    let owed = file.stale_notes(Duration::ZERO, 100).await.unwrap();

    let server = PgServer::start().await;
    let waiting = pg(&server).await;
    let error = copied(&path, &server).await.unwrap_err().to_string();
    assert!(error.contains("in use by process"), "{error}");
    file.close().await;
    let done = copied(&path, &server).await.unwrap();
    assert_eq!((done.epoch, done.counts.messages, done.counts.positions), (epoch, 1_103, 1_103));

    // A logic that was there before reads the epoch anew, however often its connections must be made again.
    let seen = loop {
        match waiting.epoch().await {
            Ok(seen) => break seen,
            Err(error) => {
                assert!(matches!(error, StoreError::Unknown(_) | StoreError::Unreachable(_)), "{error}")
            }
        }
    };
    assert_eq!(seen, epoch);
    waiting.close().await;
    let store = pg(&server).await;
    assert_eq!(store.epoch().await.unwrap(), epoch);
    assert_eq!(page(&store, after("a", 1_098, 10)).await, (1, 1_100, vec![1_099, 1_100]));
    let again = publish(&store, messages("a", 1_101)).await;
    assert!(again[..1_100].iter().all(|is| matches!(is, Is::Old(_))), "keys are known: {:?}", &again[..3]);
    assert_eq!(again[1_100], Is::New(1_101));
    assert_eq!(
        store.delay(lane, LATER, &WaitingLimit::default(), vec![delay("kept")]).await.unwrap()[..],
        kept[..1]
    );
    assert_eq!(
        store.delay(lane, LATER, &WaitingLimit::default(), vec![delay("cancelled")]).await.unwrap(),
        [DelayedOutcome::Cancelled]
    );
    assert_eq!(store.revocations_of(std::slice::from_ref(&user)).await.unwrap(), [Some(17)]);
    assert!(store.revoke(&user, Some(18)).await.unwrap().position > revoked.position);
    let notes = store.stale_notes(Duration::ZERO, 100).await.unwrap();
    assert!(
        notes.len() == owed.len() + 1 && notes.iter().zip(&owed).all(|(a, b)| a.runs == b.runs),
        "{notes:?}"
    );

    let error = copied(&path, &server).await.unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    assert_ne!(
        new_epoch(&server.url()).await.unwrap(),
        epoch,
        "after a restore positions are told to be lost"
    );
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_ends_in_the_middle_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let file = SqliteStore::open(SqliteConfig::at(&path)).await.unwrap();
    publish(&file, messages("a", 1_100)).await;
    file.close().await;
    let server = PgServer::start().await;
    // Dropped after the first page was written, as by Ctrl-C.
    let (sender, mut half) = tokio::sync::mpsc::channel(1);
    let access = PgAccess::at(server.url());
    let copying = copy(&path, &access, ANSWER_WITHIN, |now| {
        if now.messages > 0 {
            sender.try_send(()).ok();
        }
    });
    tokio::select! {
        biased;
        Some(()) = half.recv() => {}
        done = copying => panic!("it was not stopped in time: {done:?}"),
    }
    let count = server.run("select count(*)::text from rooms").await;
    assert_eq!(sqlx::Row::get::<String, _>(&count[0], 0), "0");
    assert_eq!(copied(&path, &server).await.unwrap().counts.messages, 1_100, "and can be made again");
}

/// So long is an answer waited for by those who will have none.
const SHORT: Duration = Duration::from_secs(2);

async fn a_file_with_messages(path: &Path, count: usize) {
    let file = SqliteStore::open(SqliteConfig::at(path)).await.unwrap();
    publish(&file, messages("a", count)).await;
    file.close().await;
}

/// Once what a copy left behind has ended: its session holds the tables until then.
async fn copied_at_last(path: &Path, server: &PgServer) -> Copied {
    let begun = Instant::now();
    loop {
        match copied(path, server).await {
            Ok(copied) => return copied,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_dies_in_the_middle_is_given_up_and_nothing_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    a_file_with_messages(&path, 1_100).await;
    let server = PgServer::start().await;
    let hole = Hole::before(server.port);
    let access = PgAccess::at(server.url().replace(&server.port.to_string(), &hole.port.to_string()));
    let begun = Instant::now();
    let error = copy(&path, &access, SHORT, |now| {
        if now.messages > 0 {
            hole.swallow();
        }
    });
    let error = error.await.unwrap_err();
    assert!(begun.elapsed() < 10 * SHORT, "{:?}", begun.elapsed());
    assert!(error.definitely_not_stored(), "{error}");
    let said = error.to_string();
    assert!(said.contains("no answer within 2 s") && said.contains("nothing was copied"), "{said}");
    drop(hole);
    assert_eq!(copied_at_last(&path, &server).await.counts.messages, 1_100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_no_failure_for_sure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    a_file_with_messages(&path, 3).await;
    let server = PgServer::start().await;
    // What is migrated has another commit.
    pg(&server).await.close().await;
    let hole = Hole::after(server.port, b"commit");
    let access = PgAccess::at(server.url().replace(&server.port.to_string(), &hole.port.to_string()));
    let error = copy(&path, &access, SHORT, |_| hole.arm()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    assert!(error.to_string().contains("the copy may be there"), "{error}");
    let error = copied(&path, &server).await.unwrap_err().to_string();
    assert!(error.contains("is not empty: it has 1 rooms, 3 messages"), "{error}");
}

/// One after the other they would be waited for longer than a statement may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_hang_do_not_hide_that_the_copy_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    a_file_with_messages(&path, 3).await;
    let server = PgServer::start().await;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let mut session = sqlx::PgConnection::connect(&server.url()).await.unwrap();
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await.unwrap();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        hanging.push((pid, session));
    }
    let done = copied(&path, &server).await.unwrap();
    assert_eq!((done.counts.messages, done.sessions_left), (3, 3));
    for (pid, _) in &hanging {
        kill(Pid::from_raw(*pid), Signal::SIGCONT).unwrap();
    }
    for (_, mut session) in hanging {
        let asked = sqlx::query("select 1").execute(&mut session).await;
        assert!(asked.is_err(), "it was told to end");
    }
}
