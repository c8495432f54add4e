//! A PostgreSQL that lets in only whom it knows, over TLS; and several of which one is the primary.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_store::postgres::{PgAccess, PgConfig, PgStore, new_epoch_with, probe};
use sluice_store::{Store as _, StoreError};
use sluice_testing::{Authority, TlsFiles, free_port};
use sqlx::Row as _;

use super::server::{PgServer, own};
use crate::cases::contract::{Is, LATER, messages, publish, room};

/// A server that speaks TLS with this certificate, and wants from `app` a password and a certificate of `clients`.
async fn secure(server: &PgServer, shown: &TlsFiles, clients: &TlsFiles) {
    fs::set_permissions(&shown.key, fs::Permissions::from_mode(0o600)).unwrap();
    own(Path::new(&shown.key));
    let hba = "host all postgres 127.0.0.1/32 trust\n\
               hostssl all app 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
    fs::write(server.data().join("pg_hba.conf"), hba).unwrap();
    for (setting, value) in
        [("ssl_cert_file", &shown.cert), ("ssl_key_file", &shown.key), ("ssl_ca_file", &clients.ca)]
    {
        server.run(format!("alter system set {setting} = '{value}'")).await;
    }
    server.run("alter system set ssl = on").await;
    server.run("select pg_reload_conf()").await;
    // The postmaster reloads when it comes to it.
    for _ in 0..1_000 {
        if server.run("show ssl").await[0].get::<&str, _>(0) == "on" {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("no TLS: {}", server.log());
}

async fn refusal(access: &PgAccess) -> String {
    match probe(access.clone()).await {
        Err(StoreError::Misconfigured(why) | StoreError::Unreachable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_with_an_own_authority_a_clients_certificate_and_a_password() {
    let server = PgServer::start().await;
    server.run("create role app login password 'p@ss/w'").await;
    server.run("create database app owner app").await;
    let dir = server.dir();
    let files = |of: &str| Authority::in_dir(dir, of);
    let (ours, theirs) = (files("ours").issue("127.0.0.1"), files("theirs").issue("127.0.0.1"));
    let in_clear = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=verify-full", server.port);
    let why = refusal(&PgAccess::at(format!("{in_clear}&sslrootcert={}", ours.ca))).await;
    assert!(why.contains("does not speak TLS there: use sslmode=disable in postgres.url"), "{why}");
    secure(&server, &ours, &ours).await;
    let at = |user: &str, ca: &str, shown: Option<&TlsFiles>| {
        let shown = shown.map(|pki| format!("&sslcert={}&sslkey={}", pki.cert, pki.key)).unwrap_or_default();
        let (port, tls) = (server.port, format!("sslmode=verify-full&sslrootcert={ca}"));
        PgAccess::at(format!("postgres://{user}@127.0.0.1:{port}/app?{tls}{shown}"))
    };
    let good = at("app:p%40ss%2Fw", &ours.ca, Some(&ours));
    let password_file = dir.join("password").display().to_string();
    fs::write(&password_file, "p@ss/w\n").unwrap();
    let by_file = PgAccess { password_file: password_file.clone(), ..at("app", &ours.ca, Some(&ours)) };
    for access in [&good, &by_file] {
        assert!(probe(access.clone()).await.unwrap().starts_with("PostgreSQL 15"));
        let config =
            PgConfig { password_file: access.password_file.clone(), ..PgConfig::new(access.url.clone()) };
        let store = PgStore::connect(config).await.unwrap();
        publish(&store, messages("a", 2)).await;
        let clear = "select from pg_stat_ssl s join pg_stat_activity a using (pid) \
                     where a.application_name = 'sluice' and not s.ssl";
        assert!(server.run(clear).await.is_empty());
        store.close().await;
    }
    new_epoch_with(&by_file).await.unwrap();

    let clear =
        PgAccess::at(format!("postgres://app:p%40ss%2Fw@127.0.0.1:{}/app?sslmode=disable", server.port));
    for (wrong, says) in [
        (at("app:p%40ss%2Fw", &theirs.ca, Some(&ours)), "sslrootcert=FILE of postgres.url"),
        (at("app:p%40ss%2Fw", &ours.ca, Some(&theirs)), "sslcert=FILE"),
        (at("app:p%40ss%2Fw", &ours.ca, None), "certificate"),
        (at("app:hush", &ours.ca, Some(&ours)), "postgres.password_file"),
        (clear, "pg_hba.conf"),
    ] {
        let why = refusal(&wrong).await;
        assert!(why.contains(says) && !why.contains("hush") && !why.contains("p@ss"), "{says}: {why}");
    }
    for (shown, says) in [
        (files("elsewhere").issue("db.example"), "a name that stands in the server's certificate"),
        (files("old").issue_expired("127.0.0.1"), "not valid now"),
    ] {
        secure(&server, &shown, &ours).await;
        let mut why = refusal(&at("app:p%40ss%2Fw", &shown.ca, Some(&ours))).await;
        // The certificate before was still shown.
        while why.contains("sslrootcert") {
            why = refusal(&at("app:p%40ss%2Fw", &shown.ca, Some(&ours))).await;
        }
        assert!(why.contains(says), "{says}: {why}");
    }
}

#[tokio::test]
async fn of_several_hosts_the_primary_is_found_also_after_a_failover() {
    let mut primary = PgServer::start_fresh().await;
    let standby = PgServer::standby_of(&primary).await;
    let hosts = [free_port(), standby.port, primary.port].map(|port| format!("127.0.0.1:{port}")).join(",");
    let options = "sslmode=disable&target_session_attrs=read-write";
    let store = PgStore::connect(PgConfig::new(format!("postgres://postgres@{hosts}/postgres?{options}")));
    let store = store.await.unwrap();
    let old = store.epoch().await.unwrap();
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
    let written = primary.run("select pg_current_wal_lsn()::text").await[0].get::<String, _>(0);
    let replayed = format!("select where pg_last_wal_replay_lsn() >= '{written}'");
    while standby.run(&*replayed).await.is_empty() {}
    primary.down();
    // Nobody to write to: tried again, not given up for ever.
    let nobody = store.epoch().await.unwrap_err();
    assert!(matches!(nobody, StoreError::Unreachable(_) | StoreError::Unknown(_)), "{nobody}");
    standby.promote();
    let new = loop {
        if let Ok(epoch) = store.epoch().await {
            break epoch;
        }
    };
    assert_ne!(new, old);
    // The connection of the lane is dead, which it finds when it is asked.
    while store.publish(room("a").lane(), LATER, Vec::new()).await.is_err() {}
    assert_eq!(publish(&store, messages("a", 2)).await, [Is::Old(1), Is::New(2)]);
    let refused = PgStore::connect(PgConfig::new("postgres://a,b/x?target_session_attrs=standby")).await;
    assert!(matches!(refused, Err(StoreError::Misconfigured(why)) if why.contains("use read-write")));
}

/// Each silent host costs its second, once: more of them than a call has seconds.
#[tokio::test]
async fn hosts_that_say_nothing_are_passed_over() {
    let primary = PgServer::start_fresh().await;
    // The system accepts for them, and nobody ever reads.
    let silent: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports = silent.iter().map(|listener| listener.local_addr().unwrap().port()).chain([primary.port]);
    let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", hosts.join(","));
    let begun = Instant::now();
    let store = PgStore::connect(PgConfig::new(url)).await.unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&took), "{took:?}");
    assert_eq!(publish(&store, messages("a", 1)).await, [Is::New(1)]);
}
