//! What tests of several crates need: private servers, certificates, a service manager, their own log, what a process
//! holds, and waiting for something to become true. Only ever a dev-dependency; it panics where a test would.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "for tests only")]

mod authority;
mod footprint;
mod log;
mod notify_socket;
mod reader;
mod redis_cluster;
mod server;
mod wrong_ends;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub use authority::{Authority, TlsFiles};
pub use footprint::{Footprint, cycles, lives_leave_nothing};
pub use log::{keep_log, logged};
pub use notify_socket::NotifySocket;
pub use reader::{ReadEnd, Reader};
pub use redis_cluster::RedisCluster;
pub use server::{PRIMARY, ServerKind, TestServer, free_port};
pub use wrong_ends::{LinkEnd, WrongEnds};

/// Waits until the condition holds, looking every few milliseconds, and panics when it does not in time. Returns
/// how long it took.
pub async fn eventually(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(within, wait).await.unwrap_or_else(|_| panic!("{what}: not within {within:?}"));
    begun.elapsed()
}
