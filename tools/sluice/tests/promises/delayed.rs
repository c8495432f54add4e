//! Delayed messages: each once, none early, none late, and none that was cancelled, whoever stops or is killed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_client::Position;
use sluice_client::raw::Socket;
use sluice_launcher::Service;

use crate::kit::{self, Ground, client_of, socket_of, until};
use crate::record::Observer;

/// Half a second between two looks, and what a busy machine needs.
const LATE: Duration = Duration::from_secs(3);
/// The same while the owner of the work is killed: two lease times.
const LATE_AFTER_A_KILL: Duration = Duration::from_secs(25);

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Sends a request and returns its answer.
async fn ask(socket: &mut Socket, request: Value) -> Value {
    socket.send(request.to_string()).await.unwrap();
    kit::json(socket).await
}

/// Schedules so many, spread over `within` from a second on; when each is due by its key.
async fn schedule(socket: &mut Socket, room: &str, count: i64, within: Duration) -> BTreeMap<String, i64> {
    let spread = i64::try_from(within.as_millis()).unwrap();
    let mut due = BTreeMap::new();
    for part in 0..count / 100 {
        for n in part * 100..(part + 1) * 100 {
            let delay_ms = 1_000 + n * spread / count;
            let frame =
                json!({"pub": room, "data": n, "key": format!("k{n}"), "delay_ms": delay_ms, "id": n});
            socket.send(frame.to_string()).await.unwrap();
        }
        for _ in 0..100 {
            let ok = kit::json(socket).await;
            assert_eq!((&ok["ok"], &ok["room"]), (&"pub".into(), &room.into()), "{ok}");
            due.insert(ok["key"].as_str().unwrap().to_owned(), ok["due"].as_i64().expect("due"));
        }
    }
    due
}

/// Keys of all messages of a room and when they were stored, sorted.
async fn stored(ground: &impl Ground, room: &str) -> Vec<(String, i64)> {
    let mut socket = socket_of(ground, "judge", 0).await;
    let (mut stored, mut after) = (Vec::new(), Some(0));
    while let Some(seq) = after {
        let page = ask(&mut socket, json!({"history": room, "after": seq})).await;
        let message =
            |message: &Value| (message["key"].as_str().unwrap().to_owned(), message["at"].as_i64().unwrap());
        stored.extend(page["messages"].as_array().unwrap().iter().map(message));
        after = page["after"].as_u64();
    }
    stored.sort();
    stored
}

/// Every one that is `due` is in the room once, and in time; no other.
async fn judge(ground: &impl Ground, room: &str, due: &BTreeMap<String, i64>, late: Duration) {
    let stored = stored(ground, room).await;
    assert!(stored.iter().map(|(key, _)| key).eq(due.keys()), "each once, and no other: {stored:?}");
    let after: Vec<i64> = stored.iter().map(|(key, at_ms)| at_ms - due[key]).collect();
    let (earliest, latest) = (after.iter().min().unwrap(), after.iter().max().unwrap());
    println!("{} delayed messages, stored {earliest} to {latest} ms after they were due", stored.len());
    assert!(*earliest >= 0, "{earliest} ms: none early");
    assert!(*latest < i64::try_from(late.as_millis()).unwrap(), "{latest} ms late");
}

pub async fn a_delayed_message_comes_once_in_time_unless_it_was_cancelled<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let bob = Observer::start(client_of(&ground, "bob", 1), "news", Position::Now).await;
    let mut ann = socket_of(&ground, "ann", 0).await;
    let mut due = schedule(&mut ann, "news", 100, Duration::from_secs(1)).await;
    // Again: the first due counts.
    let again = ask(&mut ann, json!({"pub": "news", "data": 7, "key": "k7", "delay_ms": 60_000})).await;
    assert_eq!(again["due"], due["k7"], "{again}");
    let minted = ask(&mut ann, json!({"pub": "news", "data": "none", "at": now_ms() + 60_000})).await;
    let minted = minted["key"].as_str().expect("a key that cancels it").to_owned();
    let cancel = async |socket: &mut Socket, key: &str| {
        ask(socket, json!({"cancel": "news", "key": key})).await["cancelled"].as_bool().unwrap()
    };
    assert!(cancel(&mut ann, &minted).await);
    let mut eve = socket_of(&ground, "eve", 0).await;
    assert!(!cancel(&mut eve, "k99").await, "it is not hers");
    for n in 90..100 {
        // Too late only where the machine is very slow; then it came.
        if cancel(&mut ann, &format!("k{n}")).await {
            due.remove(&format!("k{n}"));
            assert!(cancel(&mut ann, &format!("k{n}")).await, "asked again");
        }
    }
    bob.reaches(due.len() as u64, LATE + Duration::from_secs(5)).await;
    assert!(!cancel(&mut ann, "k0").await, "too late");
    let sent = ask(&mut ann, json!({"pub": "news", "data": 0, "key": "k0", "delay_ms": 1})).await;
    assert!(sent["seq"].is_u64(), "sent again after it was published: {sent}");
    judge(&ground, "news", &due, LATE).await;
    assert!(bob.look(|seen| seen.messages.iter().all(|(_, from, _)| from == "ann")));
    ground.stop().await;
}

pub async fn delayed_messages_come_once_while_tasks_are_rolled_and_killed<G: Ground>() {
    let ground = G::start(2, 2, 2).await;
    let bob = Observer::start(client_of(&ground, "bob", 1), "news", Position::Now).await;
    let mut ann = socket_of(&ground, "ann", 0).await;
    let due = schedule(&mut ann, "news", 1_000, Duration::from_secs(8)).await;
    drop(ann);
    ground.roll(Service::Task, 0).await;
    ground.roll(Service::Logic, 0).await;
    ground.kill_each().await;
    bob.reaches(1_000, LATE_AFTER_A_KILL + Duration::from_secs(10)).await;
    judge(&ground, "news", &due, LATE_AFTER_A_KILL).await;
    ground.stop().await;
}

pub async fn cancels_that_race_with_firing_are_true<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let mut ann = socket_of(&ground, "ann", 0).await;
    let mut due = schedule(&mut ann, "news", 3_000, Duration::from_secs(2)).await;
    let mut other = socket_of(&ground, "ann", 1).await;
    let keys: Vec<String> = due.keys().cloned().collect();
    let mut cancelled = 0;
    for part in keys.chunks(100) {
        for key in part {
            other.send(json!({"cancel": "news", "key": key}).to_string()).await.unwrap();
        }
        for _ in part {
            let ok = kit::json(&mut other).await;
            if ok["cancelled"].as_bool().unwrap() {
                cancelled += 1;
                due.remove(ok["key"].as_str().unwrap());
            }
        }
    }
    println!("{cancelled} of 3,000 were cancelled");
    until("the rest is published", LATE + Duration::from_secs(10), async || {
        ground.table("news").await.len() >= due.len()
    })
    .await;
    judge(&ground, "news", &due, LATE).await;
    ground.stop().await;
}
