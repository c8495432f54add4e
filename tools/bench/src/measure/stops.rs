//! How long stops take, and what they use: each service idle, under load, with delayed messages due, and with idle
//! clients. Each stop is of a process that was started anew.

use std::time::Duration;

use anyhow::Context;
use sluice_launcher::{Node, Service};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Bed, progress};
use crate::report::Section;
use crate::spec::{Job, Load, Pace, Publishers, Subscribers};
use crate::worker::Worker;
use crate::{Common, machine};

/// Between two looks at a process that stops: what it holds is in the last of them.
const LOOK: Duration = Duration::from_millis(5);
/// Due messages are published by then, on a machine with other work too.
const FIRED_WITHIN: Duration = Duration::from_secs(20);
/// Publishing clients, publishes each keeps unanswered, rooms, bytes: the saturating load of `sluice-bench publish`.
const LOAD: (usize, usize, usize, usize) = (64, 64, 1_000, 128);
/// Rooms of idle clients.
const ROOMS: usize = 1_000;
/// As publishes keep them, each room in one part.
const DUE: &str = "insert into scheduled (due, part, room, sender, key, hash, data) \
     select now(), n % 16, 'due-' || n % 96, 'ann', gen_random_uuid()::text, sha256('1'), '1' \
     from generate_series(1, $1) n";
/// Whether fewer are left than there were.
const FIRED: &str = "select 1 where (select count(*) from scheduled) < $1";

/// Time of a stop, and CPU and memory meanwhile: idle, under load, with delayed messages due, with idle clients
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Idle clients
    #[arg(long, default_value_t = Self::default().clients)]
    clients: usize,
    /// Delayed messages that are due at the stop
    #[arg(long, default_value_t = Self::default().due)]
    due: i32,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { clients: 10_000, due: 100_000 }
    }
}

/// What a service is stopped in the middle of.
#[derive(Debug, Clone, Copy)]
enum Amid {
    Nothing,
    Load,
    Due(i32),
    Clients(usize),
}

impl Amid {
    fn name(self) -> String {
        match self {
            Self::Nothing => "idle".into(),
            Self::Load => "under load".into(),
            Self::Due(count) => format!("{count} messages due"),
            Self::Clients(count) => format!("{count} idle clients"),
        }
    }

    /// Begins it; the clients last as long as the worker.
    async fn begin(self, bed: &Bed, tag: String, warmup: Duration) -> anyhow::Result<Option<Worker>> {
        let (address, secret) = (bed.gateway(0)?, bed.secret());
        match self {
            Self::Nothing => Ok(None),
            Self::Load => {
                let (connections, depth, rooms, data_bytes) = LOAD;
                let pace = Pace::Closed { depth };
                let publishers =
                    Some(Publishers { to: address.into(), connections, data_bytes, pace, api_key: None });
                let load = Load { secret, tag, rooms, subscribers: None, publishers };
                let mut worker = Worker::start(&Job::Load(load)).await?;
                worker.go().await?;
                sleep(warmup).await;
                Ok(Some(worker))
            }
            Self::Due(count) => {
                let mut store = store(bed).await?;
                sqlx::query(DUE).bind(count).execute(&mut store).await?;
                // Not before some are published: the stop is to come in the middle of it.
                let fired = async {
                    while sqlx::query(FIRED).bind(i64::from(count)).fetch_all(&mut store).await?.is_empty() {
                        sleep(LOOK).await;
                    }
                    Ok::<_, sqlx::Error>(())
                };
                timeout(FIRED_WITHIN, fired).await.context("nothing that is due is published")??;
                Ok(None)
            }
            Self::Clients(connections) => {
                let subscribers =
                    Some(Subscribers { to: address.into(), connections, check: false, timed: false });
                let load = Load { secret, tag, rooms: ROOMS, subscribers, publishers: None };
                Ok(Some(Worker::start(&Job::Load(load)).await?))
            }
        }
    }
}

async fn store(bed: &Bed) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(bed.cluster.store(Service::Postgres).url()).await?)
}

/// One stop.
struct Stop {
    ms: f64,
    cpu_ms: f64,
    peak_mb: f64,
    /// Why it was no good one.
    trouble: Option<String>,
}

async fn stop(node: &Node) -> anyhow::Result<Stop> {
    let resident = || machine::resident_bytes(node.pid()).unwrap_or_default();
    let cpu = || machine::own_cpu_seconds(node.pid());
    let (before, mut peak) = (cpu(), resident());
    let mut after = before;
    let begun = Instant::now();
    anyhow::ensure!(node.term(), "{} has ended by itself", node.name());
    let exit = loop {
        // Before the look: what has ended holds nothing.
        if let Ok(exit) = timeout(LOOK, node.exit()).await {
            break exit;
        }
        (after, peak) = (cpu().max(after), resident().max(peak));
    };
    let took = exit.elapsed.unwrap_or_else(|| begun.elapsed());
    let trouble = (exit.code() != Some(0)).then(|| format!("exit code {:?}", exit.code()));
    Ok(Stop { ms: took.as_secs_f64() * 1e3, cpu_ms: (after - before) * 1e3, peak_mb: peak / 1e6, trouble })
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { clients, due } = *arguments;
    let command = format!("sluice-bench stops --clients {clients} --due {due}");
    let mut section = Section::with_columns(command, ["ms", "CPU, ms", "peak MB"]);
    let bed = Bed::start(common, 1).await?;
    for amid in [Amid::Nothing, Amid::Load, Amid::Due(due), Amid::Clients(clients)] {
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            let mut stops = Vec::new();
            for run in 1..=common.runs {
                let tag = format!("stops-{service}{run}");
                let warmup = Duration::from_secs(u64::from(common.warmup));
                let worker = amid.begin(&bed, tag, warmup).await?;
                let node = bed.cluster.node(service, 0).context("it is not there")?;
                stops.push(stop(&node).await?);
                if let Some(worker) = worker {
                    worker.end().await?;
                }
                // What the stopped service did not publish would be due for the next one.
                sqlx::query("delete from scheduled").execute(&mut store(&bed).await?).await?;
                bed.cluster.start_at(service, 0).await?;
            }
            let label = format!("{}: {service}", amid.name());
            progress(&format!("stops, {label}: {} stops measured", stops.len()));
            add(&mut section, &label, &stops);
        }
    }
    bed.cluster.stop().await;
    section.notes.push(format!("the longest of {} stops each, with its CPU and peak memory", common.runs));
    section.notes.push("CPU is counted in ticks of 10 ms; memory is looked at every 5 ms".into());
    Ok(section)
}

/// The longest stop, as it was.
fn add(section: &mut Section, label: &str, stops: &[Stop]) {
    if let Some(longest) = stops.iter().max_by(|one, other| one.ms.total_cmp(&other.ms)) {
        section.values(label, [longest.ms, longest.cpu_ms, longest.peak_mb]);
    }
    let troubles = stops.iter().filter_map(|stop| stop.trouble.as_ref());
    section.notes.extend(troubles.map(|trouble| format!("TROUBLE, {label}: {trouble}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stop_stands_for_all_and_a_bad_one_is_named() {
        let stop = |ms, trouble: Option<&str>| Stop {
            ms,
            cpu_ms: ms / 10.0,
            peak_mb: 1.0,
            trouble: trouble.map(Into::into),
        };
        let mut section = Section::new(String::new());
        add(
            &mut section,
            "idle: logic",
            &[stop(20.0, None), stop(30.0, None), stop(10.0, Some("exit code Some(1)"))],
        );
        assert_eq!(section.figures[0].values, [30.0, 3.0, 1.0]);
        assert_eq!(section.notes, ["TROUBLE, idle: logic: exit code Some(1)"]);
    }
}
