//! What `sluice serve` does on this machine, as `make serve-figures` prints it: durable publishes a second, how soon it
//! answers again after a kill, what it holds at rest. It measures and judges nothing but that all was answered.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use sluice_client::raw::Socket;

use crate::rig::{Dev, connect, frame, token};

/// Connections that publish, each to a room of its own.
const CLIENTS: usize = 32;
/// Unanswered publishes of each.
const WINDOW: usize = 64;
/// How long they publish.
const LASTS: Duration = Duration::from_secs(10);
/// Kills, one after the other.
const KILLS: usize = 5;

async fn publish(socket: &mut Socket, room: usize, n: usize) {
    let frame = json!({ "pub": format!("room-{room}"), "data": { "n": n, "text": "x".repeat(100) } });
    socket.send(frame.to_string()).await.unwrap();
}

/// Publishes with a full window until the time is over, and counts what was answered.
async fn load(url: String, room: usize) -> usize {
    let (mut socket, _) = connect(&url, Some(&token(&format!("u{room}")))).await;
    let (begun, mut sent, mut answered) = (Instant::now(), 0, 0);
    while begun.elapsed() < LASTS || answered < sent {
        while begun.elapsed() < LASTS && sent < answered + WINDOW {
            publish(&mut socket, room, sent).await;
            sent += 1;
        }
        assert_eq!(frame(&mut socket).await["ok"], "pub");
        answered += 1;
    }
    answered
}

fn resident_kib(pid: &serde_json::Value) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: make serve-figures"]
async fn figures() {
    // Not in /tmp, which may be memory that syncs for nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut serve = Dev::serve(dir.path());
    println!("at rest: {} MiB resident", resident_kib(&serve.first["pid"]) / 1_024);

    let begun = Instant::now();
    let all = join_all((0..CLIENTS).map(|room| load(serve.ws(room % 2).to_owned(), room))).await;
    let (answered, took) = (all.iter().sum::<usize>(), begun.elapsed().as_secs_f64());
    let rate = answered as f64 / took;
    println!("durable: {rate:.0} publishes/s, {answered} answered ok in {took:.1} s, {CLIENTS} connections");
    println!("after it: {} MiB resident", resident_kib(&serve.first["pid"]) / 1_024);

    for kill in 1..=KILLS {
        let begun = Instant::now();
        serve.kill();
        serve = Dev::serve(dir.path());
        let (mut socket, _) = connect(serve.ws(0), Some(&token("ann"))).await;
        publish(&mut socket, 0, kill).await;
        assert_eq!(frame(&mut socket).await["ok"], "pub");
        println!("kill -9 {kill}: a publish was answered ok {} ms later", begun.elapsed().as_millis());
    }
}
