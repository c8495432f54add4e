//! A server that answers and takes no commit: the probe says so, and why; and a room that somebody keeps locked.

use std::time::{Duration, Instant};

use sluice_store::postgres::{PgConfig, PgStore};
use sluice_store::{Store, StoreError, Trouble};
use sqlx::Connection as _;

use super::rig::PgRig;
use super::server::PgServer;
use crate::cases::contract::{Is, LATER, messages, publish, room};
use crate::rig::Rig;

async fn trouble(store: &PgStore) -> Option<Trouble> {
    store.probe_commit(false).await.err().map(|error| error.trouble())
}

#[tokio::test]
async fn a_probe_leaves_nothing_and_sees_what_a_publish_would() {
    let server = PgServer::start().await;
    server.run("create role app login").await;
    server.run("create database app owner app").await;
    let url = server.url_of("app").replace("postgres@", "app@");
    let store = PgStore::connect(PgConfig::new(url)).await.unwrap();
    store.probe_commit(true).await.unwrap();
    assert_eq!(trouble(&store).await, None);
    for table in ["rooms", "messages", "outbox"] {
        assert_eq!(in_app(&server, format!("select from {table}")).await, 0, "{table}");
    }
    for (spoil, mend, found) in [
        (
            "alter database app set default_transaction_read_only = on",
            "alter database app reset default_transaction_read_only",
            Trouble::ReadOnly,
        ),
        ("revoke insert on messages from app", "grant insert on messages to app", Trouble::Denied),
        ("alter role app connection limit 0", "alter role app connection limit -1", Trouble::Connections),
    ] {
        in_app(&server, spoil).await;
        // The setting of a database and the limit of a role hold for sessions that begin.
        end_sessions(&server).await;
        let mut seen = trouble(&store).await;
        if seen == Some(Trouble::Unanswered) {
            seen = trouble(&store).await;
        }
        assert_eq!(seen, Some(found), "{spoil}");
        in_app(&server, mend).await;
        end_sessions(&server).await;
        while trouble(&store).await == Some(Trouble::Unanswered) {}
        assert_eq!(trouble(&store).await, None, "{mend}");
    }
    // The lane's connection was ended too, which it finds when it is asked.
    while store.publish(room("a").lane(), LATER, Vec::new()).await.is_err() {}
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
}

/// As a superuser, in the database of the role; how many rows came.
async fn in_app(server: &PgServer, sql: impl Into<String>) -> usize {
    let mut connection = sqlx::PgConnection::connect(&server.url_of("app")).await.unwrap();
    // Also in a database that is read-only by default.
    sqlx::raw_sql("set default_transaction_read_only = off").execute(&mut connection).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into())).fetch_all(&mut connection).await.unwrap().len()
}

async fn end_sessions(server: &PgServer) {
    server
        .run("select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'sluice'")
        .await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_told_from_one_that_is_away() {
    let server = PgServer::with(&["max_connections=10"]).await;
    server.run("create role app login").await;
    server.run("create database app owner app").await;
    let url = server.url_of("app").replace("postgres@", "app@");
    // Three are kept for superusers.
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(sqlx::PgConnection::connect(&url).await.unwrap());
    }
    let Err(error) = PgStore::connect(PgConfig::new(url)).await else { panic!("connected") };
    assert_eq!(error.trouble(), Trouble::Connections, "{error}");
    assert!(error.definitely_not_stored() && error.with_fix().contains("max_connections"), "{error}");
}

#[tokio::test]
async fn a_locked_room_is_named_and_its_group_given_up_soon() {
    let rig = PgRig::start().await;
    let store = rig.open().await;
    publish(&*store, messages("a", 1)).await;
    let rooms = [room("a"), room("b"), room("new")];
    assert_eq!(store.locked(0, &rooms).await.unwrap(), []);
    let held = rig.hold().await;
    publish(&*store, messages("b", 1)).await;
    let begun = Instant::now();
    let error = store.publish(0, LATER, messages("a", 2)).await.unwrap_err();
    assert!(matches!(&error, StoreError::RolledBack { sqlstate, .. } if sqlstate == "55P03"), "{error}");
    // By the lock timeout of half a second, not by the statement timeout.
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert_eq!(store.locked(0, &rooms).await.unwrap(), [room("a")]);
    drop(held);
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::Old(1), Is::New(2)]);
}
