//! Servers that are groups: the leader of one is killed while clients are connected, and stays away until another one
//! leads. Deliveries go on, and nothing is lost or doubled.

use std::time::Duration;

use sluice_launcher::{Cluster, Engines, Options, RedisKind, Service};

use super::outages::{SILENT, silence_on};
use super::{On, Real};
use crate::kit::{SOON, until};

/// The member that leads and lives, as soon as there is one.
async fn leader(cluster: &Cluster, service: Service) -> usize {
    let mut found = None;
    until("one leads", SOON * 3, async || {
        found = cluster.leader(service).await;
        let lives = |index| cluster.node(service, index).is_some_and(|node| node.exited().is_none());
        found = found.filter(|index| lives(*index));
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Kills it; returns which one it was.
async fn kill_leader(cluster: &Cluster, service: Service) -> usize {
    let index = leader(cluster, service).await;
    let node = cluster.node(service, index).unwrap();
    assert!(node.kill());
    node.exit().await;
    index
}

/// The longest silence that anybody saw.
async fn silence_without_leader(service: Service, engines: Engines) -> Duration {
    let cluster = Real::with(Options { gateways: 2, engines, ..Options::default() }).await;
    silence_on(cluster, async |cluster| {
        let old = kill_leader(cluster, service).await;
        let new = leader(cluster, service).await;
        assert_ne!(old, new);
        cluster.start_at(service, old).await.unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_etcd_dies() {
    let engines = Engines { etcds: 3, ..Engines::default() };
    let silence = silence_without_leader(Service::Etcd, engines).await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_stream_dies() {
    let engines = Engines { natses: 3, ..Engines::default() };
    let silence = silence_without_leader(Service::Nats, engines).await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_of_redis_dies() {
    let engines = Engines { redis: RedisKind::Sentinel, ..Engines::default() };
    let silence = silence_without_leader(Service::Redis, engines).await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_a_redis_cluster_dies() {
    let engines = Engines { redis: RedisKind::Cluster, ..Engines::default() };
    let silence = silence_without_leader(Service::Redis, engines).await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

/// All groups in one cluster, as it would be run, and all at once.
async fn silence_without_any_leader<const SECURE: bool>() -> Duration {
    let groups = [Service::Nats, Service::Redis, Service::Etcd];
    let engines = Engines { etcds: 3, natses: 3, redis: RedisKind::Sentinel, ..Engines::default() };
    let options = Options { gateways: 2, logics: 2, tasks: 2, engines, ..Options::default() };
    silence_on(On::<SECURE>::with(options).await, async |cluster| {
        for service in groups {
            kill_leader(cluster, service).await;
        }
        for service in groups {
            leader(cluster, service).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leader_dies_in_one_cluster() {
    let silence = silence_without_any_leader::<false>().await;
    assert!(silence < 2 * SILENT, "silent for {silence:?}");
}

/// Whoever takes over asks for certificate and password as the one before.
#[tokio::test(flavor = "multi_thread")]
async fn every_leader_dies_in_a_secure_cluster() {
    let silence = silence_without_any_leader::<true>().await;
    assert!(silence < 2 * SILENT, "silent for {silence:?}");
}
