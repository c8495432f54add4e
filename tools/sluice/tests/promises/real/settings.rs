//! What depends on a setting: `sluice dev` has none of these, it lets everybody in and keeps everything.

use std::time::Duration;

use sluice_client::raw::{Handshake, Socket};
use sluice_launcher::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Real;
use crate::input::address_of;
use crate::kit::{Ground, SOON, json, socket_of, until};
use crate::resume::fill;

/// `connect` as the first frame, and a handshake that is never finished.
#[tokio::test(flavor = "multi_thread")]
async fn connect_comes_first_and_half_handshakes_end() {
    let cluster = Real::with(Options::default().set("logic.anonymous=false").unwrap()).await;
    let url = cluster.ws(0);
    let mut half = TcpStream::connect(address_of(&url)).await.unwrap();
    half.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await.unwrap();

    let mut socket = Socket::connect(&Handshake::new(&url)).await.unwrap();
    socket.send(r#"{"sub":"a","id":1}"#).await.unwrap();
    let error = json(&mut socket).await;
    assert_eq!((&error["error"]["code"], &error["id"]), (&"unauthorized".into(), &1.into()), "{error}");
    let token = cluster.token("ann");
    socket.send(format!(r#"{{"connect":{{"token":"{token}"}},"id":2}}"#)).await.unwrap();
    socket.send(r#"{"sub":"a","id":3}"#).await.unwrap();
    let welcome = json(&mut socket).await;
    assert_eq!((&welcome["welcome"]["user"], &welcome["id"]), (&"ann".into(), &2.into()), "{welcome}");
    assert_eq!(json(&mut socket).await["id"], 3);

    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), half.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "half a handshake is held open for 5 s at most");
    socket.send(r#"{"ping":1}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["ok"], "ping");
    cluster.stop().await;
}

/// Retention by age and count never removes what is younger than `dedupe_min`.
#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_keys_for_dedupe_min() {
    let cluster = Real::with(Options::default().set("logic.retention.count=5").unwrap()).await;
    fill(&cluster, "news", 1, 50).await;
    let mut socket = socket_of(&cluster, "ann", 0).await;
    for turn in 0..2 {
        socket.send(r#"{"pub":"news","data":"once","key":"mine"}"#).await.unwrap();
        assert_eq!(json(&mut socket).await["seq"], 51, "turn {turn}");
    }
    cluster.sql("update messages set at = now() - interval '2 hours' where seq <= 50").await;
    until("old messages beyond the newest five are removed", SOON, async || {
        cluster.table("news").await.first().is_some_and(|row| row.seq == 47)
    })
    .await;
    socket.send(r#"{"pub":"news","data":"once","key":"mine"}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["seq"], 51);
    cluster.stop().await;
}
