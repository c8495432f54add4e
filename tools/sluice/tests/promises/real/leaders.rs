//! Servers that are groups: the leader of one is killed while clients are connected, and stays away until another one
//! leads. Deliveries go on, and nothing is lost or doubled.

use std::time::Duration;

use sluice_launcher::{Engines, Options, Service};
use tokio::time::Instant;

use super::Real;
use super::outages::silence_on;
use crate::kit::SOON;

/// The longest silence that anybody saw.
async fn silence_without_leader(service: Service, engines: Engines) -> Duration {
    let cluster = Real::with(Options { gateways: 2, engines, ..Options::default() }).await;
    silence_on(cluster, async |cluster| {
        let old = cluster.leader(service).await.expect("one leads");
        let node = cluster.node(service, old).unwrap();
        assert!(node.kill());
        let killed = Instant::now();
        node.exit().await;
        while cluster.leader(service).await.is_none_or(|now| now == old) {
            assert!(killed.elapsed() < SOON * 3, "nobody follows {service}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("another {service} leads after {:?}", killed.elapsed());
        cluster.start_at(service, old).await.unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_etcd_dies() {
    let engines = Engines { etcds: 3, ..Engines::default() };
    let silence = silence_without_leader(Service::Etcd, engines).await;
    assert!(silence < Duration::from_secs(3), "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_stream_dies() {
    let engines = Engines { natses: 3, ..Engines::default() };
    let silence = silence_without_leader(Service::Nats, engines).await;
    assert!(silence < Duration::from_secs(3), "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_of_redis_dies() {
    let engines = Engines { sentinel: true, ..Engines::default() };
    let silence = silence_without_leader(Service::Redis, engines).await;
    assert!(silence < Duration::from_secs(3), "silent for {silence:?}");
}

/// All groups in one cluster, as it would be run.
#[tokio::test(flavor = "multi_thread")]
async fn every_leader_dies_in_one_cluster() {
    let engines = Engines { etcds: 3, natses: 3, sentinel: true };
    let cluster =
        Real::with(Options { gateways: 2, logics: 2, tasks: 2, engines, ..Options::default() }).await;
    let silence = silence_on(cluster, async |cluster| {
        for service in [Service::Nats, Service::Redis, Service::Etcd] {
            let leader = cluster.leader(service).await.expect("one leads");
            let node = cluster.node(service, leader).unwrap();
            assert!(node.kill());
            node.exit().await;
        }
        for service in [Service::Nats, Service::Redis, Service::Etcd] {
            let until = Instant::now() + SOON * 3;
            while cluster
                .leader(service)
                .await
                .is_none_or(|now| cluster.node(service, now).is_none_or(|node| node.exited().is_some()))
            {
                assert!(Instant::now() < until, "nobody follows {service}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
    assert!(silence < Duration::from_secs(5), "silent for {silence:?}");
}
