//! Positions and epochs: what a client is told when its position cannot be kept.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_launcher::{Cluster, Options, Service};
use sqlx::{Connection, PgConnection};

use crate::kit::{SOON, cluster, cluster_with, json, json_with, socket_of, until};

async fn fill(cluster: &Cluster, room: &str, from: u64, to: u64) {
    let mut socket = socket_of(cluster, "filler", 0).await;
    for n in from..=to {
        socket
            .send(format!(r#"{{"pub":"{room}","data":{n},"key":"f{n}-{}"}}"#, rand::random::<u32>()))
            .await
            .unwrap();
    }
    for _ in from..=to {
        assert_eq!(json(&mut socket).await["ok"], "pub");
    }
}

async fn sub(cluster: &Cluster, frame: &str) -> Value {
    let mut socket = socket_of(cluster, "reader", 0).await;
    socket.send(frame).await.unwrap();
    json_with(&mut socket, "ok").await
}

async fn sql(cluster: &Cluster, text: &'static str) -> u64 {
    let mut connection = PgConnection::connect(cluster.store(Service::Postgres).url()).await.unwrap();
    sqlx::query(text).execute(&mut connection).await.unwrap().rows_affected()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_honest() {
    let cluster = cluster(1, 1, 1).await;
    fill(&cluster, "news", 1, 20).await;
    let ok = sub(&cluster, r#"{"sub":"news","after":20}"#).await;
    assert_eq!((&ok["after"], &ok["head"], &ok["recovered"]), (&20.into(), &20.into(), &true.into()), "{ok}");
    // Beyond the head is never legal: heads come from the primary only.
    let ok = sub(&cluster, r#"{"sub":"news","after":99}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&20.into(), &false.into()), "{ok}");
    // 0 is a position like any other.
    let ok = sub(&cluster, r#"{"sub":"news","after":0}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&0.into(), &true.into()), "{ok}");
    let ok = sub(&cluster, r#"{"sub":"news","after":5,"epoch":"0123456789abcdef"}"#).await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&20.into(), &false.into()), "another epoch: {ok}");
    let ok = sub(&cluster, r#"{"sub":"empty"}"#).await;
    assert_eq!((&ok["after"], &ok["head"], &ok["recovered"]), (&0.into(), &0.into(), &true.into()), "{ok}");
    // What retention removed is told in the stream.
    assert_eq!(sql(&cluster, "delete from messages where room = 'news' and seq <= 12").await, 12);
    let gateway = crate::kit::term(&cluster.gateway(0)).await;
    assert!(gateway.elapsed.is_some());
    cluster.start_at(Service::Gateway, 0).await.unwrap();
    let mut socket = socket_of(&cluster, "reader", 0).await;
    socket.send(r#"{"sub":"news","after":5}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["ok"], "sub");
    let skipped = json(&mut socket).await;
    assert_eq!(
        (&skipped["skipped"], &skipped["from"], &skipped["to"]),
        (&"news".into(), &6.into(), &12.into())
    );
    for seq in 13..=20 {
        assert_eq!(json(&mut socket).await["seq"], seq);
    }
    // An emptied room goes on counting.
    assert_eq!(sql(&cluster, "delete from messages where room = 'news'").await, 8);
    fill(&cluster, "news", 1, 1).await;
    assert_eq!(json_with(&mut socket, "msg").await["seq"], 21);
    cluster.stop().await;
}

/// An older copy of the store is put back and `sluice store new-epoch` is run.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_is_told_to_everybody() {
    let cluster = cluster(2, 1, 1).await;
    fill(&cluster, "news", 1, 30).await;
    let mut connected = socket_of(&cluster, "ann", 1).await;
    connected.send(r#"{"sub":"news","after":0,"id":1}"#).await.unwrap();
    let first = json(&mut connected).await;
    let old_epoch = first["epoch"].as_str().unwrap().to_owned();
    for seq in 1..=30 {
        assert_eq!(json(&mut connected).await["seq"], seq);
    }
    // A copy of position 10: what a restored backup looks like.
    sql(&cluster, "delete from messages where seq > 10").await;
    sql(&cluster, "update rooms set head = 10").await;
    let done = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["store", "new-epoch", "--postgres", cluster.store(Service::Postgres).url()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told = json_with(&mut connected, "ok").await;
    assert_eq!(
        (&told["ok"], &told["recovered"], &told["id"]),
        (&"sub".into(), &false.into(), &Value::Null),
        "{told}"
    );
    assert_eq!(told["after"], 10, "{told}");
    let new_epoch = told["epoch"].as_str().unwrap();
    assert_ne!(new_epoch, old_epoch);
    fill(&cluster, "news", 11, 40).await;
    for seq in 11..=40 {
        assert_eq!(json_with(&mut connected, "msg").await["seq"], seq);
    }
    // Grown beyond the cursor: only the epoch can tell.
    let ok = sub(&cluster, &format!(r#"{{"sub":"news","after":30,"epoch":"{old_epoch}"}}"#)).await;
    assert_eq!(ok["recovered"], false, "{ok}");
    let ok = sub(&cluster, &format!(r#"{{"sub":"news","after":30,"epoch":"{new_epoch}"}}"#)).await;
    assert_eq!(ok["recovered"], true, "{ok}");
    cluster.stop().await;
}

/// A standby takes the primary's place behind the same address: nobody runs a command, the timeline tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_told_to_everybody() {
    let cluster = cluster(1, 1, 1).await;
    fill(&cluster, "news", 1, 10).await;
    let mut connected = socket_of(&cluster, "ann", 0).await;
    connected.send(r#"{"sub":"news","after":10,"id":1}"#).await.unwrap();
    let old_epoch = json(&mut connected).await["epoch"].as_str().unwrap().to_owned();

    let (primary, url) = (
        cluster.store_data(Service::Postgres).unwrap().join("data"),
        cluster.store(Service::Postgres).url().to_owned(),
    );
    let standby = primary.with_file_name("standby");
    let copy = postgres_program("pg_basebackup");
    run(Command::new(copy)
        .args(["--write-recovery-conf", "--checkpoint=fast", "--dbname", &url, "--pgdata"])
        .arg(&standby));
    run(Command::new("chown").arg("-R").arg("--reference").arg(&primary).arg(&standby));
    cluster.stop_store(Service::Postgres).await.unwrap();
    std::fs::rename(&primary, primary.with_file_name("former")).unwrap();
    std::fs::rename(&standby, &primary).unwrap();
    cluster.start_store(Service::Postgres).await.unwrap();
    sql(&cluster, "select pg_promote()").await;

    let told = json_with(&mut connected, "ok").await;
    assert_eq!(
        (&told["ok"], &told["recovered"], &told["id"]),
        (&"sub".into(), &false.into(), &Value::Null),
        "{told}"
    );
    assert_ne!(told["epoch"], old_epoch.as_str());
    let ok = sub(&cluster, &format!(r#"{{"sub":"news","after":10,"epoch":"{old_epoch}"}}"#)).await;
    assert_eq!(ok["recovered"], false, "{ok}");
    fill(&cluster, "news", 11, 12).await;
    assert_eq!(json_with(&mut connected, "msg").await["seq"], 11);
    cluster.stop().await;
}

/// A program of the newest PostgreSQL here.
fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Retention by age and count never removes what is younger than `dedupe_min`.
#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_keys_for_dedupe_min() {
    let options = Options::default().set("logic.retention.count=5").unwrap();
    let cluster = cluster_with(options).await;
    fill(&cluster, "news", 1, 50).await;
    let mut socket = socket_of(&cluster, "ann", 0).await;
    for turn in 0..2 {
        socket.send(r#"{"pub":"news","data":"once","key":"mine"}"#).await.unwrap();
        assert_eq!(json(&mut socket).await["seq"], 51, "turn {turn}");
    }
    sql(&cluster, "update messages set at = now() - interval '2 hours' where seq <= 50").await;
    until("old messages beyond the newest five are removed", SOON, async || {
        crate::record::table(&cluster, "news").await.first().is_some_and(|row| row.seq == 47)
    })
    .await;
    socket.send(r#"{"pub":"news","data":"once","key":"mine"}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["seq"], 51);
    tokio::time::timeout(Duration::from_secs(20), cluster.stop()).await.expect("stops in time");
}
