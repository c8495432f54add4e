//! How many commits a second this disk bears; run by hand.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sluice_store::Store;
use sluice_store::sqlite::{SqliteConfig, SqliteStore};

use crate::cases::contract::{LATER, message};

/// Stop-and-wait callers with groups of `size`, for two seconds: groups and messages a second.
async fn measure(path: Option<&std::path::Path>, callers: usize, size: usize) -> (u64, u64) {
    let config = SqliteConfig { path: path.map(Into::into), ..SqliteConfig::default() };
    let store = SqliteStore::open(config).await.unwrap();
    let started = Instant::now();
    let data = "x".repeat(128);
    let calls = join_all((0..callers).map(|caller| {
        let (store, data) = (&store, &data);
        async move {
            let mut groups = 0_u64;
            while started.elapsed() < Duration::from_secs(2) {
                let name = |i| format!("{caller}-{groups}-{i}");
                let group = (0..size).map(|i| message(&format!("r{}", i * 7 % 1000), "s", &name(i), data));
                store.publish(0, LATER, group.collect()).await.unwrap();
                groups += 1;
            }
            groups
        }
    }))
    .await;
    let groups: u64 = calls.iter().sum();
    store.close().await;
    (groups / 2, groups * size as u64 / 2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn commits_a_second() {
    for (place, callers, size) in
        [(true, 1, 1), (true, 1, 64), (true, 16, 1), (true, 16, 64), (false, 1, 1), (false, 16, 64)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (groups, messages) = measure(place.then_some(path.as_path()), callers, size).await;
        let place = if place { "file" } else { "memory" };
        println!("{place}: {callers} callers × groups of {size}: {groups} groups/s, {messages} messages/s");
    }
}
