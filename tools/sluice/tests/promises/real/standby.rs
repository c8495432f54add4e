//! A server of the store is replaced by its standby. A file has none.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use sluice_launcher::Service;

use super::{Real, run};
use crate::kit::{Ground, json, json_with, socket_of};
use crate::resume::{fill, sub};

/// A standby takes the primary's place behind the same address: nobody runs a command, the timeline tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_told_to_everybody() {
    let cluster = Real::start(1, 1, 1).await;
    fill(&cluster, "news", 1, 10).await;
    let mut connected = socket_of(&cluster, "ann", 0).await;
    connected.send(r#"{"sub":"news","after":10,"id":1}"#).await.unwrap();
    let old_epoch = json(&mut connected).await["epoch"].as_str().unwrap().to_owned();

    let (primary, url) = (
        cluster.store_data(Service::Postgres).unwrap().join("data"),
        cluster.url_with_password(Service::Postgres),
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
    cluster.sql("select pg_promote()").await;

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
