//! Presence on a Redis Cluster: the contract, and what happens to a node or to a part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_presence::redis::{RedisConfig, RedisPresence, probe};
use sluice_presence::{Applied, Change, Presence, PresenceError, Redis};
use sluice_proto::ids::RoomId;
use sluice_testing::{Authority, RedisCluster, ServerKind, TestServer, TlsFiles, eventually};
use tokio::time::Instant;

use crate::contract::{Bed, LEAVE_GRACE, LONG, connected, crowd, instance, interest, joined, room, user};

/// What a call may take on a machine with other work too.
const QUICK: Duration = Duration::from_millis(2_500);
/// So many rooms have every part, and every node of three.
const ROOMS: usize = 100;

struct Cluster(RedisCluster);

fn config(redis: Redis) -> RedisConfig {
    // A test begins with new servers.
    RedisConfig { redis, leave_grace: LEAVE_GRACE, quiet: Duration::ZERO, ..RedisConfig::default() }
}

fn open(cluster: &RedisCluster) -> RedisPresence {
    RedisPresence::connect(config(Redis::at(&cluster.url()))).unwrap()
}

impl Bed for Cluster {
    async fn start() -> Self {
        Self(RedisCluster::start(3, false).await)
    }

    fn connect(&self) -> Arc<dyn Presence> {
        Arc::new(open(&self.0))
    }

    async fn down(&mut self) {
        self.0.nodes.iter_mut().for_each(TestServer::kill);
    }

    async fn up_and_empty(&mut self) {
        self.0.run().await;
        self.0.settled().await;
    }
}

against_the_contract!(Cluster);
events_against_the_contract!(Cluster);

async fn ask<T: ::redis::FromRedisValue>(server: &TestServer, args: &[&str]) -> Result<T, String> {
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection =
        client.get_multiplexed_async_connection().await.map_err(|error| error.to_string())?;
    let mut command = ::redis::cmd(args[0]);
    command.arg(&args[1..]).query_async(&mut connection).await.map_err(|error| error.to_string())
}

/// Keys of a node, without its numbers.
async fn keys(server: &TestServer) -> BTreeSet<String> {
    let keys: BTreeSet<String> = ask(server, &["KEYS", "*"]).await.unwrap();
    keys.into_iter().filter(|key| !key.ends_with(":marker") && !key.ends_with(":run")).collect()
}

/// Which of these nodes has the interest in a room, and under which key.
async fn holder(cluster: &RedisCluster, name: &str) -> (usize, String) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let found: Vec<String> =
            ask(node, &["KEYS", &format!("sluice:{{*}}:interest:{name}")]).await.unwrap_or_default();
        if let Some(key) = found.into_iter().next() {
            return (index, key);
        }
    }
    panic!("nobody has {name}");
}

fn rooms() -> Vec<RoomId> {
    (0..ROOMS).map(|n| room(&format!("r{n}"))).collect()
}

/// Interest in rooms of all parts, and a user in one of them.
fn everything() -> Vec<Change> {
    let of_users = [connected("x", "ann", 1), joined("x", "ann", "r1", 1)];
    rooms().into_iter().map(Change::InterestAdded).chain(of_users).collect()
}

async fn has_everything(presence: &dyn Presence) -> bool {
    let interested = presence.interested(&rooms()).await;
    let all = interested.is_ok_and(|sets| sets.iter().all(|set| *set == [instance("a")]));
    all && presence.user(&user("ann")).await.is_ok_and(|ann| ann.is_some())
}

/// What a gateway does when it is told of another marker.
async fn told_again(presence: &dyn Presence, generation: u64) {
    let full = async || presence.full_set(&instance("a"), generation, &everything(), true).await.is_ok();
    eventually("all is taken", LONG, full).await;
    assert!(has_everything(presence).await);
}

/// Lua calls that nodes have carried out.
async fn calls(cluster: &RedisCluster) -> u64 {
    let mut calls = 0;
    for node in &cluster.nodes {
        let said: String = ask(node, &["INFO", "commandstats"]).await.unwrap();
        let of_scripts = said.split_once("cmdstat_evalsha:calls=").map_or("0", |(_, rest)| rest);
        calls += of_scripts.split(',').next().and_then(|calls| calls.parse::<u64>().ok()).unwrap();
    }
    calls
}

#[tokio::test]
async fn a_change_set_is_one_call_for_each_part_that_it_concerns() {
    let cluster = RedisCluster::start(3, false).await;
    let presence = open(&cluster);
    presence.apply(&instance("a"), &everything()).await.complete().unwrap();
    let before = calls(&cluster).await;
    presence.apply(&instance("a"), &everything()).await.complete().unwrap();
    assert_eq!(calls(&cluster).await - before, 16, "every part has some of so many rooms");
    presence.apply(&instance("a"), &[interest("r1"), joined("y", "bob", "r1", 1)]).await.complete().unwrap();
    assert_eq!(calls(&cluster).await - before, 17);
}

#[tokio::test]
async fn keys_are_spread_and_none_is_left_of_a_reaped_instance() {
    let cluster = RedisCluster::start(3, false).await;
    let presence = open(&cluster);
    presence.apply(&instance("a"), &everything()).await.complete().unwrap();
    let all = async || {
        let mut all = BTreeMap::new();
        for (index, node) in cluster.nodes.iter().enumerate() {
            all.insert(index, keys(node).await);
        }
        all
    };
    let before = all().await;
    for (index, keys) in &before {
        let rooms = keys.iter().filter(|key| key.contains(":interest:")).count();
        assert!(rooms >= ROOMS / 6, "node {index} has {rooms} rooms");
    }
    presence.full_set(&instance("dead"), 3, &crowd(1_500), true).await.unwrap();
    assert_ne!(all().await, before);
    assert_eq!(presence.reap(&instance("dead")).await.unwrap(), 1_500 * 2 + 90);
    assert_eq!(all().await, before);
}

/// Nobody else noticed anything: the marker of all of them is another one all the same.
#[tokio::test]
async fn a_node_that_was_emptied_is_told_again() {
    let mut cluster = RedisCluster::start(3, false).await;
    let presence = open(&cluster);
    let mut marker = presence.marker().await.unwrap();
    assert_eq!(open(&cluster).marker().await, Ok(marker), "the same for all");
    told_again(&presence, 1).await;
    let flushed: String = ask(&cluster.nodes[1], &["FLUSHALL"]).await.unwrap();
    assert_eq!(flushed, "OK");
    for generation in [2, 3] {
        let another = async || presence.marker().await.is_ok_and(|now| now != marker);
        eventually("another marker", LONG, another).await;
        marker = presence.marker().await.unwrap();
        assert!(!has_everything(&presence).await, "a part is lost");
        told_again(&presence, generation).await;
        // The second time it ends, and comes back with nothing.
        if generation == 2 {
            cluster.nodes[2].kill();
            cluster.nodes[2].run().await;
        }
    }
}

#[tokio::test]
async fn a_primary_that_dies_is_replaced_and_keeps_nobody_from_the_others() {
    let mut cluster = RedisCluster::start(3, true).await;
    let presence = open(&cluster);
    let marker = presence.marker().await.unwrap();
    told_again(&presence, 1).await;
    let (mut gone, mut stays) = (Vec::new(), Vec::new());
    for room in rooms().into_iter().take(20) {
        let of = if holder(&cluster, room.as_str()).await.0 % 3 == 0 { &mut gone } else { &mut stays };
        of.push(room);
    }
    cluster.nodes[0].kill();
    let began = Instant::now();
    assert_eq!(presence.interested(&stays).await.unwrap().len(), stays.len());
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    let replaced = async || presence.interested(&gone).await.is_ok();
    eventually("the replica has taken over", LONG * 2, replaced).await;
    eventually("another marker", LONG, async || presence.marker().await.is_ok_and(|now| now != marker)).await;
    told_again(&presence, 2).await;
    // It comes back as a replica of the one that has taken over.
    cluster.nodes[0].run().await;
    let follows = async || {
        let said: String = ask(&cluster.nodes[0], &["INFO", "replication"]).await.unwrap_or_default();
        said.contains("role:slave") && said.contains("master_link_status:up")
    };
    eventually("the old one follows", LONG * 2, follows).await;
    assert!(has_everything(&open(&cluster)).await, "also for who asks it first");
}

/// Of rooms that other nodes have at once; of its own when its replica has taken over. Each once.
#[tokio::test]
async fn joins_are_told_although_a_node_is_away() {
    let mut cluster = RedisCluster::start(3, true).await;
    let presence = open(&cluster);
    // Before anybody has asked for it, nobody is told of joins.
    presence.marker().await.unwrap();
    let rooms: Vec<RoomId> = rooms().into_iter().take(20).collect();
    let watched = |room: &RoomId| {
        let (connection, user) = ("w".to_owned(), user("watcher"));
        [
            Change::InterestAdded(room.clone()),
            Change::Joined { connection, user, room: room.clone(), since_ms: 1, watches: true },
        ]
    };
    let watching: Vec<Change> = rooms.iter().flat_map(watched).collect();
    presence.apply(&instance("a"), &watching).await.complete().unwrap();
    let (mut away, mut there) = (BTreeSet::new(), BTreeSet::new());
    for room in &rooms {
        let of = if holder(&cluster, room.as_str()).await.0 % 3 == 0 { &mut away } else { &mut there };
        of.insert(room.clone());
    }
    assert!(!away.is_empty() && !there.is_empty());
    let copied = async || keys(&cluster.nodes[3]).await == keys(&cluster.nodes[0]).await;
    eventually("the replica has the watchers", LONG, copied).await;

    cluster.nodes[0].kill();
    let comes: Vec<Change> = rooms.iter().map(|room| joined("1", "ann", room.as_str(), 1)).collect();
    let told =
        |applied: &Applied| -> Vec<RoomId> { applied.joins.iter().map(|event| event.room.clone()).collect() };
    let applied = presence.apply(&instance("a"), &comes).await;
    let mut at_once = told(&applied);
    at_once.sort_unstable();
    assert_eq!((applied.stored.is_err(), at_once), (true, there.into_iter().collect::<Vec<_>>()));
    let (until, mut later) = (Instant::now() + LONG * 2, Vec::new());
    loop {
        let applied = presence.apply(&instance("a"), &comes).await;
        later.extend(told(&applied));
        if applied.stored.is_ok() {
            break;
        }
        assert!(Instant::now() < until, "the replica has not taken over");
    }
    later.sort_unstable();
    assert_eq!(later, away.into_iter().collect::<Vec<_>>());
}

/// Nothing died, and nothing may be lost: the old primary says at once who has its slots.
#[tokio::test]
async fn a_failover_by_hand_is_followed() {
    let cluster = RedisCluster::start(3, true).await;
    let presence = open(&cluster);
    let marker = presence.marker().await.unwrap();
    told_again(&presence, 1).await;
    let said: String = ask(&cluster.nodes[4], &["CLUSTER", "FAILOVER"]).await.unwrap();
    assert_eq!(said, "OK");
    let another = async || {
        presence.apply(&instance("a"), &everything()).await.complete().ok();
        presence.marker().await.is_ok_and(|now| now != marker)
    };
    eventually("another marker", LONG * 2, another).await;
    assert!(has_everything(&presence).await);
    let said: String = ask(&cluster.nodes[4], &["INFO", "replication"]).await.unwrap();
    assert!(said.contains("role:master"), "{said}");
}

/// A part that is on its way is away for that long; whoever moves it meets no key that was made there meanwhile.
#[tokio::test]
async fn a_slot_moves_while_it_is_used() {
    let cluster = RedisCluster::start(3, false).await;
    let presence = open(&cluster);
    let marker = presence.marker().await.unwrap();
    told_again(&presence, 1).await;
    let (from, key) = holder(&cluster, "r1").await;
    let to = (from + 1) % 3;
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let slot: u16 = ask(source, &["CLUSTER", "KEYSLOT", &key]).await.unwrap();
    let (slot, port) = (&slot.to_string(), &target.port().to_string());
    let from_id: String = ask(source, &["CLUSTER", "MYID"]).await.unwrap();
    let to_id: String = ask(target, &["CLUSTER", "MYID"]).await.unwrap();
    let set = async |node, args: &[&str]| {
        let said: String = ask(node, &[&["CLUSTER", "SETSLOT", slot], args].concat()).await.unwrap();
        assert_eq!(said, "OK");
    };
    set(target, &["IMPORTING", &from_id]).await;
    set(source, &["MIGRATING", &to_id]).await;
    let (mut taken, mut moved) = (0, 0);
    loop {
        let keys: Vec<String> = ask(source, &["CLUSTER", "GETKEYSINSLOT", slot, "2"]).await.unwrap();
        if keys.is_empty() {
            break;
        }
        let migrate = ["MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"];
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let said: String =
            ask(source, &[&migrate, keys.as_slice()].concat()).await.expect("no key is there already");
        moved += usize::from(said == "OK");
        // Rooms that are there, and one that is not yet.
        for change in [interest("r1"), interest(&format!("new{moved}"))] {
            match presence.apply(&instance("a"), &[change]).await.complete() {
                Ok(_) => taken += 1,
                Err(error) => assert!(matches!(error, PresenceError::Unavailable(_)), "{error}"),
            }
        }
    }
    assert!(moved > 1 && taken > 0, "{moved} {taken}");
    for node in [target, source, &cluster.nodes[(from + 2) % 3]] {
        set(node, &["NODE", &to_id]).await;
    }
    let another = async || presence.marker().await.is_ok_and(|now| now != marker);
    eventually("another marker: it may have missed something", LONG, another).await;
    told_again(&presence, 2).await;
    assert_eq!(holder(&cluster, "r1").await.0, to);
    assert_eq!(ask::<u64>(source, &["CLUSTER", "COUNTKEYSINSLOT", slot]).await, Ok(0));
}

#[tokio::test]
async fn a_frozen_node_delays_nobody_else_and_no_call_for_long() {
    let cluster = RedisCluster::start(3, false).await;
    let presence = open(&cluster);
    told_again(&presence, 1).await;
    let (mut frozen, mut others) = (Vec::new(), Vec::new());
    for room in rooms().into_iter().take(20) {
        let of = if holder(&cluster, room.as_str()).await.0 == 1 { &mut frozen } else { &mut others };
        of.push(room);
    }
    cluster.nodes[1].signal(Signal::SIGSTOP);
    let timed = async |rooms: &[RoomId]| {
        let began = Instant::now();
        (presence.interested(rooms).await.is_ok(), began.elapsed())
    };
    let (slow, quick) = tokio::join!(timed(&frozen), timed(&others));
    assert!(!slow.0 && slow.1 < QUICK, "{slow:?}");
    assert!(quick.0 && quick.1 < slow.1, "{quick:?} beside {slow:?}");
    for _ in 0..5 {
        let began = Instant::now();
        assert!(presence.apply(&instance("a"), &everything()).await.complete().is_err());
        assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
        assert!(timed(&others).await.0);
    }
    cluster.nodes[1].signal(Signal::SIGCONT);
    told_again(&presence, 2).await;
}

#[tokio::test]
async fn tls_and_a_user_of_the_acl() {
    let dir = tempfile::tempdir().unwrap();
    let files = Authority::in_dir(dir.path(), "ours").issue("127.0.0.1");
    let mut cluster = RedisCluster::absent(3, false, |port| {
        let (TlsFiles { ca, cert, key }, port) = (&files, port.to_string());
        let args = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-cluster",
            "yes",
            "--tls-replication",
            "yes",
            "--tls-cert-file",
            cert,
            "--tls-key-file",
            key,
            "--tls-ca-cert-file",
            ca,
            "--tls-auth-clients",
            "yes",
            "--user",
            "ann",
            "on",
            ">p@ss/w",
            "~sluice:*",
            "+@all",
            "-@dangerous",
            "+info",
            "--user",
            "default",
            "off",
        ];
        args.map(str::to_owned).to_vec()
    });
    cluster.run().await;
    let redis = Redis {
        ca_file: files.ca.clone(),
        cert_file: files.cert.clone(),
        key_file: files.key.clone(),
        ..Redis::at(&format!("rediss+cluster://ann:p%40ss%2Fw@{}", cluster.places()))
    };
    assert_eq!(redis.check(), Vec::<String>::new());
    let presence = RedisPresence::connect(config(redis.clone())).unwrap();
    eventually("the nodes agree", LONG * 3, async || presence.marker().await.is_ok()).await;
    told_again(&presence, 1).await;
    presence.goodbye(&instance("a")).await.unwrap();
    let said = probe(redis.clone(), "sluice").await.unwrap();
    assert!(said.starts_with("Redis ") && said.contains("3 nodes"), "{said}");
    let wrong = Redis { url: redis.url.reveal().replace("p%40ss", "hush").into(), ..redis.clone() };
    let said = probe(wrong, "sluice").await.unwrap_err();
    assert!(said.contains("password of redis.url") && !said.contains("hush"), "{said}");
    let said = probe(redis, "other").await.unwrap_err();
    assert!(said.contains("~PREFIX:*"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_fix() {
    let (mut cluster, alone) =
        tokio::join!(RedisCluster::start(3, false), TestServer::start(ServerKind::Redis));
    let node = Redis::at(&cluster.nodes[0].url());
    let said = probe(node.clone(), "sluice").await.unwrap_err();
    assert!(said.contains("Redis Cluster") && said.contains("redis+cluster://"), "{said}");
    let as_server = RedisPresence::connect(config(node)).unwrap();
    let error = as_server.interested(&rooms()).await.unwrap_err().to_string();
    assert!(error.contains("redis+cluster://"), "{error}");

    let as_cluster = Redis::at(&format!("redis+cluster://127.0.0.1:{}", alone.port()));
    let said = probe(as_cluster.clone(), "sluice").await.unwrap_err();
    assert!(said.contains("no node of a Redis Cluster"), "{said}");
    let error = RedisPresence::connect(config(as_cluster)).unwrap().marker().await.unwrap_err();
    assert!(matches!(&error, PresenceError::Refused(why) if why.contains("redis://")), "{error}");

    let braces = RedisConfig { prefix: "a{b}".into(), ..config(Redis::at(&cluster.url())) };
    assert!(RedisPresence::connect(braces).is_err_and(|error| error.to_string().contains("braces")));
    let (one, port) = (Redis::at(&cluster.url()), cluster.nodes[2].port());
    cluster.nodes[2].kill();
    let said = probe(one, "sluice").await.unwrap_err();
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}
