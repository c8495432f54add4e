//! A Redis that lets in only whom it knows, over TLS; and one that is slow once.

use std::time::Duration;

use sluice_presence::redis::{RedisConfig, RedisPresence, probe};
use sluice_presence::{Presence as _, PresenceError, Redis};
use sluice_testing::{Authority, LinkEnd, ServerKind, TestServer, TlsFiles, WrongEnds, eventually};

use crate::contract::{LONG, instance, interest, room};

fn open(redis: Redis) -> RedisPresence {
    RedisPresence::connect(RedisConfig { redis, ..RedisConfig::default() }).unwrap()
}

/// Interest is written and read, and the probe is content.
async fn lets_in(redis: &Redis) {
    assert_eq!(redis.check(), Vec::<String>::new());
    assert!(probe(redis.clone(), "sluice").await.unwrap().starts_with("Redis "));
    let presence = open(redis.clone());
    presence.marker().await.unwrap();
    presence.apply(&instance("a"), &[interest("news")]).await.complete().unwrap();
    assert_eq!(presence.interested(&[room("news")]).await.unwrap(), [[instance("a")]]);
    presence.reap(&instance("a")).await.unwrap();
}

/// What the probe says is wrong; a service hears the same.
async fn refusal(redis: &Redis) -> String {
    let said = tokio::time::timeout(LONG, probe(redis.clone(), "sluice"))
        .await
        .expect("no hang")
        .expect_err("let in");
    let Err(error) = open(redis.clone()).marker().await else { panic!("let in") };
    assert!(matches!(error, PresenceError::Unavailable(_) | PresenceError::Refused(_)), "{error}");
    said
}

/// One that shows this certificate, and wants to see one of the same authority.
async fn tls_server(shown: &TlsFiles) -> TestServer {
    let mut server = TestServer::absent(ServerKind::Redis).with_args(|port| {
        let TlsFiles { ca, cert, key } = shown;
        let port = port.to_string();
        let args = [
            ["--port", "0"],
            ["--tls-port", &port],
            ["--tls-cert-file", cert],
            ["--tls-key-file", key],
            ["--tls-ca-cert-file", ca],
            ["--tls-auth-clients", "yes"],
        ];
        args.into_iter().flatten().map(str::to_owned).collect()
    });
    server.run().await;
    server
}

#[tokio::test]
async fn each_wrong_end_of_the_link_is_a_line_with_its_fix() {
    let ends = WrongEnds::of(ServerKind::Redis, tls_server).await;
    for (scheme, end, says) in [
        ("rediss", &ends.elsewhere, "a name that stands in the server's certificate in redis.url"),
        ("rediss", &ends.expired, "not valid now"),
        ("rediss", &ends.plain, "if the server does not speak TLS there, use redis://"),
        ("redis", &ends.tls, "if the server speaks TLS, use rediss://"),
    ] {
        let LinkEnd { server, files } = end;
        let redis = Redis {
            ca_file: files.ca.clone(),
            cert_file: files.cert.clone(),
            key_file: files.key.clone(),
            ..Redis::at(&format!("{scheme}://127.0.0.1:{}", server.port()))
        };
        let why = refusal(&redis).await;
        assert!(why.contains(says) && !why.contains('\n'), "{says}: {why:?}");
    }
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_clients_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let files = |of: &str| Authority::in_dir(dir.path(), of);
    let (ours, theirs) = (files("ours").issue("127.0.0.1"), files("theirs").issue("127.0.0.1"));
    let server = tls_server(&ours).await;
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let shown = |ca: &str, shown: &TlsFiles| Redis {
        ca_file: ca.to_owned(),
        cert_file: shown.cert.clone(),
        key_file: shown.key.clone(),
        ..Redis::at(&url)
    };
    lets_in(&shown(&ours.ca, &ours)).await;
    for (wrong, says) in [
        (shown(&theirs.ca, &ours), "redis.ca_file"),
        (shown(&ours.ca, &theirs), "redis.cert_file"),
        (Redis { ca_file: ours.ca.clone(), ..Redis::at(&url) }, "redis.cert_file"),
        (Redis::at(&server.url()), "use rediss://"),
    ] {
        let why = refusal(&wrong).await;
        assert!(why.contains(says), "{says}: {why}");
    }
}

#[tokio::test]
async fn a_user_of_the_acl_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::absent(ServerKind::Redis).with_args(|_| {
        let ann = ["--user", "ann", "on", ">p@ss/w", "~sluice:*", "+@all", "-@dangerous", "+info"];
        let nobody = ["--user", "default", "off"];
        ann.into_iter().chain(nobody).map(str::to_owned).collect()
    });
    server.run().await;
    let at = |user: &str| Redis::at(&format!("redis://{user}127.0.0.1:{}", server.port()));
    lets_in(&at("ann:p%40ss%2Fw@")).await;
    let file = dir.path().join("password");
    std::fs::write(&file, "p@ss/w\n").unwrap();
    lets_in(&Redis { password_file: file.display().to_string(), ..at("ann@") }).await;
    for wrong in [at("ann:hush@"), at("")] {
        let why = refusal(&wrong).await;
        assert!(why.contains("password of redis.url") && !why.contains("hush"), "{why}");
    }
}

/// Connections of the server but this one.
async fn others(admin: &mut ::redis::aio::MultiplexedConnection) -> Vec<String> {
    let mine: u64 = ::redis::cmd("CLIENT").arg("ID").query_async(admin).await.unwrap();
    let list: String = ::redis::cmd("CLIENT").arg("LIST").query_async(admin).await.unwrap();
    let ids = list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    ids.filter(|id| *id != format!("id={mine}")).collect()
}

#[tokio::test]
async fn one_slow_call_leaves_everybody_their_connection() {
    let args = ["--enable-debug-command", "yes"].map(str::to_owned).to_vec();
    let server = TestServer::start_with(ServerKind::Redis, args).await;
    let presence = open(Redis::at(&server.url()));
    let marker = presence.marker().await.unwrap();
    // The server knows the script: the late call is one that it executes.
    presence.apply(&instance("b"), &[interest("other")]).await.complete().unwrap();
    let client = ::redis::Client::open(server.url()).unwrap();
    let config = ::redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut admin = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let before = others(&mut admin).await;
    assert_eq!(before.len(), 1, "{before:?}");
    let mut busy = admin.clone();
    let slow = async {
        ::redis::cmd("DEBUG").arg("SLEEP").arg("0.8").exec_async(&mut busy).await.unwrap();
    };
    let late = async {
        // Behind the slow call in the server.
        tokio::time::sleep(Duration::from_millis(50)).await;
        presence.apply(&instance("a"), &[interest("news")]).await.complete()
    };
    let ((), late) = tokio::join!(slow, late);
    assert!(matches!(late, Err(PresenceError::Unavailable(_))), "{late:?}");
    eventually("it works again", LONG, async || presence.marker().await.is_ok_and(|now| now == marker)).await;
    // Its late answer was nobody else's: each call hears its own.
    assert_eq!(presence.interested(&[room("news"), room("b")]).await.unwrap(), [vec![instance("a")], vec![]]);
    assert_eq!(others(&mut admin).await, before, "the connection that everybody shares is the same");
}
