//! Which servers are refused, and that the words name the fix (B3).

use sluice_store::postgres::{PgConfig, PgStore, migrate};
use sluice_store::{Store, StoreError};
use sqlx::Row;

use super::rig::PgRig;
use super::server::PgServer;
use crate::cases::contract::{Is, LATER, message, messages, publish, room};
use crate::rig::Rig;

async fn refused(url: String) -> String {
    match PgStore::connect(PgConfig::new(url)).await {
        Err(StoreError::Misconfigured(text)) => text,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn b3_a_server_that_may_forget_is_refused() {
    let server = PgServer::with(&["fsync=off"]).await;
    let text = refused(server.url()).await;
    assert!(text.contains("set fsync = on in postgresql.conf"), "{text}");
}

#[tokio::test]
async fn b3_a_session_that_may_forget_is_refused() {
    let server = PgServer::with(&["synchronous_commit=local"]).await;
    let text = refused(server.url()).await;
    assert!(text.contains("set synchronous_commit = on"), "{text}");
    server.run("alter role postgres set synchronous_commit = off").await;
    assert!(refused(server.url()).await.contains("synchronous_commit is off"));
    server.run("alter role postgres set synchronous_commit = remote_apply").await;
    assert!(PgStore::connect(PgConfig::new(server.url())).await.is_ok());
}

/// What the statements of the outbox see of the session they run in, by a trigger.
const SEE: &str = "create table seen (what text); create function see() returns trigger language plpgsql as \
     $$ begin insert into seen values (tg_op || ' ' || current_setting('synchronous_commit')); return null; end $$; \
     create trigger see after insert or delete on outbox execute function see()";

async fn seen(server: &PgServer) -> Vec<String> {
    server.run("select what from seen").await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn b3_a_commit_is_kept_whatever_its_session_says_by_then() {
    let rig = PgRig::start().await;
    let store = rig.pg().await;
    rig.0.run(SEE).await;
    // As what stands between does that has the session forget for somebody else.
    rig.0
        .run(
            "create function forget() returns trigger language plpgsql as \
             $$ begin perform set_config('synchronous_commit', 'off', false); return null; end $$; \
             create trigger then_forget after insert on outbox execute function forget()",
        )
        .await;
    for key in ["k1", "k2"] {
        assert!(matches!(publish(&store, vec![message("a", "alice", key, "1")]).await[..], [Is::New(_)]));
    }
    assert_eq!(seen(&rig.0).await, ["INSERT on", "INSERT on"]);
}

#[tokio::test]
async fn b3_what_may_be_forgotten_leaves_nothing_behind_in_its_session() {
    let rig = PgRig::start().await;
    let store = rig.pg().await;
    rig.0.run(SEE).await;
    let note = store.publish(0, LATER, messages("a", 1)).await.unwrap().note.unwrap();
    store.noted(&[note]).await.unwrap();
    assert_eq!(seen(&rig.0).await, ["INSERT on", "DELETE off"]);
    // What comes next in the same session, as another connection's statement would behind a pooler.
    rig.0
        .run(
            "create function left_behind() returns trigger language plpgsql as $$ begin \
             if current_setting('synchronous_commit') = 'off' then raise exception 'left behind'; end if; \
             return null; end $$; \
             create trigger left_behind before delete on outbox execute function left_behind(); \
             create or replace function forgetful_v1(p_session text) returns boolean language sql as 'select true'",
        )
        .await;
    store.noted(&[note]).await.unwrap();
}

#[tokio::test]
async fn b3_a_session_that_others_were_given_is_refused() {
    let rig = PgRig::start().await;
    let store = rig.pg().await;
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
    // As a pooler does that hands the session to a connection which marks it as its own.
    rig.0
        .run(
            "create function given() returns trigger language plpgsql as \
             $$ begin perform set_config('sluice.session', 'another', false); return null; end $$; \
             create trigger given after insert on outbox execute function given()",
        )
        .await;
    let lane = room("a").lane();
    let next = |key: &str| vec![message("a", "alice", key, "1")];
    assert!(store.publish(lane, LATER, next("k2")).await.is_ok(), "the last one in its own session");
    match store.publish(lane, LATER, next("k3")).await {
        Err(StoreError::Misconfigured(why)) => assert!(why.contains("pool_mode = session"), "{why}"),
        other => panic!("{other:?}"),
    }
    let heads = rig.0.run("select head::text from rooms where room = 'a'").await;
    assert_eq!(heads[0].get::<&str, _>(0), "2", "nothing was stored");
    // A connection of its own again.
    assert!(store.publish(lane, LATER, next("k3")).await.is_ok());
}

#[tokio::test]
async fn wrong_addresses_are_told_from_servers_that_are_down() {
    let mut server = PgServer::start().await;
    assert!(refused("http://nowhere".to_owned()).await.contains("postgres.url"));
    assert!(refused(server.url_of("nothing")).await.contains("create the database"));
    server.down();
    let down = PgStore::connect(PgConfig::new(server.url())).await;
    assert!(matches!(down, Err(StoreError::Unreachable(_))));
}

#[tokio::test]
async fn any_isolation_default_of_the_database_is_overruled() {
    let rig = PgRig::start().await;
    rig.0.run("alter database postgres set default_transaction_isolation = 'repeatable read'").await;
    let store = rig.open().await;
    assert_eq!(publish(&*store, messages("a", 2)).await, [Is::New(1), Is::New(2)]);
    // Under repeatable read the waiting one of these would fail with 40001.
    let groups = (0..40).map(|n| publish(&*store, vec![message("a", "alice", &format!("x{n}"), "1")]));
    futures::future::join_all(groups).await;
    assert_eq!(rig.table().await.faults(), [""; 0]);
}

#[tokio::test]
async fn an_ordinary_role_is_enough_and_many_may_start_at_once() {
    let server = PgServer::start().await;
    server.run("create role app login").await;
    server.run("create database app owner app").await;
    let url = server.url_of("app").replace("postgres@", "app@");
    let migrations = futures::future::join_all((0..6).map(|_| migrate(&url))).await;
    assert!(migrations.iter().all(Result::is_ok), "{migrations:?}");
    let store = PgStore::connect(PgConfig::new(url.clone())).await.unwrap();
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
    let old = store.epoch().await.unwrap();
    assert_ne!(sluice_store::postgres::new_epoch(&url).await.unwrap(), old);
}

#[tokio::test]
async fn sessions_are_set_up_as_the_rules_say() {
    let rig = PgRig::start().await;
    let store = rig.pg().await;
    // A function of the outbox's statement sees the settings of the session it runs in.
    rig.0
        .run(
            "create table seen (what text); create function see() returns trigger language plpgsql as \
             $$ begin insert into seen select concat_ws(' ', tg_op, current_setting('statement_timeout'), \
             current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), \
             current_setting('transaction_isolation'), current_setting('synchronous_commit')); \
             return null; end $$; \
             create trigger see after insert or delete on outbox execute function see()",
        )
        .await;
    let committed = store.publish(0, i64::MAX, messages("a", 1)).await.unwrap();
    store.noted(&[committed.note.unwrap()]).await.unwrap();
    let seen = rig.0.run("select what from seen").await;
    let seen: Vec<&str> = seen.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["INSERT 3s 500ms 5s read committed on", "DELETE 3s 2s 5s read committed off"]);
}
