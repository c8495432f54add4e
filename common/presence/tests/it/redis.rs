//! Presence on a real redis-server: the contract, and what only a server does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_presence::redis::{RedisConfig, RedisPresence};
use sluice_presence::{Presence, PresenceError};
use sluice_testing::{ServerKind, TestServer, eventually};
use tokio::time::Instant;

use crate::contract::{Bed, LEAVE_GRACE, LONG, connected, crowd, instance, interest, joined, room};

/// What a call may take.
const CALL: Duration = Duration::from_millis(500);
/// The same on a machine with other work too.
const QUICK: Duration = Duration::from_millis(2_500);

struct Redis(TestServer);

fn at(server: &TestServer) -> RedisConfig {
    RedisConfig {
        redis: sluice_presence::Redis::at(&server.url()),
        leave_grace: LEAVE_GRACE,
        // A test begins with a new server.
        quiet: Duration::ZERO,
        ..RedisConfig::default()
    }
}

impl Bed for Redis {
    async fn start() -> Self {
        Self(TestServer::start(ServerKind::Redis).await)
    }

    fn connect(&self) -> Arc<dyn Presence> {
        Arc::new(RedisPresence::connect(at(&self.0)).unwrap())
    }

    async fn down(&mut self) {
        self.0.kill();
    }

    async fn up_and_empty(&mut self) {
        self.0.run().await;
    }
}

against_the_contract!(Redis);
events_against_the_contract!(Redis);

/// Everything there is, without the marker and with sets as hashes.
async fn dump(server: &TestServer) -> BTreeMap<String, Vec<String>> {
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
async fn no_key_is_left_of_a_reaped_instance() {
    let bed = Redis::start().await;
    let redis = bed.connect();
    let mine = [connected("x", "u1", 1), joined("x", "u1", "r1", 1), interest("r1")];
    redis.apply(&instance("alive"), &mine).await.complete().unwrap();
    let before = dump(&bed.0).await;
    redis.full_set(&instance("dead"), 3, &crowd(1_500), true).await.unwrap();
    assert!(dump(&bed.0).await.len() > before.len());
    redis.reap(&instance("dead")).await.unwrap();
    assert_eq!(dump(&bed.0).await, before);
}

/// Whatever was written since the copy is gone, and what was removed is back; the kept number says nothing of it.
#[tokio::test]
async fn the_marker_tells_of_an_older_copy() {
    let mut bed = Redis::start().await;
    let redis = bed.connect();
    let marker = redis.marker().await.unwrap();
    redis.apply(&instance("a"), &[interest("old")]).await.complete().unwrap();
    assert_eq!(redis.marker().await.unwrap(), marker, "as long as nothing happens");
    let client = ::redis::Client::open(bed.0.url()).unwrap();
    let mut plain = client.get_multiplexed_async_connection().await.unwrap();
    ::redis::cmd("SAVE").exec_async(&mut plain).await.unwrap();
    redis.apply(&instance("a"), &[interest("new")]).await.complete().unwrap();
    bed.0.kill();
    bed.0.run().await;
    eventually("another marker", LONG, async || redis.marker().await.is_ok_and(|now| now != marker)).await;
    let interested = redis.interested(&[room("old"), room("new")]).await.unwrap();
    assert_eq!(interested, [vec![instance("a")], vec![]], "it is an older copy");
}

#[tokio::test]
async fn an_absent_redis_is_known_at_once() {
    let mut server = TestServer::absent(ServerKind::Redis);
    let redis = RedisPresence::connect(at(&server)).unwrap();
    for _ in 0..50 {
        let begun = Instant::now();
        assert!(matches!(redis.interested(&[room("x")]).await, Err(PresenceError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
    server.run().await;
    eventually("it works", LONG, async || redis.marker().await.is_ok()).await;
}

#[tokio::test]
async fn a_frozen_redis_holds_no_call_for_long_and_few_at_all() {
    let bed = Redis::start().await;
    let redis = bed.connect();
    redis.marker().await.unwrap();
    bed.0.signal(Signal::SIGSTOP);
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
        assert!(waits.iter().filter(|wait| **wait > CALL / 2).count() <= 1, "{waits:?}");
        tokio::task::yield_now().await;
    }
    bed.0.signal(Signal::SIGCONT);
    eventually("it works again", LONG, async || redis.marker().await.is_ok()).await;
}
