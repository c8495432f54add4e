//! Delayed messages: each once, none early, none late, and none that was cancelled, whoever stops or is killed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
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

/// What waits of one user at most, unless configured.
const MOST: i64 = 1_000;

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
    schedule_these(socket, room, 0..count, within).await
}

/// Likewise with these numbers, hundreds.
async fn schedule_these(
    socket: &mut Socket,
    room: &str,
    numbers: Range<i64>,
    within: Duration,
) -> BTreeMap<String, i64> {
    schedule_from(1_000, socket, room, numbers, within).await
}

/// Likewise, the first of them after so many milliseconds.
async fn schedule_from(
    first_ms: i64,
    socket: &mut Socket,
    room: &str,
    numbers: Range<i64>,
    within: Duration,
) -> BTreeMap<String, i64> {
    let spread = i64::try_from(within.as_millis()).unwrap();
    let count = numbers.end - numbers.start;
    let mut due = BTreeMap::new();
    for part in numbers.start / 100..numbers.end / 100 {
        for n in part * 100..(part + 1) * 100 {
            let delay_ms = first_ms + (n - numbers.start) * spread / count;
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

/// Asks to take all of these back, a hundred at a time; which were.
async fn cancel(socket: &mut Socket, keys: impl Iterator<Item = &String>) -> Vec<String> {
    let keys: Vec<&String> = keys.collect();
    let mut cancelled = Vec::new();
    for part in keys.chunks(100) {
        for key in part {
            socket.send(json!({"cancel": "news", "key": key}).to_string()).await.unwrap();
        }
        for _ in part {
            let ok = kit::json(socket).await;
            if ok["cancelled"].as_bool().unwrap() {
                cancelled.push(ok["key"].as_str().unwrap().to_owned());
            }
        }
    }
    cancelled
}

/// The bound of what waits of one user, and a publish at once under a key that waits, as a client sees them.
pub async fn a_key_that_waits_is_taken_and_a_user_has_so_many<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    let mut ann = socket_of(&ground, "ann", 0).await;
    // So far away that on no machine one of them is due before all are there.
    schedule_from(600_000, &mut ann, "far", 0..MOST, Duration::from_secs(3_600)).await;
    let refused = ask(&mut ann, json!({"pub": "near", "data": 1, "key": "one", "delay_ms": 3_600_000})).await;
    assert_eq!(refused["error"]["code"], "too_many_scheduled", "{refused}");
    assert_eq!(refused["error"]["retry"], false);
    let mut other = socket_of(&ground, "ann", 1).await;
    for (data, why) in [(json!(999), "due at"), (json!("other"), "other data")] {
        let conflict = ask(&mut other, json!({"pub": "far", "data": data, "key": "k999"})).await;
        assert_eq!(conflict["error"]["code"], "conflict", "at once, and it waits: {conflict}");
        assert!(conflict["error"]["message"].as_str().unwrap().contains(why), "{conflict}");
    }
    assert_eq!(cancel(&mut other, ["k999".to_owned()].iter()).await.len(), 0, "of another room");
    let taken = ask(&mut other, json!({"cancel": "far", "key": "k999"})).await;
    assert_eq!(taken["cancelled"], true, "{taken}");
    let soon = ask(&mut ann, json!({"pub": "near", "data": 1, "key": "one", "delay_ms": 1})).await;
    assert!(soon["due"].is_i64(), "a place is free again: {soon}");
    until("it is published", LATE, async || ground.table("near").await.len() == 1).await;
    let far = stored(&ground, "far").await;
    assert!(far.is_empty(), "none is due: {far:?}");
    ground.stop().await;
}

pub async fn cancels_that_race_with_firing_are_true<G: Ground>() {
    let ground = G::start(2, 1, 1).await;
    // As many as may wait, of each.
    let mut sockets = Vec::new();
    for user in ["ann", "ben", "cat"] {
        sockets.push((socket_of(&ground, user, 0).await, socket_of(&ground, user, 1).await));
    }
    let scheduling = sockets.iter_mut().zip(0..).map(|((socket, _), user)| {
        schedule_these(socket, "news", user * 1_000..(user + 1) * 1_000, Duration::from_secs(2))
    });
    let mine = join_all(scheduling).await;
    let mut due: BTreeMap<String, i64> = mine.iter().flatten().map(|(key, ms)| (key.clone(), *ms)).collect();
    let cancelling = sockets.iter_mut().zip(&mine).map(|((_, other), mine)| cancel(other, mine.keys()));
    let cancelled: Vec<String> = join_all(cancelling).await.concat();
    for key in &cancelled {
        due.remove(key);
    }
    println!("{} of 3,000 were cancelled", cancelled.len());
    until("the rest is published", LATE + Duration::from_secs(10), async || {
        ground.table("news").await.len() >= due.len()
    })
    .await;
    judge(&ground, "news", &due, LATE).await;
    ground.stop().await;
}
