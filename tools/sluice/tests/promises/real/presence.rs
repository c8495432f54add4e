//! Presence when a gateway is killed, and when only the registry is: ghosts go soon, the living never.

use std::time::Duration;

use sluice_client::{Client, Options, Position};
use sluice_launcher::Service;
use tokio::time::{Instant, sleep};

use super::Real;
use crate::kit::{Ground, SOON};

/// Of the cluster of these tests.
const LEASE: Duration = Duration::from_secs(3);
/// What comes on top of it, as docs/operations.md says.
const AND: Duration = Duration::from_secs(3);

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
