//! Groups of servers: they come up together, name their leader, go on without it, and take it back.

use std::time::Duration;

use sluice_launcher::{Cluster, Engines, Options, RedisKind, Service};
use tokio::time::{Instant, sleep};

use super::clients::{etcd, nats};
use super::{exists, stores_only};

const ALL: Engines = Engines { etcds: 3, natses: 3, redis: RedisKind::Sentinel, patroni: false };
/// A leader is followed by another one within this, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The member that leads, as soon as there is one that is not this.
async fn leader_but(cluster: &Cluster, service: Service, not: Option<usize>) -> usize {
    let until = Instant::now() + SOON;
    loop {
        match cluster.leader(service).await {
            Some(leader) if Some(leader) != not => return leader,
            said => assert!(Instant::now() < until, "{service}: {said:?} leads after {SOON:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn make_stream(cluster: &Cluster) {
    let nats = nats(cluster).await;
    let config = async_nats::jetstream::stream::Config {
        name: "sluice_FANOUT".into(),
        num_replicas: 3,
        ..Default::default()
    };
    let until = Instant::now() + SOON;
    // They need a moment to agree who gives out streams.
    while let Err(error) = async_nats::jetstream::new(nats.clone()).create_stream(config.clone()).await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_outlives_its_leader_and_takes_it_back() {
    outlives_its_leader(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_a_secure_cluster_does_so_too() {
    outlives_its_leader(true).await;
}

async fn outlives_its_leader(secure: bool) {
    let cluster = Cluster::start(Options { engines: ALL, secure, ..stores_only() }).await.unwrap();
    make_stream(&cluster).await;
    assert_eq!(cluster.nodes(Service::Sentinel).len(), 3);
    let (web, redis) =
        if secure { ("https://", "rediss+sentinel://") } else { ("http://", "redis+sentinel://") };
    assert_eq!(cluster.url(Service::Etcd).matches(web).count(), 3);
    assert!(cluster.url(Service::Redis).starts_with(&format!("{redis}127.0.0.1:")));
    for service in [Service::Etcd, Service::Nats, Service::Redis] {
        let old = leader_but(&cluster, service, None).await;
        let node = cluster.node(service, old).unwrap();
        assert!(node.kill());
        node.exit().await;
        let new = leader_but(&cluster, service, Some(old)).await;
        let back = cluster.start_at(service, old).await.unwrap();
        assert_eq!((back.index, back.url()), (old, node.url()), "{service}-{new} leads");
    }
    let pids: Vec<u32> = [Service::Etcd, Service::Nats, Service::Redis, Service::Sentinel]
        .into_iter()
        .flat_map(|service| cluster.nodes(service))
        .map(|node| node.pid())
        .collect();
    assert_eq!(pids.len(), 12);
    let stopped = cluster.stop().await;
    assert_eq!((stopped.exits.len(), stopped.killed), (13, Vec::<String>::new()));
    assert!(pids.iter().all(|pid| !exists(*pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_outlives_a_primary_and_is_failed_over() {
    redis_cluster(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_of_a_secure_cluster_does_so_too() {
    redis_cluster(true).await;
}

async fn redis_cluster(secure: bool) {
    let engines = Engines { redis: RedisKind::Cluster, ..Engines::default() };
    let cluster = Cluster::start(Options { engines, secure, ..stores_only() }).await.unwrap();
    let scheme = if secure { "rediss+cluster://" } else { "redis+cluster://" };
    let url = cluster.url(Service::Redis);
    assert!(url.starts_with(scheme) && url.matches("127.0.0.1:").count() == 6, "{url}");
    let first = leader_but(&cluster, Service::Redis, None).await;
    let node = cluster.node(Service::Redis, first).unwrap();
    assert!(node.kill());
    node.exit().await;
    let second = leader_but(&cluster, Service::Redis, Some(first)).await;
    cluster.start_at(Service::Redis, first).await.unwrap();
    fail_over(&cluster, second).await;
    let third = leader_but(&cluster, Service::Redis, None).await;
    assert_eq!(third, first, "there is one that could");
    cluster.flush_redis().await.unwrap();
    cluster.wipe_store(Service::Redis).await.unwrap();
    leader_but(&cluster, Service::Redis, None).await;
    assert_eq!(cluster.stop().await.killed, Vec::<String>::new());
}

/// Asks until somebody else leads: the one that came back has to follow first, and on a busy machine Redis gives a failover
/// up after five seconds.
async fn fail_over(cluster: &Cluster, leader: usize) {
    let until = Instant::now() + SOON;
    loop {
        let asked = cluster.fail_over_redis().await;
        let again = Instant::now() + if asked.is_ok() { Duration::from_secs(6) } else { Duration::ZERO };
        loop {
            match cluster.leader(Service::Redis).await {
                Some(now) if now != leader => return,
                said => assert!(Instant::now() < until, "{said:?} leads after {SOON:?}: {asked:?}"),
            }
            sleep(Duration::from_millis(100)).await;
            if Instant::now() >= again {
                break;
            }
        }
    }
}

/// Members have each other's ports in their data.
#[tokio::test(flavor = "multi_thread")]
async fn a_given_folder_is_used_again_by_members_of_etcd() {
    let parent = tempfile::tempdir().unwrap();
    let engines = Engines { etcds: 3, ..Engines::default() };
    let options = Options { engines, dir: Some(parent.path().join("sluice")), ..stores_only() };
    let first = Cluster::start(options.clone()).await.unwrap();
    etcd(&first).await.put("k", "1", None).await.unwrap();
    first.stop().await;
    drop(first);
    let second = Cluster::start(options).await.unwrap();
    assert_eq!(etcd(&second).await.get("k", None).await.unwrap().count(), 1);
    second.wipe_store(Service::Etcd).await.unwrap();
    assert_eq!(etcd(&second).await.get("k", None).await.unwrap().count(), 0);
    second.stop().await;
    let postgres = second.store_data(Service::Postgres).unwrap();
    if !postgres.starts_with(parent.path()) {
        std::fs::remove_dir_all(postgres).unwrap();
    }
}
