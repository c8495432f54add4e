//! Deliveries of one gateway, at saturation and under a steady load, and beside each the same by the floor: a loop
//! that only writes, at the gateway's rate and with as many messages in a write. Compared is CPU time per delivery,
//! because on a small machine everybody shares the cores. A read may hold several writes, so that the floor's writes
//! are rather larger than the gateway's: the comparison does not flatter the gateway.

use sluice_launcher::Service;

use super::{Bed, Window, notes, windows};
use crate::Common;
use crate::report::Section;
use crate::spec::{Floor, Job, Load, Pace, Publishers, Subscribers};
use crate::worker::Worker;

/// Deliveries a second of one gateway, beside a loop that only writes
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Rooms
    #[arg(long, default_value_t = 1)]
    rooms: usize,
    /// Subscribers of each room
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Publishing connections at saturation
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Publishes each of them keeps unanswered
    #[arg(long, default_value_t = 64)]
    depth: usize,
    /// Bytes of data
    #[arg(long, default_value_t = 128)]
    data: usize,
    /// Deliveries a second of the steady load
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
}

impl Arguments {
    pub(crate) fn new(rooms: usize, subscribers: usize) -> Self {
        Self { rooms, subscribers, publishers: 64, depth: 64, data: 128, rate: 100_000 }
    }

    fn subscribers(&self, bed: &Bed, tag: &str) -> anyhow::Result<Job> {
        let connections = self.rooms * self.subscribers;
        let subscribers = Subscribers { to: bed.gateway(0)?.into(), connections, check: true, timed: false };
        let (secret, tag) = (bed.secret(), tag.to_owned());
        Ok(Job::Load(Load {
            secret,
            tag,
            rooms: self.rooms,
            subscribers: Some(subscribers),
            publishers: None,
        }))
    }

    fn publishers(&self, bed: &Bed, tag: &str, pace: Pace) -> anyhow::Result<Job> {
        let (connections, data_bytes) = (self.publishers, self.data);
        let publishers =
            Publishers { to: bed.gateway(0)?.into(), connections, data_bytes, pace, api_key: None };
        let (secret, tag) = (bed.secret(), tag.to_owned());
        Ok(Job::Load(Load {
            secret,
            tag,
            rooms: self.rooms,
            publishers: Some(publishers),
            subscribers: None,
        }))
    }
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { rooms, subscribers, publishers, depth, data, rate } = arguments;
    let command = format!(
        "sluice-bench fanout --rooms {rooms} --subscribers {subscribers} --publishers {publishers} --depth {depth} \
         --data {data} --rate {rate}"
    );
    let mut section = Section::new(command);
    let steady = rate / u32::try_from(*subscribers)?.max(1);
    let bed = Bed::start(common, 1).await?;
    let loads = [("saturated", Pace::Closed { depth: *depth }), ("steady", Pace::Open { per_s: steady })];
    let mut seen = Vec::new();
    for (tag, pace) in loads {
        let mut readers = Worker::start(&arguments.subscribers(&bed, tag)?).await?;
        let mut writers = Worker::start(&arguments.publishers(&bed, tag, pace)?).await?;
        let label = format!("{rooms} × {subscribers}, {tag}");
        let all = windows(&label, common, Some(&bed), &mut [&mut readers, &mut writers]).await?;
        readers.end().await?;
        writers.end().await?;
        let cpu = figures(&mut section, tag, &all, |window| window.cpu(Service::Gateway));
        section.figure(format!("{tag}: publishes/s"), all.iter().map(|window| window.acked_per_s));
        notes(&mut section, tag, &["subscribers", "publishers"], &all);
        let mean = |what: fn(&Window) -> f64| all.iter().map(what).sum::<f64>() / all.len() as f64;
        let (per_s, burst) = (mean(|window| window.published_per_s), mean(|window| window.coalesced));
        seen.push((tag, cpu, per_s.round().max(1.0) as u32, burst.round().max(1.0) as u32));
    }
    bed.cluster.stop().await;
    // Before the floor runs: services that idle beside it would take from its cores.
    drop(bed);
    // The floor is given the rate and the burst that were seen, so that only the work in between differs.
    for (load, gateway, per_s, burst) in seen {
        let tag = format!("floor as {load}");
        let all = floor(arguments, common, &tag, Some(per_s), burst).await?;
        let floor = floor_figures(&mut section, &tag, &all);
        let ratio = gateway.iter().zip(&floor).map(|(gateway, floor)| gateway / floor);
        section.figure(format!("CPU of gateway / floor, {load}"), ratio);
    }
    let all = floor(arguments, common, "floor flat out", None, 1).await?;
    floor_figures(&mut section, "floor flat out", &all);
    Ok(section)
}

fn floor_figures(section: &mut Section, tag: &str, all: &[Window]) -> Vec<f64> {
    notes(section, tag, &["subscribers", "floor"], all);
    figures(section, tag, all, |window| window.workers_cpu.last().copied().unwrap_or_default())
}

/// The same subscribers at a server that only writes.
async fn floor(
    arguments: &Arguments,
    common: &Common,
    tag: &str,
    per_s: Option<u32>,
    burst: u32,
) -> anyhow::Result<Vec<Window>> {
    let Arguments { rooms, subscribers, data, .. } = *arguments;
    let job = Floor { rooms, data_bytes: data, burst, per_s };
    let mut floor = Worker::start(&Job::Floor(job)).await?;
    let Some(address) = floor.ready.address else { anyhow::bail!("the floor does not say where it listens") };
    let readers =
        Subscribers { to: address.into(), connections: rooms * subscribers, check: false, timed: false };
    let load = Load {
        secret: "none".into(),
        tag: "floor".into(),
        rooms,
        subscribers: Some(readers),
        publishers: None,
    };
    let mut readers = Worker::start(&Job::Load(load)).await?;
    let label = format!("{rooms} × {subscribers}, {tag}");
    let all = windows(&label, common, None, &mut [&mut readers, &mut floor]).await?;
    readers.end().await?;
    floor.end().await?;
    Ok(all)
}

/// Deliveries, their cost and how many came at once; returns the cost of each window.
fn figures(section: &mut Section, tag: &str, all: &[Window], cpu: impl Fn(&Window) -> f64) -> Vec<f64> {
    let costs: Vec<f64> = all.iter().map(|window| cpu(window) / window.delivered * 1e6).collect();
    section.figure(format!("{tag}: deliveries/s"), all.iter().map(|window| window.delivered_per_s));
    section.figure(format!("{tag}: CPU seconds per million"), costs.iter().copied());
    section.figure(format!("{tag}: messages in one read"), all.iter().map(|window| window.coalesced));
    costs
}
