//! Presence on a Redis behind Sentinel: a primary, two replicas, three sentinels.

use nix::sys::signal::Signal;
use sluice_presence::redis::{RedisConfig, RedisPresence, probe};
use sluice_presence::{Presence as _, PresenceError, Redis};
use sluice_testing::{PRIMARY, ServerKind, TestServer, eventually};

use crate::contract::{LONG, connected, instance, interest, room, user};

/// Servers, the primary first, and who looks after them.
struct Bed {
    servers: Vec<TestServer>,
    sentinels: Vec<TestServer>,
}

impl Bed {
    /// Ready for a failover: every sentinel knows the replicas and the other sentinels.
    async fn start() -> Self {
        // A primary waits for more replicas otherwise.
        let args = ["--repl-diskless-sync-delay", "0"].map(str::to_owned).to_vec();
        let primary = TestServer::start_with(ServerKind::Redis, args.clone()).await;
        let (port, of) = (primary.port(), primary.port().to_string());
        let mut bed = Self { servers: vec![primary], sentinels: Vec::new() };
        for _ in 0..2 {
            let follow = ["--replicaof", "127.0.0.1", of.as_str()].map(str::to_owned);
            let args = [follow.as_slice(), args.as_slice()].concat();
            bed.servers.push(TestServer::start_with(ServerKind::Redis, args).await);
        }
        // Sentinels look for replicas at once, and then not for ten seconds.
        let info =
            async || ask::<String>(&bed.servers[0], "INFO", &["replication"]).await.unwrap_or_default();
        let online = async || info().await.matches("state=online").count() == 2;
        eventually("both follow", LONG, online).await;
        for _ in 0..3 {
            let mut sentinel = TestServer::sentinel(port);
            sentinel.run().await;
            bed.sentinels.push(sentinel);
        }
        for sentinel in &bed.sentinels {
            eventually("all know each other", LONG * 2, async || knows_all(sentinel).await).await;
        }
        bed
    }

    fn redis(&self) -> Redis {
        let places = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port()));
        let places: Vec<String> = places.collect();
        Redis::at(&format!("redis+sentinel://{}/{PRIMARY}", places.join(",")))
    }

    fn connect(&self) -> RedisPresence {
        RedisPresence::connect(RedisConfig { redis: self.redis(), ..RedisConfig::default() }).unwrap()
    }

    /// The index of the server that takes writes as sentinels have it.
    async fn primary(&self) -> Option<usize> {
        let ask = ["GET-MASTER-ADDR-BY-NAME", PRIMARY];
        let (_, port) = sentinel::<(String, u16)>(&self.sentinels[0], &ask).await?;
        self.servers.iter().position(|server| server.port() == port)
    }
}

async fn ask<T: ::redis::FromRedisValue>(server: &TestServer, command: &str, args: &[&str]) -> Option<T> {
    let client = ::redis::Client::open(server.url()).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    ::redis::cmd(command).arg(args).query_async(&mut connection).await.ok()
}

async fn sentinel<T: ::redis::FromRedisValue>(server: &TestServer, args: &[&str]) -> Option<T> {
    ask(server, "SENTINEL", args).await
}

async fn knows_all(server: &TestServer) -> bool {
    let usable = sentinel::<String>(server, &["CKQUORUM", PRIMARY]).await;
    let replicas = sentinel::<Vec<::redis::Value>>(server, &["REPLICAS", PRIMARY]).await;
    usable.is_some_and(|said| said.contains("3 usable")) && replicas.is_some_and(|list| list.len() == 2)
}

/// What the primary had not passed on is told again, since the marker is another one: as after a wipe.
#[tokio::test]
async fn a_failover_is_followed_and_looks_like_a_wipe() {
    let mut bed = Bed::start().await;
    let said = probe(bed.redis(), "sluice").await.unwrap();
    assert!(said.starts_with("Redis "), "{said}");
    let presence = bed.connect();
    let (marker, mine) = (presence.marker().await.unwrap(), [connected("x", "ann", 1), interest("news")]);
    presence.full_set(&instance("a"), 1, &mine, true).await.unwrap();
    // Both replicas stand still and are cut off: what is written now, only the primary has.
    bed.servers[1..].iter().for_each(|replica| replica.signal(Signal::SIGSTOP));
    assert_eq!(ask::<u32>(&bed.servers[0], "CLIENT", &["KILL", "TYPE", "REPLICA"]).await, Some(2));
    presence.apply(&instance("a"), &[interest("late")]).await.complete().unwrap();
    bed.servers[0].kill();
    bed.servers[1..].iter().for_each(|replica| replica.signal(Signal::SIGCONT));
    eventually("another marker", LONG * 2, async || presence.marker().await.is_ok_and(|now| now != marker))
        .await;
    presence
        .full_set(&instance("a"), 2, &[mine.as_slice(), &[interest("late")]].concat(), true)
        .await
        .unwrap();
    let interested = presence.interested(&[room("news"), room("late")]).await.unwrap();
    assert_eq!(interested, [[instance("a")], [instance("a")]]);
    assert_eq!(presence.user(&user("ann")).await.unwrap().map(|ann| ann.connections), Some(1));
    assert_eq!(presence.reap(&instance("a")).await.unwrap(), 3, "it is one primary that has it all");
}

/// The link moves when sentinels say so: the old primary still calls itself one, for 8 s or more.
#[tokio::test]
async fn a_failover_by_hand_is_followed_before_the_old_primary_is_turned() {
    let bed = Bed::start().await;
    let presence = bed.connect();
    presence.apply(&instance("a"), &[interest("news")]).await.complete().unwrap();
    let moving = async {
        // Subscribed to all, or what is announced is not heard.
        for sentinel in &bed.sentinels {
            let subscribed = async || {
                let list: Option<String> = ask(sentinel, "CLIENT", &["LIST", "TYPE", "PUBSUB"]).await;
                list.is_some_and(|list| list.contains("sub=1"))
            };
            eventually("it is listened to", LONG, subscribed).await;
        }
        let said = sentinel::<String>(&bed.sentinels[0], &["FAILOVER", PRIMARY]).await;
        assert_eq!(said.as_deref(), Some("OK"));
        // Of all that is written from now on the new primary has something, while there are two of them.
        let stored = async || {
            presence.apply(&instance("a"), &[interest("more")]).await.complete().ok();
            for server in &bed.servers[1..] {
                let info: String = ask(server, "INFO", &["replication"]).await.unwrap_or_default();
                let more = ["sluice:interest:more", "a"];
                if info.contains("role:master") && ask(server, "SISMEMBER", &more).await == Some(true) {
                    return true;
                }
            }
            false
        };
        eventually("what is written is stored by the new primary", LONG * 3, stored).await;
        let info: String = ask(&bed.servers[0], "INFO", &["replication"]).await.unwrap();
        assert!(info.contains("role:master"), "only now was the old one turned: {info}");
    };
    tokio::select! {
        () = presence.follow_failovers() => panic!("it ends"),
        () = moving => {}
    }
}

/// Nothing died: the old primary serves on, as a replica.
#[tokio::test]
async fn a_failover_by_hand_is_followed() {
    let bed = Bed::start().await;
    let presence = bed.connect();
    presence.apply(&instance("a"), &[interest("news")]).await.complete().unwrap();
    assert_eq!(sentinel::<String>(&bed.sentinels[0], &["FAILOVER", PRIMARY]).await.as_deref(), Some("OK"));
    let mut now = 0;
    let other = async || {
        now = bed.primary().await.unwrap_or(0);
        now != 0
    };
    eventually("another primary", LONG * 2, other).await;
    // Again and again: the old primary takes writes until it hears that it is a replica, and forgets them then. Sentinels
    // tell it when it has called itself one for four of their hellos, 8 s, and cut its clients off.
    let stored = async || {
        presence.apply(&instance("a"), &[interest("more")]).await.complete().ok();
        ask(&bed.servers[now], "SISMEMBER", &["sluice:interest:more", "a"]).await == Some(true)
    };
    eventually("what is written is stored by the new primary", LONG * 3, stored).await;
}

async fn clients(server: &TestServer) -> String {
    let list: String = ask(server, "CLIENT", &["LIST", "TYPE", "NORMAL"]).await.unwrap();
    // The one that was open before this one asked.
    list.lines().next().and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned()
}

/// Whoever it was turned by: the name in the URL may lead to another server by now.
#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_connected_to_anew() {
    let (server, other) =
        tokio::join!(TestServer::start(ServerKind::Redis), TestServer::start(ServerKind::Redis));
    let presence =
        RedisPresence::connect(RedisConfig { redis: Redis::at(&server.url()), ..RedisConfig::default() });
    let presence = presence.unwrap();
    let write = async || presence.apply(&instance("a"), &[interest("news")]).await.complete();
    write().await.unwrap();
    let before = clients(&server).await;
    let port = other.port().to_string();
    assert_eq!(ask::<String>(&server, "REPLICAOF", &["127.0.0.1", &port]).await.as_deref(), Some("OK"));
    let error = write().await.unwrap_err();
    assert!(matches!(&error, PresenceError::Unavailable(why) if why.contains("it is a replica")), "{error}");
    assert_eq!(ask::<String>(&server, "REPLICAOF", &["NO", "ONE"]).await.as_deref(), Some("OK"));
    eventually("it works again", LONG, async || write().await.is_ok()).await;
    assert_ne!(clients(&server).await, before, "on a new connection");
}

#[tokio::test]
async fn sentinels_that_are_gone_or_silent_cost_no_connection() {
    let mut bed = Bed::start().await;
    bed.sentinels[0].kill();
    bed.sentinels[1].signal(Signal::SIGSTOP);
    bed.connect().marker().await.unwrap();
    bed.sentinels[1].signal(Signal::SIGCONT);
}

#[tokio::test]
async fn what_is_wrong_with_sentinels_is_said() {
    let mut bed = Bed::start().await;
    let unknown = Redis { url: bed.redis().url.reveal().replace(PRIMARY, "other").into(), ..bed.redis() };
    let said = probe(unknown, "sluice").await.unwrap_err();
    assert!(said.contains(r#"no primary "other""#) && said.contains("redis.url"), "{said}");
    bed.sentinels.iter_mut().for_each(TestServer::kill);
    let said = probe(bed.redis(), "sluice").await.unwrap_err();
    assert!(said.contains("the sentinel at 127.0.0.1:"), "{said}");
    let none = Redis::at("redis+sentinel://127.0.0.1:1");
    assert!(RedisPresence::connect(RedisConfig { redis: none, ..RedisConfig::default() }).is_err());
}

#[tokio::test]
async fn a_password_of_the_sentinels_is_one_of_its_own() {
    let primary = TestServer::start(ServerKind::Redis).await;
    let mut guarded = TestServer::sentinel(primary.port());
    guarded.run().await;
    let only = ["SETUSER", "default", "resetpass", ">hush"];
    assert_eq!(ask::<String>(&guarded, "ACL", &only).await.as_deref(), Some("OK"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hush\n").unwrap();
    let stranger = Redis::at(&format!("redis+sentinel://127.0.0.1:{}/{PRIMARY}", guarded.port()));
    let said = probe(stranger.clone(), "sluice").await.unwrap_err();
    assert!(said.contains("redis.sentinel_password_file"), "{said}");
    let known = Redis { sentinel_password_file: file.display().to_string(), ..stranger };
    assert!(probe(known, "sluice").await.unwrap().starts_with("Redis "));
}
