//! Presence when a gateway is killed, and when only the registry is: ghosts go soon, the living never.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_client::{Client, Event, Options, Position};
use sluice_launcher::Service;
use tokio::time::{Instant, sleep, timeout};

use super::Real;
use crate::kit::{Ground, SOON, client_of, socket_of, until};

/// Of the cluster of these tests.
const LEASE: Duration = Duration::from_secs(3);
/// What comes on top of it: 3 s, as docs/operations.md says, and what a busy machine adds.
const AND: Duration = Duration::from_secs(8);

/// Who is in the room, by name.
async fn present(client: &Client) -> Vec<String> {
    client.presence("lobby").await.unwrap().into_iter().map(|user| user.user).collect()
}

/// One user on each of two gateways, both seen by the second.
async fn lobby(cluster: &Real) -> (Client, Client) {
    let mut clients = Vec::new();
    for (n, user) in ["ann", "bob"].into_iter().enumerate() {
        // this gateway and no other
        let options = Options::new(cluster.ws(n)).token(cluster.token(user));
        let (client, mut events) = Client::connect(options).await.unwrap();
        client.subscribe("lobby", Position::Now).await.unwrap();
        tokio::spawn(async move { while events.next().await.is_some() {} });
        clients.push(client);
    }
    let [ann, bob] = clients.try_into().unwrap_or_else(|_| panic!("two"));
    let began = Instant::now();
    while present(&bob).await != ["ann", "bob"] {
        assert!(began.elapsed() < SOON, "they see each other");
    }
    (ann, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_on_a_killed_gateway_is_gone_soon_after_its_lease() {
    let cluster = Real::start(2, 1, 2).await;
    let (_ann, bob) = lobby(&cluster).await;
    let killed = Instant::now();
    assert!(cluster.node(Service::Gateway, 0).unwrap().kill());
    while present(&bob).await != ["bob"] {
        assert!(killed.elapsed() < LEASE + AND, "a ghost after {:?}", killed.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    println!("with a lease of {LEASE:?} the ghost was gone after {:?}", killed.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lives_is_never_missing_when_the_registry_comes_back_empty() {
    let cluster = Real::start(2, 1, 2).await;
    let (_ann, bob) = lobby(&cluster).await;
    cluster.wipe_store(Service::Etcd).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 3 * LEASE {
        assert_eq!(present(&bob).await, ["ann", "bob"], "{:?} after", began.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    cluster.stop().await;
}

/// How long somebody may be away in the test of who is told.
const GRACE: Duration = Duration::from_secs(5);

/// What somebody who watches was told, in order: `+user` and `-user`.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn of(&self, users: &[&str]) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|told| users.contains(&&told[1..])).cloned().collect()
    }

    async fn hears(&self, user: &str) {
        while self.of(&[user]).is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// In the background, what these events say.
    fn read(&self, mut events: sluice_client::Events) {
        let told = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::UserJoined { user, .. } => told.lock().unwrap().push(format!("+{user}")),
                    Event::UserLeft { user, .. } => told.lock().unwrap().push(format!("-{user}")),
                    _ => {}
                }
            }
        });
    }
}

/// Somebody in the lobby.
async fn enters(options: Options) -> Client {
    let (client, mut events) = Client::connect(options).await.unwrap();
    client.subscribe("lobby", Position::Now).await.unwrap();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    client
}

/// Somebody comes and is cut off without a goodbye; told when the grace is over, so is everybody who was lost before.
async fn comes_and_is_lost(cluster: &Real, user: &str, told: &Told) {
    let mut socket = socket_of(cluster, user, 1).await;
    socket.send(r#"{"sub":"lobby"}"#).await.unwrap();
    until("the join is told", SOON, async || told.of(&[user]).len() == 1).await;
    drop(socket);
    until("the leave is told", GRACE + SOON, async || told.of(&[user]).len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_roll_of_all_gateways_stirs_nobody_and_a_kill_only_who_does_not_return() {
    let options = sluice_launcher::Options { gateways: 2, logics: 2, tasks: 2, ..Default::default() };
    let grace = format!("logic.leave_grace_s={}", GRACE.as_secs());
    let cluster = Real::with(options.set(&grace).unwrap()).await;
    let (watcher, events) = Client::connect(client_of(&cluster, "watcher", 0)).await.unwrap();
    watcher.watch("lobby", Position::Now).await.unwrap();
    let told = Told::default();
    told.read(events);
    // For ten seconds after Redis has started nobody is told of joins.
    let mut tries = 0;
    until("joins are told", Duration::from_secs(20), async || {
        tries += 1;
        let name = format!("try{tries}");
        let client = enters(client_of(&cluster, &name, 0)).await;
        let heard = timeout(Duration::from_millis(500), told.hears(&name)).await.is_ok();
        client.close().await;
        heard
    })
    .await;
    let all = ["ann", "bob", "cat"];
    let _ann = enters(client_of(&cluster, "ann", 0)).await;
    let _bob = enters(client_of(&cluster, "bob", 1)).await;
    until("both are told", SOON, async || told.of(&all).len() == 2).await;
    for index in 0..2 {
        cluster.roll(Service::Gateway, index).await;
    }
    comes_and_is_lost(&cluster, "dan", &told).await;
    assert_eq!(told.of(&all).len(), 2, "a deploy stirs nobody: {:?}", told.of(&all));

    // This gateway and no other: she cannot return.
    let _cat = enters(Options::new(cluster.ws(0)).token(cluster.token("cat"))).await;
    until("she is told", SOON, async || told.of(&["cat"]) == ["+cat"]).await;
    let killed = Instant::now();
    assert!(cluster.node(Service::Gateway, 0).unwrap().kill());
    let within = LEASE + AND + GRACE + Duration::from_secs(2);
    until("who does not return leaves", within, async || told.of(&["cat"]).len() == 2).await;
    println!("the leave was told {:?} after the kill", killed.elapsed());
    comes_and_is_lost(&cluster, "eve", &told).await;
    assert_eq!(told.of(&all)[3..], ["-cat"], "once, and nobody else");
    assert_eq!(told.of(&["watcher"]), Vec::<String>::new());
    cluster.stop().await;
}
