use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_presence::{Change, Leave, Presence, PresenceError, Present};
use sluice_proto::ids::{InstanceId, RoomId, UserId};
use tokio::time::{Instant, timeout};

use crate::server::{Server, eventually};

const LONG: Duration = Duration::from_secs(10);
const QUICK: Duration = Duration::from_millis(650);

fn connect(server: &Server) -> RedisPresence {
    RedisPresence::connect(RedisConfig { url: server.url(), ..RedisConfig::default() }).unwrap()
}

fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn connected(connection: &str, name: &str, since_ms: i64) -> Change {
    Change::Connected { connection: connection.into(), user: user(name), since_ms }
}

fn disconnected(connection: &str, name: &str, goodbye: bool) -> Change {
    Change::Disconnected { connection: connection.into(), user: user(name), goodbye }
}

fn joined(connection: &str, name: &str, in_room: &str, since_ms: i64) -> Change {
    Change::Joined { connection: connection.into(), user: user(name), room: room(in_room), since_ms }
}

fn left(connection: &str, from: &str) -> Change {
    Change::Left { connection: connection.into(), room: room(from) }
}

fn interest(name: &str) -> Change {
    Change::InterestAdded(room(name))
}

/// Everything there is, without the marker and with sets as hashes.
async fn dump(server: &Server) -> BTreeMap<String, Vec<String>> {
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    let mut all = BTreeMap::new();
    for key in keys.into_iter().filter(|key| !key.ends_with(":marker")) {
        let kind: String = ::redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
        let read = if kind == "hash" { "HKEYS" } else { "SMEMBERS" };
        let mut members: Vec<String> = ::redis::cmd(read).arg(&key).query_async(&mut redis).await.unwrap();
        members.sort();
        all.insert(key, members);
    }
    all
}

#[tokio::test]
async fn interest_is_a_set_by_room() {
    let server = Server::start().await;
    let redis = connect(&server);
    let (a, b) = (instance("a"), instance("b"));
    let rooms = [room("x"), room("y"), room("z")];
    redis.add_interest(&a, &rooms[..2]).await.unwrap();
    redis.add_interest(&b, &rooms[1..2]).await.unwrap();
    redis.add_interest(&b, &rooms[1..2]).await.unwrap();
    let mut interested = redis.interested(&rooms).await.unwrap();
    interested[1].sort();
    assert_eq!(interested, [vec![a.clone()], vec![a.clone(), b.clone()], vec![]]);
    redis.remove_interest(&a, &rooms).await.unwrap();
    redis.remove_interest(&a, &rooms).await.unwrap();
    assert_eq!(redis.interested(&rooms).await.unwrap(), [vec![], vec![b], vec![]]);
    assert!(redis.interested(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_last_connection_of_a_user_leaves_once() {
    let server = Server::start().await;
    let (one, two) = (connect(&server), connect(&server));
    let (a, b) = (instance("a"), instance("b"));
    one.apply(&a, &[connected("1", "ann", 50), joined("1", "ann", "x", 60)]).await.unwrap();
    two.apply(&b, &[connected("2", "ann", 40), joined("2", "ann", "x", 70), connected("3", "bob|x", 9)])
        .await
        .unwrap();
    assert_eq!(
        one.user(&user("ann")).await.unwrap(),
        Some(Present { user: user("ann"), connections: 2, since_ms: 40 })
    );
    assert_eq!(two.user(&user("bob|x")).await.unwrap().unwrap().since_ms, 9);
    assert_eq!(
        one.room(&room("x"), 10).await.unwrap(),
        [Present { user: user("ann"), connections: 2, since_ms: 60 }]
    );

    // Both ends at once on two logics: exactly one leave. Repeated: none.
    let (first, second) = (disconnected("1", "ann", false), disconnected("2", "ann", true));
    let (x, y) = tokio::join!(
        one.apply(&a, std::slice::from_ref(&first)),
        two.apply(&b, std::slice::from_ref(&second))
    );
    let leaves: Vec<Leave> = [x.unwrap(), y.unwrap()].concat();
    assert_eq!(leaves.len(), 1, "{leaves:?}");
    assert_eq!(leaves[0].user, user("ann"));
    assert_eq!(one.apply(&a, &[first, second]).await.unwrap(), []);
    assert_eq!(one.user(&user("ann")).await.unwrap(), None);

    // A goodbye is passed on, and what another instance wrote is left alone.
    assert_eq!(one.apply(&a, &[disconnected("3", "bob|x", true)]).await.unwrap(), []);
    let leave = Leave { user: user("bob|x"), goodbye: true };
    assert_eq!(two.apply(&b, &[disconnected("3", "bob|x", true)]).await.unwrap(), [leave]);
}

#[tokio::test]
async fn a_full_set_removes_what_it_does_not_name() {
    let server = Server::start().await;
    let redis = connect(&server);
    let (a, b) = (instance("a"), instance("b"));
    let kept = [connected("1", "ann", 1), joined("1", "ann", "x", 1), interest("x")];
    let stale = [connected("9", "zoe", 1), joined("9", "zoe", "y", 1), interest("y")];
    redis.apply(&b, &[connected("5", "zoe", 1), interest("y")]).await.unwrap();
    redis.apply(&a, &kept).await.unwrap();
    redis.apply(&a, &stale).await.unwrap();

    redis.full_set(&a, 7, &kept[..2], false).await.unwrap();
    // Said between the parts: belongs to this generation.
    redis.apply(&a, &[connected("2", "new", 1)]).await.unwrap();
    redis.add_interest(&a, &[room("w")]).await.unwrap();
    redis.full_set(&a, 7, &kept[2..], true).await.unwrap();

    let rooms = [room("w"), room("x"), room("y")];
    assert_eq!(redis.interested(&rooms).await.unwrap(), [vec![a.clone()], vec![a.clone()], vec![b.clone()]]);
    assert_eq!(redis.user(&user("zoe")).await.unwrap().unwrap().connections, 1, "b's is not a's");
    assert!(redis.user(&user("new")).await.unwrap().is_some());
    assert_eq!(redis.room(&room("y"), 9).await.unwrap(), []);

    // A late part of an older generation says and removes nothing.
    redis.full_set(&a, 6, &stale, true).await.unwrap();
    assert_eq!(redis.interested(&rooms[2..]).await.unwrap(), [vec![b]]);
    assert!(redis.user(&user("ann")).await.unwrap().is_some());
    // An empty one is the end of all.
    redis.full_set(&a, 8, &[], true).await.unwrap();
    assert_eq!(redis.interested(&rooms[..2]).await.unwrap(), [vec![], vec![]]);
}

#[tokio::test]
async fn a_reaped_instance_leaves_nothing_and_takes_nothing_of_others() {
    let server = Server::start().await;
    let redis = connect(&server);
    let (dead, alive) = (instance("dead"), instance("alive"));
    let many: Vec<Change> = (0..1_500)
        .flat_map(|n| {
            let (connection, name, of) = (format!("c{n}"), format!("u{}", n % 700), format!("r{}", n % 90));
            [connected(&connection, &name, n), joined(&connection, &name, &of, n), interest(&of)]
        })
        .collect();
    redis
        .apply(&alive, &[connected("x", "u1", 1), joined("x", "u1", "r1", 1), interest("r1")])
        .await
        .unwrap();
    let before = dump(&server).await;
    redis.full_set(&dead, 3, &many, true).await.unwrap();
    let mut instances = redis.instances().await.unwrap();
    instances.sort();
    assert_eq!(instances, [alive.clone(), dead.clone()]);

    // A connection that moved: its field is the successor's now.
    redis.apply(&alive, &[connected("c7", "u7", 5)]).await.unwrap();
    assert_eq!(redis.reap(&dead).await.unwrap(), 1_500 * 2 - 1 + 90);
    assert_eq!(redis.user(&user("u7")).await.unwrap().unwrap().since_ms, 5);
    redis.apply(&alive, &[disconnected("c7", "u7", false)]).await.unwrap();
    assert_eq!(dump(&server).await, before);
    assert_eq!(redis.reap(&dead).await.unwrap(), 0);
}

#[tokio::test]
async fn queries_are_bounded() {
    let server = Server::start().await;
    let redis = connect(&server);
    let crowd: Vec<Change> =
        (0..5_000).map(|n| joined(&format!("c{n}"), &format!("u{n}"), "big", n)).collect();
    redis.apply(&instance("a"), &crowd).await.unwrap();
    assert_eq!(redis.room(&room("big"), 100).await.unwrap().len(), 100);
    assert_eq!(redis.room(&room("big"), 5_000).await.unwrap().len(), 5_000);
    let left: Vec<Change> = (0..5_000).map(|n| left(&format!("c{n}"), "big")).collect();
    redis.apply(&instance("a"), &left).await.unwrap();
    assert_eq!(redis.room(&room("big"), 100).await.unwrap(), []);
}

#[tokio::test]
async fn the_marker_tells_of_a_wipe() {
    let mut server = Server::start().await;
    let (one, two) = (connect(&server), connect(&server));
    let marker = one.marker().await.unwrap();
    assert_ne!(marker, 0);
    assert_eq!(two.marker().await.unwrap(), marker);
    server.kill();
    server.run().await;
    eventually("another marker", LONG, async || one.marker().await.is_ok_and(|now| now != marker)).await;
    assert_eq!(timeout(LONG, settled_marker(&two)).await.unwrap(), one.marker().await.unwrap());
}

async fn settled_marker(redis: &RedisPresence) -> u64 {
    loop {
        if let Ok(marker) = redis.marker().await {
            return marker;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_redis_every_call_fails_quickly_and_the_first_after_works() {
    let mut server = Server::absent();
    let redis = connect(&server);
    for _ in 0..50 {
        let begun = Instant::now();
        assert!(matches!(redis.interested(&[room("x")]).await, Err(PresenceError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
    server.run().await;
    eventually("it works", Duration::from_millis(1_200), async || redis.marker().await.is_ok()).await;
}

#[tokio::test]
async fn a_frozen_redis_holds_no_call_for_long_and_few_at_all() {
    let server = Server::start().await;
    let redis = connect(&server);
    redis.marker().await.unwrap();
    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    assert!(redis.marker().await.is_err());
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    // From now on one call at a time asks; the others know.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let call = async |_| {
            let begun = Instant::now();
            assert!(redis.interested(&[room("x")]).await.is_err());
            begun.elapsed()
        };
        let waits = futures::future::join_all((0..20).map(call)).await;
        assert!(waits.iter().all(|wait| *wait < QUICK), "{waits:?}");
        assert!(waits.iter().filter(|wait| **wait > QUICK / 4).count() <= 1, "{waits:?}");
        tokio::task::yield_now().await;
    }
    server.signal(Signal::SIGCONT);
    eventually("it works again", Duration::from_secs(2), async || redis.marker().await.is_ok()).await;
}

#[tokio::test]
async fn a_closed_presence_stays_closed() {
    let server = Server::start().await;
    let redis = connect(&server);
    redis.marker().await.unwrap();
    redis.close().await;
    redis.close().await;
    assert_eq!(redis.marker().await, Err(PresenceError::Closed));
}
