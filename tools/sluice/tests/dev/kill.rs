//! `ok` survives a kill: what was answered is there again, in order, each once.

use std::path::Path;

use serde_json::{Value, json};
use sluice_client::raw::Frame;
use tokio::time::timeout;

use crate::rig::{Dev, SOON, connect, frame, stored, stored_for, token};

const PUBLISHES: usize = 1_000;

fn key(n: usize) -> String {
    format!("{n:032x}")
}

fn publish(n: usize) -> String {
    json!({ "pub": "news", "data": { "n": n }, "key": key(n), "id": n }).to_string()
}

/// Numbers of the publishes whose keys are in `messages`, in their order.
fn numbers(messages: &[Value]) -> Vec<usize> {
    let seqs: Vec<u64> = messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "contiguous from 1");
    messages.iter().map(|message| message["data"]["n"].as_u64().unwrap() as usize).collect()
}

#[tokio::test]
async fn every_ok_survives_a_kill_in_the_middle_of_publishes() {
    every_ok_survives(|dir| Dev::start(dir, &["--gateways", "2"]), None).await;
}

#[tokio::test]
async fn every_ok_of_production_survives_a_kill_in_the_middle_of_publishes() {
    every_ok_survives(Dev::serve, Some(token("ann"))).await;
}

async fn every_ok_survives(start: impl Fn(&Path) -> Dev, token: Option<String>) {
    let dir = tempfile::tempdir().unwrap();
    let given = token.as_deref();
    let mut dev = start(dir.path());
    let (mut socket, token) = connect(dev.ws(0), given).await;
    for n in 0..PUBLISHES {
        socket.send(publish(n)).await.unwrap();
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < PUBLISHES / 3 {
        let answer = frame(&mut socket).await;
        assert_eq!(answer["ok"], "pub", "{answer}");
        acknowledged.push((answer["id"].as_u64().unwrap() as usize, answer["seq"].as_u64().unwrap()));
    }
    dev.kill();
    while let Frame::Text(answer) = timeout(SOON, socket.next()).await.expect("the end in time") {
        let answer: Value = serde_json::from_str(&answer).unwrap();
        acknowledged.push((answer["id"].as_u64().unwrap() as usize, answer["seq"].as_u64().unwrap()));
    }
    let answered = acknowledged.len();
    assert!(answered < PUBLISHES, "the kill came in the middle");

    let again = start(dir.path());
    assert_eq!(again.first["gateways"], dev.first["gateways"], "the same addresses");
    let before = stored_for(again.ws(1), "news", given).await;
    let there = numbers(&before);
    assert_eq!(there, (0..there.len()).collect::<Vec<_>>(), "as they were sent, none left out");
    for (n, seq) in &acknowledged {
        assert_eq!(there.get(*seq as usize - 1), Some(n), "answered ok: {n} at {seq}");
    }
    println!("{answered} of {PUBLISHES} were answered before the kill, {} were stored", there.len());

    // The same anonymous user sends everything that has no answer again.
    let (mut socket, _) = connect(again.ws(1), Some(&token)).await;
    let open: Vec<usize> =
        (0..PUBLISHES).filter(|n| acknowledged.iter().all(|(known, _)| known != n)).collect();
    for n in &open {
        socket.send(publish(*n)).await.unwrap();
    }
    for _ in &open {
        assert_eq!(frame(&mut socket).await["ok"], "pub");
    }
    assert_eq!(
        numbers(&stored_for(again.ws(0), "news", given).await),
        (0..PUBLISHES).collect::<Vec<_>>(),
        "each once"
    );
}

#[tokio::test]
async fn memory_forgets_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--memory", "--gateways", "1"]);
    assert_eq!(dev.first["store"], Value::Null);
    let (mut socket, _) = connect(dev.ws(0), None).await;
    socket.send(publish(0)).await.unwrap();
    assert_eq!(frame(&mut socket).await["ok"], "pub");
    assert_eq!(stored(dev.ws(0), "news").await.len(), 1);
    dev.signal("-TERM");
    assert_eq!(dev.wait().0.code(), Some(0));
    assert!(!dir.path().join("sluice-dev.db").exists());
    let again = Dev::start(dir.path(), &["--memory", "--gateways", "1"]);
    assert_eq!(stored(again.ws(0), "news").await.len(), 0);
}
