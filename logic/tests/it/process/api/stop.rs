//! A stop with calls and exports in flight: each call gets its answer, each export its last line, and whoever comes
//! late hears why.

use std::time::Duration;

use futures::future::join_all;
use http_body_util::BodyExt as _;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use sluice_launcher::Service;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use super::kit::{Caller, Served};
use crate::rig::get;
use crate::stores::{eventually, signal_postgres, stores};

const CALLS: usize = 200;
const EXPORTS: usize = 20;
/// Of these a socket does not hold much.
const MESSAGES: usize = 400;
const BYTES: usize = 60_000;

/// More than by default: two busy cores have to write all that is in flight.
const STAGES: [(&str, &str); 2] =
    [("SLUICE_SHUTDOWN__STAGES__DRAIN_MS", "5000"), ("SLUICE_SHUTDOWN__TOTAL_MS", "12000")];

async fn fill(api: &Caller) {
    let message = json!({"room": "large", "data": "x".repeat(BYTES)});
    for _ in 0..MESSAGES / 16 {
        api.post("batch", &json!({"messages": vec![message.clone(); 16]})).await.ok();
    }
}

/// Begins an export and reads no further than its head; the rest is read when the other end waits.
async fn export(api: &Caller) -> hyper::body::Incoming {
    let request = api.request("GET", "/v1/export?room=large", &[], "");
    let response = api.connect().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_every_call_and_ends_every_export() {
    let cluster = stores().await;
    let mut served = Served::start_with(&cluster, &[], &STAGES).await;
    let (api, admin) = (served.api.clone(), served.logic.admin());
    fill(&api).await;
    api.post("publish", &json!({"room": "held", "data": 0})).await.ok();
    let exports = join_all((0..EXPORTS).map(|_| export(&api))).await;

    // The store stands still, so publishes are under way for as long as they wait for it.
    signal_postgres(&cluster, Signal::SIGSTOP);
    let calls: Vec<_> = (0..CALLS)
        .map(|n| {
            let api = api.clone();
            let body = json!({"room": "held", "data": n, "key": format!("k{n}")});
            tokio::spawn(async move { api.post("publish", &body).await })
        })
        .collect();
    // Kept open, so that it is not the kernel that refuses whoever comes late.
    let mut late = api.connect().await;
    let status = async || serde_json::from_str::<Value>(&get(admin, "/status").await.1).unwrap();
    eventually("all of them are under way", async || {
        status().await["api"]["in_flight"].as_u64().unwrap() == (EXPORTS + CALLS) as u64
    })
    .await;

    kill(served.logic.pid(), Signal::SIGTERM).unwrap();
    eventually("it drains", async || {
        let stage = get(admin, "/status").await.1;
        stage.contains("\"stage\":\"drain\"")
    })
    .await;
    let request = api.request("POST", "/v1/publish", &[], r#"{"room":"x","data":1}"#);
    let refused = late.send_request(request).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert_eq!(refused.headers()["connection"], "close");
    let refused: Value =
        serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        (&refused["code"], &refused["retry"], &refused["state"], &refused["stage"]),
        (&json!("not_sent"), &json!(true), &json!("draining"), &json!("drain")),
        "{refused}"
    );
    signal_postgres(&cluster, Signal::SIGCONT);
    let exports: Vec<_> = exports.into_iter().map(|body| tokio::spawn(body.collect())).collect();

    let mut committed = 0_i64;
    for call in calls {
        let reply = timeout(Duration::from_secs(15), call).await.expect("an answer").unwrap();
        match reply.status {
            200 => committed += 1,
            503 => assert_eq!(reply.problem()["retry"], true),
            other => panic!("{other}: {}", reply.text()),
        }
    }
    for body in exports {
        let bytes =
            timeout(Duration::from_secs(15), body).await.expect("an end").unwrap().unwrap().to_bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let end: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        let end = &end["end"];
        assert_eq!(
            (&end["reason"], &end["more"], &end["retry"]),
            (&json!("draining"), &json!(true), &json!(true)),
            "{end}"
        );
        assert_eq!(end["after"], json!(lines.len() - 1), "where to go on is where it ended");
    }
    let status = timeout(Duration::from_secs(15), served.logic.child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));

    // What was answered well is there, once; what was not may be sent again, elsewhere.
    let mut postgres = PgConnection::connect(cluster.store(Service::Postgres).url()).await.unwrap();
    let stored: i64 = sqlx::query_scalar("select count(*) from messages where room = 'held'")
        .fetch_one(&mut postgres)
        .await
        .unwrap();
    assert!(stored > committed, "{stored} stored, {committed} answered well, and the first");
    postgres.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn an_idle_api_stops_at_once_whoever_is_connected() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let mut connection = served.api.connect().await;
    let info = connection.send_request(served.api.request("GET", "/v1/info", &[], "")).await.unwrap();
    assert_eq!(info.status(), 200);
    drop(info);
    let silent = tokio::net::TcpStream::connect(served.api.address).await.unwrap();
    let ended = served.end().await;
    assert!(ended.after < Duration::from_secs(2), "{:?} {}", ended.after, ended.log);
    drop((connection, silent));
    cluster.stop().await;
}

#[tokio::test]
async fn without_a_store_it_says_so_and_stops_all_the_same() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    cluster.stop_store(Service::Postgres).await.unwrap();
    let body = json!({"room": "a", "data": 1, "key": "k"});
    let refused = served.api.post("publish", &body).await;
    assert_eq!((refused.status, &refused.problem()["retry"]), (503, &json!(true)));
    let refused = served.api.get("history?room=a").await;
    assert_eq!((refused.status, &refused.problem()["code"]), (503, &json!("unavailable")));
    cluster.start_store(Service::Postgres).await.unwrap();
    eventually("it publishes again", async || served.api.post("publish", &body).await.status == 200).await;
    served.end().await;
    cluster.stop().await;
}
