//! A client that reads at 1 kB/s in a busy room: it ends with a complete, ordered history or is told what it
//! skipped, and it costs the gateway a bounded amount of memory.

use std::time::Duration;

use serde_json::Value;
use sluice_client::Position;
use tokio::time::{Instant, sleep};

use crate::kit::{Ground, SOON, client_of, json, socket_of};
use crate::record::{Observer, judge, publish};

/// Bytes a second the slow client takes while the room is busy.
const SLOW_BYTES_PER_S: usize = 1_000;

pub async fn a_slow_reader_ends_complete_and_costs_little<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let fast = Observer::start(client_of(&ground, "fast", 0), "busy", Position::After(0)).await;
    let mut slow = socket_of(&ground, "slow", 0).await;
    slow.send(r#"{"sub":"busy","after":0}"#).await.unwrap();
    let before = ground.memory_bytes();

    // 12 MB of messages, far beyond every buffer between the gateway and the slow client.
    let filling = "x".repeat(4_000);
    let (client, _events) = sluice_client::Client::connect(client_of(&ground, "ann", 0)).await.unwrap();
    let busy = tokio::spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_millis(4));
        let mut receipts = Vec::new();
        for n in 0..3_000 {
            clock.tick().await;
            receipts.push(client.submit("busy", &format!("busy-{n}"), &(n, &filling)).await.unwrap());
        }
        for receipt in receipts {
            receipt.outcome().await.unwrap();
        }
    });
    let mut seen = Vec::new();
    let start = Instant::now();
    let mut taken = 0;
    while !busy.is_finished() {
        let frame = json(&mut slow).await;
        taken += frame.to_string().len();
        seen.push(frame);
        let due = Duration::from_secs_f64(taken as f64 / SLOW_BYTES_PER_S as f64);
        tokio::select! {
            () = sleep(due.saturating_sub(start.elapsed())) => {}
            () = async { while !busy.is_finished() { sleep(Duration::from_millis(10)).await } } => {}
        }
    }
    busy.await.unwrap();
    fast.reaches(3_000, SOON).await;
    let grown = ground.memory_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "the gateway grew by {} MiB", grown >> 20);

    while seen.last().is_none_or(|frame| frame["seq"] != 3_000) {
        seen.push(json(&mut slow).await);
    }
    let mut next = 1;
    for frame in seen {
        match &frame {
            Value::Object(fields) if fields.contains_key("msg") => {
                assert_eq!(frame["seq"], next, "in order, without a hole");
                next += 1;
            }
            Value::Object(fields) if fields.contains_key("skipped") => {
                assert_eq!(frame["from"], next);
                next = frame["to"].as_u64().unwrap() + 1;
            }
            _ => assert_eq!(frame["ok"], "sub", "{frame}"),
        }
    }
    assert_eq!(next, 3_001);
    judge(&ground, "busy", &[], &[&fast]).await;
    let other = publish(fast.client.clone(), "fast".into(), "other".into(), 10, 0).await;
    other.all_ok();
    ground.stop().await;
}
