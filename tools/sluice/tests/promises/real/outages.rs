//! NATS, Redis and etcd lose everything or are away while clients are connected: deliveries go on or resume
//! within some seconds, and nothing is lost. What is embedded in one process cannot be away from it.

use std::time::Duration;

use sluice_client::Position;
use sluice_launcher::Service;
use tokio::time::Instant;

use super::{On, Real};
use crate::kit::{Ground, SOON, client_of};
use crate::record::{Observer, judge, sender};

/// Who watches hears nothing for so long at most: 3 s is what is promised, and what two busy cores may add.
pub(super) const SILENT: Duration = Duration::from_secs(5);

/// Load on two gateways while `trouble` happens; returns the longest silence any observer saw.
async fn silence_during(trouble: impl AsyncFnOnce(&Real)) -> Duration {
    silence_on(Real::start(2, 1, 1).await, trouble).await
}

/// The same on this cluster, which has two gateways.
pub(super) async fn silence_on<const SECURE: bool>(
    cluster: On<SECURE>,
    trouble: impl AsyncFnOnce(&On<SECURE>),
) -> Duration {
    let mut observers = Vec::new();
    for n in 0..2 {
        observers.push(
            Observer::start(client_of(&cluster, &format!("watch{n}"), n), "news", Position::After(0)).await,
        );
    }
    let sending = sender(client_of(&cluster, "ann", 0), "ann", "news", 2_400, 200).await;
    observers[1].reaches(200, SOON).await;
    let start = Instant::now();
    trouble(&cluster).await;
    println!("the trouble took {:?}", start.elapsed());
    let sent = sending.await.unwrap();
    sent.all_ok();
    for observer in &observers {
        observer.reaches(2_400, SOON).await;
    }
    judge(&cluster, "news", &[sent], &observers.iter().collect::<Vec<_>>()).await;
    let silence = observers.iter().map(|observer| observer.look(crate::record::Seen::silence)).max().unwrap();
    cluster.stop().await;
    silence
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_wiped() {
    let silence = silence_during(async |cluster| {
        cluster.wipe_store(Service::Nats).await.unwrap();
    })
    .await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_away_and_active_rooms_live_on_repair() {
    let silence = silence_during(async |cluster| {
        cluster.stop_store(Service::Nats).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.start_store(Service::Nats).await.unwrap();
    })
    .await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_flushed() {
    let silence = silence_during(async |cluster| cluster.flush_redis().await.unwrap()).await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_away_and_comes_back_empty() {
    let silence = silence_during(async |cluster| {
        cluster.stop_store(Service::Redis).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.wipe_store(Service::Redis).await.unwrap();
    })
    .await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_restarted_empty() {
    let silence = silence_during(async |cluster| {
        cluster.wipe_store(Service::Etcd).await.unwrap();
    })
    .await;
    assert!(silence < SILENT, "silent for {silence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted_and_publishes_wait() {
    let silence = silence_during(async |cluster| {
        cluster.restart_store(Service::Postgres).await.unwrap();
    })
    .await;
    assert!(silence < Duration::from_secs(8), "silent for {silence:?}");
}
