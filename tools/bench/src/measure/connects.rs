//! How fast a crowd comes in: connections with a token and one subscription, on one core of the gateway and one core of
//! everything else, beside clients that behave. Each run has a new gateway.

use std::time::Duration;

use sluice_launcher::Service;
use tokio::time::sleep;

use super::{Bed, progress};
use crate::honest::Seen;
use crate::load::CONNECTING_MAX;
use crate::report::{Section, number};
use crate::spec::{Job, Load, Place, Subscribers};
use crate::worker::Worker;
use crate::{Common, machine};

/// The clients that behave, alone on a fresh gateway.
const ALONE: Duration = Duration::from_secs(2);

/// Connects a second with token and one subscription, one core for the gateway and one for the rest, and what others
/// feel meanwhile
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Connections of each run
    #[arg(long, default_value_t = Self::default().connections)]
    connections: usize,
    /// Rooms they are spread over
    #[arg(long, default_value_t = Self::default().rooms)]
    rooms: usize,
    /// Let the system choose cores, and the gateway its number of shards
    #[arg(long)]
    unpinned: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { connections: 15_000, rooms: 1_000, unpinned: false }
    }
}

/// What one crowd showed.
struct Crowd {
    per_s: f64,
    /// CPU of each process, µs per connect; the clients are last.
    cost: Vec<(&'static str, f64)>,
    before: Seen,
    meanwhile: Seen,
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let all = machine::cores()?;
    // One core alone has nothing to share out.
    let pinned =
        (!arguments.unpinned).then(|| all.split_first()).flatten().filter(|(_, rest)| !rest.is_empty());
    // Before anything is started: what has one core chooses its number of threads by it.
    if let Some((_, rest)) = pinned {
        machine::keep_on(std::process::id(), &rest[..1])?;
    }
    let section = crowds(arguments, common, pinned.map(|(gateway, _)| *gateway)).await;
    machine::keep_on(std::process::id(), &all)?;
    section
}

async fn crowds(arguments: &Arguments, common: &Common, core: Option<usize>) -> anyhow::Result<Section> {
    let Arguments { connections, rooms, .. } = *arguments;
    let unpinned = if core.is_some() { "" } else { " --unpinned" };
    let command = format!("sluice-bench connects --connections {connections} --rooms {rooms}{unpinned}");
    let bed = Bed::start(common, 1).await?;
    let mut seen = Vec::new();
    for run in 1..=common.runs {
        // A gateway of its own: what the crowd before left behind would count.
        if run > 1 {
            bed.cluster.stop_node(Service::Gateway, 0).await?;
            bed.cluster.start_at(Service::Gateway, 0).await?;
        }
        if let Some(core) = core {
            machine::keep_on(bed.cluster.gateway(0).pid(), &[core])?;
        }
        let crowd = crowd(arguments, &bed, &format!("connects{run}")).await?;
        let (runs, per_s) = (common.runs, number(crowd.per_s));
        progress(&format!("connects, run {run} of {runs}: {per_s} connects/s"));
        seen.push(crowd);
    }
    bed.cluster.stop().await;
    Ok(section(command, &seen))
}

async fn crowd(arguments: &Arguments, bed: &Bed, tag: &str) -> anyhow::Result<Crowd> {
    let Arguments { connections, rooms, .. } = *arguments;
    let (address, secret) = (bed.gateway(0)?, bed.secret());
    let place = Place { address, secret: secret.clone(), tag: format!("honest-{tag}") };
    let mut honest = Worker::start(&Job::Honest(place)).await?;
    honest.seen::<Seen>().await?;
    // What others feel without the crowd, to hold against what they feel with it.
    sleep(ALONE).await;
    let before = honest.seen().await?;
    let cpu = bed.cpu();
    let subscribers = Subscribers { to: address.into(), connections, check: false, timed: false };
    let load = Load { secret, tag: tag.into(), rooms, subscribers: Some(subscribers), publishers: None };
    let clients = Worker::start(&Job::Load(load)).await?;
    let meanwhile = honest.seen().await?;
    let each = |seconds: f64| seconds / connections as f64 * 1e6;
    let used = bed.cpu().into_iter().zip(cpu);
    let mut cost: Vec<_> =
        used.map(|((which, end), (_, begin))| (which.as_str(), each(end - begin))).collect();
    cost.push(("clients", each(machine::cpu_seconds(clients.pid))));
    let per_s = connections as f64 / clients.ready.took_s;
    clients.end().await?;
    honest.end().await?;
    Ok(Crowd { per_s, cost, before, meanwhile })
}

fn section(command: String, all: &[Crowd]) -> Section {
    let mut section = Section::new(command);
    section.figure("connects/s, token checked and subscribed", all.iter().map(|crowd| crowd.per_s));
    let cost = |of: fn(&str) -> bool| {
        let sum = move |crowd: &Crowd| {
            crowd.cost.iter().filter(|(which, _)| of(which)).map(|(_, us)| us).sum::<f64>()
        };
        all.iter().map(sum).collect::<Vec<_>>()
    };
    section.figure("CPU of gateway, µs per connect", cost(|which| which == Service::Gateway.as_str()));
    section
        .figure("CPU of everything else, µs per connect", cost(|which| which != Service::Gateway.as_str()));
    let delivery = |of: fn(&Crowd) -> &Seen| all.iter().filter_map(move |crowd| of(crowd).delivery);
    section.figure("others' delivery p99 before, ms", delivery(|crowd| &crowd.before).map(|ms| ms.p99));
    section.figure("others' delivery p99 meanwhile, ms", delivery(|crowd| &crowd.meanwhile).map(|ms| ms.p99));
    let sub = all.iter().filter_map(|crowd| crowd.meanwhile.sub);
    section.figure("others' sub p99 meanwhile, ms", sub.map(|ms| ms.p99));
    if let Some(last) = all.last() {
        let parts: Vec<_> = last.cost.iter().map(|(which, us)| format!("{which} {}", number(*us))).collect();
        section.notes.push(format!("CPU of the last run, µs per connect: {}", parts.join(", ")));
    }
    section.notes.push(format!(
        "{CONNECTING_MAX} connections under way at once; signing tokens is not counted in the time"
    ));
    for trouble in all.iter().filter_map(|crowd| crowd.meanwhile.trouble.as_ref()) {
        section.notes.push(format!("TROUBLE of others: {trouble}"));
    }
    section
}
