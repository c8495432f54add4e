//! Memory of connections that do nothing: resident memory of a fresh gateway before, with, and after them. Each run
//! has a new gateway, because an allocator keeps what it had.

use std::time::Duration;

use sluice_launcher::{Node, Service};

use super::{Bed, address, progress};
use crate::Common;
use crate::report::Section;
use crate::spec::{Job, Load, Subscribers};
use crate::worker::Worker;

/// Before memory is read: what connecting needed has been given back.
const SETTLE: Duration = Duration::from_secs(5);
/// Longer than the allocator waits before it gives back what the connects took for a moment, and what clients that left
/// took.
const AFTER: Duration = Duration::from_secs(15);

/// Memory of idle connections with one subscription each, and connects a second
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Connections
    #[arg(long, default_value_t = Self::default().connections)]
    connections: usize,
    /// Rooms they are spread over
    #[arg(long, default_value_t = Self::default().rooms)]
    rooms: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { connections: 10_000, rooms: 1_000 }
    }
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { connections, rooms } = *arguments;
    let mut section = Section::new(format!("sluice-bench idle --connections {connections} --rooms {rooms}"));
    let bed = Bed::start(common, 1).await?;
    let (mut bytes, mut kept, mut connects) = (Vec::new(), Vec::new(), Vec::new());
    let (mut empty, mut cpu) = (Vec::new(), Vec::new());
    for run in 1..=common.runs {
        if run > 1 {
            bed.cluster.stop_node(Service::Gateway, 0).await?;
            bed.cluster.start_at(Service::Gateway, 0).await?;
        }
        let gateway = bed.cluster.gateway(0);
        tokio::time::sleep(SETTLE).await;
        let before = memory(&gateway);
        let subscribers =
            Subscribers { to: address(&gateway)?.into(), connections, check: false, timed: false };
        let (secret, tag) = (bed.secret(), format!("idle{run}"));
        let load = Load { secret, tag, rooms, subscribers: Some(subscribers), publishers: None };
        let clients = Worker::start(&Job::Load(load)).await?;
        connects.push(connections as f64 / clients.ready.took_s);
        cpu.push(crate::machine::cpu_seconds(gateway.pid()) / connections as f64 * 1e6);
        tokio::time::sleep(AFTER).await;
        let with = memory(&gateway);
        clients.end().await?;
        tokio::time::sleep(AFTER).await;
        let after = memory(&gateway);
        progress(&format!(
            "idle, run {run} of {}: {} kB before, {} with them, {} after, {:.0} connects/s",
            common.runs,
            before / 1e3,
            with / 1e3,
            after / 1e3,
            connects.last().unwrap_or(&0.0)
        ));
        empty.push(before / 1e6);
        bytes.push((with - before) / connections as f64);
        kept.push((after - before) / connections as f64);
    }
    bed.cluster.stop().await;
    section.figure("resident bytes per connection", bytes);
    section.figure("the same after they left", kept);
    section.figure("gateway without clients, MB", empty);
    section.figure("connects/s, token checked and subscribed", connects);
    section.figure("CPU of gateway, µs per connect", cpu);
    section.notes.push("kernel memory of sockets is not counted".into());
    Ok(section)
}

fn memory(node: &Node) -> f64 {
    node.memory_bytes().unwrap_or_default() as f64
}
