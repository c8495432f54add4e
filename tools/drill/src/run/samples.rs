//! Four times a second: how many connections each gateway holds and how far the load is. For pictures; it waits for
//! nobody.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use sluice_judge::record::Sample;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::leftovers::connections;
use crate::clock::Clock;
use crate::load::Load;
use crate::place::Role;
use crate::target::Target;

const EVERY: Duration = Duration::from_millis(250);

/// Writes samples until `stop`.
///
/// # Errors
/// When the file cannot be written.
pub async fn take(
    target: &Target,
    load: &Load,
    clock: Clock,
    dir: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let path = dir.join("samples.jsonl");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let mut ticks = interval(EVERY);
    // After a standstill one sample, not all that were missed at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let gateways = target.admins().into_iter().filter(|(place, _)| place.role == Role::Gateway);
        let looks = gateways.map(|(place, admin)| async move {
            // One that hangs is missing in this sample, and holds up no other.
            let open = timeout(EVERY, connections(&admin)).await.ok().flatten()?;
            Some((place.to_string(), open))
        });
        let connections = join_all(looks).await.into_iter().flatten().collect();
        let progress = load.progress();
        let p99_us = progress.ack_p99_ms.map_or(0, |ms| (ms * 1_000.0) as u64);
        let sample = Sample {
            at_us: clock.now_us(),
            connections,
            acked: progress.acked,
            delivered: progress.delivered,
            p99_us,
        };
        serde_json::to_writer(&mut out, &sample)?;
        out.write_all(b"\n")?;
    }
    out.flush().context("samples.jsonl")
}
