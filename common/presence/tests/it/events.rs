//! What whoever watches a room is told, and what not. Each case is run against every presence.

use std::time::Duration;

use sluice_presence::{Change, GOODBYE_GRACE, Presence, RoomEvent, RoomEventKind};
use tokio::time::Instant;

use crate::contract::{
    Bed, LEAVE_GRACE, connected, disconnected, in_room, instance, joined, left, room, user,
};

/// Names the cases once; `$option` is for `tokio::test`.
macro_rules! events_against_the_contract {
    ($bed:ty $(, $option:ident = $value:literal)?) => {
        events_against_the_contract! { $bed, ($($option = $value)?):
            the_last_connection_in_a_watched_room_leaves_once
            who_comes_back_within_the_grace_never_left
            a_goodbye_has_hardly_any_grace
            of_a_room_that_nobody_watches_nothing_is_told_or_kept
            of_a_killed_gateway_exactly_those_leave_who_do_not_return
            a_wipe_is_no_event
            what_a_token_says_stands_in_joins_and_answers
        }
    };
    ($bed:ty, $options:tt: $($case:ident)*) => {$(
        #[tokio::test $options]
        async fn $case() {
            crate::events::$case::<$bed>().await;
        }
    )*};
}

/// A connection of a user in a room, connected and joined.
fn comes(connection: &str, name: &str, to: &str) -> [Change; 2] {
    [connected(connection, name, 1), joined(connection, name, to, 1)]
}

/// Its end.
fn goes(connection: &str, name: &str, from: &str) -> [Change; 2] {
    [left(connection, from), disconnected(connection, name)]
}

/// As [`comes`], of somebody who watches.
fn watches(connection: &str, name: &str, to: &str) -> [Change; 2] {
    let (user, room) = (user(name), room(to));
    let watches = Change::Joined { connection: connection.into(), user, room, since_ms: 1, watches: true };
    [connected(connection, name, 1), watches]
}

fn goodbye(connection: &str, name: &str, from: &str) -> [Change; 2] {
    let left = Change::Left { connection: connection.into(), room: room(from), goodbye: true };
    [left, disconnected(connection, name)]
}

/// Who joined by these changes.
async fn joins(presence: &dyn Presence, by: &str, changes: &[Change]) -> Vec<String> {
    let events = presence.apply(&instance(by), changes).await.complete().unwrap();
    assert!(events.iter().all(|event| matches!(event.kind, RoomEventKind::Joined { .. })), "{events:?}");
    events.into_iter().map(|event| event.user.to_string()).collect()
}

/// Everybody whose leave is told within this time, by two who ask.
async fn leaves(one: &dyn Presence, two: &dyn Presence, within: Duration) -> Vec<RoomEvent> {
    let (end, mut all) = (Instant::now() + within, Vec::new());
    while Instant::now() < end {
        let (some, others) = tokio::join!(one.due_leaves(), two.due_leaves());
        all.extend(some.unwrap().events);
        all.extend(others.unwrap().events);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(all.iter().all(|event| event.kind == RoomEventKind::Left), "{all:?}");
    all
}

fn users(events: &[RoomEvent]) -> Vec<&str> {
    let mut users: Vec<&str> = events.iter().map(|event| event.user.as_str()).collect();
    users.sort_unstable();
    users
}

/// Two ways to a presence with somebody who watches room `x`.
async fn watched<B: Bed>(bed: &B) -> [std::sync::Arc<dyn Presence>; 2] {
    let (one, two) = (bed.connect(), bed.connect());
    one.marker().await.unwrap();
    assert!(joins(&*one, "w", &watches("w", "watcher", "x")).await.is_empty(), "nobody watched before");
    [one, two]
}

const LONG_ENOUGH: Duration = LEAVE_GRACE.saturating_add(Duration::from_secs(1));

pub async fn the_last_connection_in_a_watched_room_leaves_once<B: Bed>() {
    let bed = B::start().await;
    let [one, two] = watched(&bed).await;
    assert_eq!(joins(&*one, "a", &comes("1", "ann", "x")).await, ["ann"]);
    assert!(joins(&*one, "a", &comes("1", "ann", "x")).await.is_empty(), "told again it is no news");
    assert!(joins(&*two, "b", &comes("2", "ann", "x")).await.is_empty(), "nor is a second connection");
    // Both ends at once on two logics; then again.
    for _ in 0..2 {
        let (a, b) = (instance("a"), instance("b"));
        let (first, second) = (goes("1", "ann", "x"), goes("2", "ann", "x"));
        let (one, two) = tokio::join!(one.apply(&a, &first), two.apply(&b, &second));
        assert_eq!((one.complete().unwrap(), two.complete().unwrap()), (vec![], vec![]));
    }
    let there = in_room(&*one, "x").await;
    let there: Vec<&str> = there.iter().map(|present| present.user.as_str()).collect();
    assert_eq!(there, ["ann", "watcher"], "until the leave is told she is there for whoever asks");
    let leaves = leaves(&*one, &*two, LONG_ENOUGH).await;
    assert_eq!((users(&leaves), leaves[0].room.as_str()), (vec!["ann"], "x"));
    assert_eq!(in_room(&*one, "x").await.len(), 1);
    assert_eq!(joins(&*one, "a", &comes("3", "ann", "x")).await, ["ann"], "and she may come again");
}

pub async fn who_comes_back_within_the_grace_never_left<B: Bed>() {
    let bed = B::start().await;
    let [one, two] = watched(&bed).await;
    assert_eq!(joins(&*one, "a", &comes("1", "ann", "x")).await, ["ann"]);
    one.apply(&instance("a"), &goes("1", "ann", "x")).await.complete().unwrap();
    // The watcher moves too, and is away for a moment.
    one.apply(&instance("w"), &goes("w", "watcher", "x")).await.complete().unwrap();
    assert!(joins(&*two, "v", &watches("v", "watcher", "x")).await.is_empty());
    assert!(
        joins(&*two, "b", &comes("2", "ann", "x")).await.is_empty(),
        "nobody has heard that she was away"
    );
    assert_eq!(leaves(&*one, &*two, LONG_ENOUGH).await, []);
    let there = in_room(&*one, "x").await;
    assert_eq!(there.iter().map(|present| present.connections).collect::<Vec<_>>(), [1, 1]);
}

pub async fn a_goodbye_has_hardly_any_grace<B: Bed>() {
    let bed = B::start().await;
    let [one, two] = watched(&bed).await;
    one.apply(&instance("a"), &comes("1", "ann", "x")).await.complete().unwrap();
    one.apply(&instance("a"), &comes("2", "bob", "x")).await.complete().unwrap();
    one.apply(&instance("a"), &goodbye("1", "ann", "x")).await.complete().unwrap();
    one.apply(&instance("a"), &goes("2", "bob", "x")).await.complete().unwrap();
    let soon = GOODBYE_GRACE + Duration::from_millis(500);
    assert!(soon < LEAVE_GRACE);
    assert_eq!(users(&leaves(&*one, &*two, soon).await), ["ann"]);
    assert_eq!(users(&leaves(&*one, &*two, LEAVE_GRACE).await), ["bob"]);
}

pub async fn of_a_room_that_nobody_watches_nothing_is_told_or_kept<B: Bed>() {
    let bed = B::start().await;
    let [one, two] = watched(&bed).await;
    assert!(joins(&*one, "a", &comes("1", "ann", "quiet")).await.is_empty());
    one.apply(&instance("a"), &goes("1", "ann", "quiet")).await.complete().unwrap();
    assert_eq!(in_room(&*one, "quiet").await, [], "at once");
    // After its last watcher and one grace more the room is like any other.
    one.apply(&instance("w"), &goes("w", "watcher", "x")).await.complete().unwrap();
    assert_eq!(leaves(&*one, &*two, LONG_ENOUGH).await, [], "there is nobody to tell");
    assert!(joins(&*one, "a", &comes("1", "ann", "x")).await.is_empty());
    one.apply(&instance("a"), &goes("1", "ann", "x")).await.complete().unwrap();
    assert_eq!(in_room(&*one, "x").await, []);
}

pub async fn of_a_killed_gateway_exactly_those_leave_who_do_not_return<B: Bed>() {
    let bed = B::start().await;
    let [one, two] = watched(&bed).await;
    let crowd: Vec<Change> = ["early", "late", "never", "gone"]
        .iter()
        .enumerate()
        .flat_map(|(n, name)| comes(&n.to_string(), name, "x"))
        .collect();
    assert_eq!(joins(&*one, "dead", &crowd).await.len(), 4);
    assert!(joins(&*two, "alive", &comes("5", "early", "x")).await.is_empty());
    assert_eq!(two.reap(&instance("dead")).await.unwrap(), 8);
    assert_eq!(one.reap(&instance("dead")).await.unwrap(), 0);
    assert!(joins(&*two, "alive", &comes("6", "late", "x")).await.is_empty());
    assert_eq!(users(&leaves(&*one, &*two, LONG_ENOUGH).await), ["gone", "never"]);
    // As a stop that says goodbye for the whole instance.
    two.goodbye(&instance("alive")).await.unwrap();
    assert!(joins(&*two, "other", &comes("7", "late", "x")).await.is_empty());
    assert_eq!(users(&leaves(&*one, &*two, LONG_ENOUGH).await), ["early"]);
}

pub async fn a_wipe_is_no_event<B: Bed>() {
    let mut bed = B::start().await;
    let [one, two] = watched(&bed).await;
    one.apply(&instance("a"), &comes("1", "ann", "x")).await.complete().unwrap();
    one.apply(&instance("b"), &comes("2", "bob", "x")).await.complete().unwrap();
    bed.down().await;
    bed.up_and_empty().await;
    // Before everything is told again: a second connection, and the end of one while the first is not known yet.
    let told = async || one.apply(&instance("w"), &watches("w", "watcher", "x")).await.complete();
    // Wherever something is kept: one call at a time finds out whether a server is back.
    let rooms: Vec<_> = (0..100).map(|n| room(&format!("r{n}"))).collect();
    let works = async || one.subscribers(&rooms).await.is_ok() && told().await.is_ok();
    sluice_testing::eventually("it works", Duration::from_secs(5), works).await;
    assert!(joins(&*one, "b", &comes("3", "ann", "x")).await.is_empty(), "she was there all the time");
    one.apply(&instance("b"), &goodbye("3", "ann", "x")).await.complete().unwrap();
    one.full_set(&instance("a"), 1, &comes("1", "ann", "x"), true).await.unwrap();
    one.full_set(&instance("b"), 1, &comes("2", "bob", "x"), true).await.unwrap();
    assert_eq!(leaves(&*one, &*two, LONG_ENOUGH).await, []);
    assert_eq!(in_room(&*one, "x").await.len(), 3);
}

pub async fn what_a_token_says_stands_in_joins_and_answers<B: Bed>() {
    let bed = B::start().await;
    let [one, _] = watched(&bed).await;
    let info = r#"{"name":"Ann|\n"}"#;
    let says = |connection: &str| Change::Connected {
        connection: connection.into(),
        user: user("ann"),
        since_ms: 1,
        info: info.into(),
    };
    let [_, joins] = comes("1", "ann", "x");
    let events = one.apply(&instance("a"), &[says("1"), joins]).await.complete().unwrap();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event.kind, RoomEventKind::Joined { info: info.into() });
    let there = in_room(&*one, "x").await;
    let infos: Vec<&str> = there.iter().map(|present| present.info.as_str()).collect();
    assert_eq!(infos, [info, ""], "ann, and the watcher, of whom nothing is said");
    assert_eq!(one.user(&user("ann")).await.unwrap().map(|present| present.info), Some(info.into()));
}
