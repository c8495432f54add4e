//! Durable publishes: how many a second when clients push, how long the answer takes then and under a steady load.

use sluice_launcher::Service;

use super::{Bed, Window, notes, windows};
use crate::Common;
use crate::report::Section;
use crate::spec::{Job, Load, Pace, Publishers};
use crate::worker::Worker;

/// Durable publishes a second, and the time to their answer
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Publishing connections
    #[arg(long, default_value_t = Self::default().connections)]
    connections: usize,
    /// Publishes each keeps unanswered at saturation
    #[arg(long, default_value_t = Self::default().depth)]
    depth: usize,
    /// Rooms, published to in turn
    #[arg(long, default_value_t = Self::default().rooms)]
    rooms: usize,
    /// Bytes of data
    #[arg(long, default_value_t = Self::default().data)]
    data: usize,
    /// Publishes a second of the steady load
    #[arg(long, default_value_t = Self::default().rate)]
    rate: u32,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { connections: 64, depth: 64, rooms: 1_000, data: 128, rate: 1_000 }
    }
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { connections, depth, rooms, data, rate } = arguments;
    let command = format!(
        "sluice-bench publish --connections {connections} --depth {depth} --rooms {rooms} --data {data} --rate {rate}"
    );
    let mut section = Section::new(command);
    let bed = Bed::start(common, 1).await?;
    let job = |tag: &str, pace| -> anyhow::Result<Job> {
        let address = bed.gateway(0)?;
        let publishers = Publishers { address, connections: *connections, data_bytes: *data, pace };
        let tag = tag.to_owned();
        Ok(Job::Load(Load {
            secret: bed.secret(),
            tag,
            rooms: *rooms,
            publishers: Some(publishers),
            subscribers: None,
        }))
    };
    for (tag, pace) in
        [("saturated", Pace::Closed { depth: *depth }), ("steady", Pace::Open { per_s: *rate })]
    {
        let mut publishers = Worker::start(&job(tag, pace)?).await?;
        let label = format!("publish, {tag}");
        let all = windows(&label, common, Some(&bed), &mut [&mut publishers]).await?;
        publishers.end().await?;
        section.figure(format!("{tag}: publishes/s"), all.iter().map(|window| window.acked_per_s));
        section.figure(format!("{tag}: answer p50, ms"), all.iter().map(|window| window.ack(|ack| ack.p50)));
        section.figure(format!("{tag}: answer p99, ms"), all.iter().map(|window| window.ack(|ack| ack.p99)));
        let cost =
            |window: &Window, service| window.cpu(service) / (window.acked_per_s * window.seconds) * 1e6;
        for service in [Service::Gateway, Service::Logic, Service::Task, Service::Postgres] {
            let name = format!("{tag}: CPU of {service}, µs per publish");
            section.figure(name, all.iter().map(|window| cost(window, service)));
        }
        notes(&mut section, tag, &["publishers"], &all);
    }
    bed.cluster.stop().await;
    Ok(section)
}
