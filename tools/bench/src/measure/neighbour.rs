//! A bad neighbour beside clients that behave: what these feel before, meanwhile, and after, and what the gateway
//! holds. Each habit has a fresh gateway of its own, so that none is blamed for another's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_launcher::Service;
use sluice_load::habit::{HABITS, Habit, Totals};
use sluice_load::samples::Quantiles;
use sluice_program::secret::TokenSecret;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Bed, progress};
use crate::honest::Seen;
use crate::report::{Section, number};
use crate::spec::{Job, Place};
use crate::worker::Worker;
use crate::{Common, machine};

/// A fresh gateway gets this long before anything is measured.
const SETTLE: Duration = Duration::from_secs(2);
/// The clients alone, before and after.
const ALONE: Duration = Duration::from_secs(5);
/// After a habit everything is as before within this.
const RECOVER: Duration = Duration::from_secs(2);
/// Between two looks at the gateway's memory.
const LOOK: Duration = Duration::from_millis(50);

/// One client that behaves badly, beside 50 that behave
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Arguments {
    /// Habits, one after the other; without any all of them
    #[arg(value_name = "HABIT")]
    habits: Vec<String>,
    /// How long each is lived out, seconds
    #[arg(long = "for", default_value_t = 10, value_name = "S")]
    for_s: u64,
    /// A gateway that runs already, instead of a cluster of its own
    #[arg(long, value_name = "IP:PORT", requires = "pid")]
    at: Option<SocketAddr>,
    #[command(flatten)]
    secret: TokenSecret,
    /// Its process, whose memory is looked at
    #[arg(long)]
    pid: Option<u32>,
}

fn after_help() -> String {
    format!(
        "Habits:\n{}\nExamples:\n  sluice-bench neighbour churner\n  sluice-bench neighbour history-unread creator --for 20\n  \
         sluice-bench neighbour pinger --at 127.0.0.1:8080 --token-secret-file secret.txt \
      --pid \"$(pidof sluice-gateway)\"",
        Habit::explained()
    )
}

/// The gateway that is looked at.
struct Gateway {
    address: SocketAddr,
    secret: String,
    pid: u32,
}

/// What one part showed, and the memory at its end, MB.
struct Part {
    seen: Seen,
    memory: f64,
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Vec<Section>> {
    let habits = wanted(&arguments.habits)?;
    if let (Some(address), Some(pid)) = (arguments.at, arguments.pid) {
        let secret = arguments.secret.read("sluice-bench")?;
        let secret = secret.context("clients need tokens: give --token-secret or --token-secret-file")?;
        let gateway = Gateway { address, secret, pid };
        let mut sections = Vec::new();
        for habit in habits {
            sections.push(one(habit, arguments, &gateway).await?);
        }
        return Ok(sections);
    }
    let bed = Bed::start(common, 1).await?;
    let mut sections = Vec::new();
    for (n, habit) in habits.into_iter().enumerate() {
        // A gateway of its own: memory that the habit before left behind would count.
        if n > 0 {
            bed.cluster.stop_node(Service::Gateway, 0).await?;
            bed.cluster.start_at(Service::Gateway, 0).await?;
        }
        let (address, pid) = (bed.gateway(0)?, bed.cluster.gateway(0).pid());
        sections.push(one(habit, arguments, &Gateway { address, secret: bed.secret(), pid }).await?);
    }
    bed.cluster.stop().await;
    Ok(sections)
}

fn wanted(names: &[String]) -> anyhow::Result<Vec<Habit>> {
    let named = |name: &String| match Habit::named(name) {
        Some(habit) => Ok(habit),
        None => {
            let all: Vec<&str> = HABITS.iter().map(|habit| habit.name).collect();
            bail!("there is no habit {name:?}; there are {}", all.join(", "))
        }
    };
    if names.is_empty() { Ok(HABITS.to_vec()) } else { names.iter().map(named).collect() }
}

async fn one(habit: Habit, arguments: &Arguments, gateway: &Gateway) -> anyhow::Result<Section> {
    let name = habit.name;
    progress(&format!("{name}: {}", habit.about));
    let tag = |part: &str| format!("{part}-{name}-{}", std::process::id());
    let place = |tag: String| Place { address: gateway.address, secret: gateway.secret.clone(), tag };
    let mut honest = Worker::start(&Job::Honest(place(tag("honest")))).await?;
    let mut neighbour = Worker::start(&Job::Habit(name.to_owned(), place(tag("bad")))).await?;
    sleep(SETTLE).await;
    // Thrown away: what it felt while all of them connected says nothing.
    honest.seen::<Seen>().await?;
    sleep(ALONE).await;
    let before = Part { seen: honest.seen().await?, memory: memory(gateway) };
    neighbour.go().await?;
    let (until, mut peak) = (Instant::now() + Duration::from_secs(arguments.for_s), 0.0_f64);
    while Instant::now() < until {
        sleep_until(until.min(Instant::now() + LOOK)).await;
        peak = peak.max(memory(gateway));
    }
    let totals: Totals = neighbour.stop().await?;
    let meanwhile = Part { seen: honest.seen().await?, memory: peak };
    sleep(RECOVER).await;
    let memory_after = memory(gateway);
    // Apart: what was late because of the neighbour is answered now, and belongs to neither side.
    let recovering: Seen = honest.seen().await?;
    sleep(ALONE).await;
    let after = Part { seen: honest.seen().await?, memory: memory_after };
    honest.end().await?;
    Ok(section(arguments, habit, [before, meanwhile, after], &recovering, &totals))
}

fn memory(gateway: &Gateway) -> f64 {
    machine::resident_bytes(gateway.pid).unwrap_or_default() / 1e6
}

fn section(
    arguments: &Arguments,
    habit: Habit,
    parts: [Part; 3],
    recovering: &Seen,
    totals: &Totals,
) -> Section {
    let command = format!("sluice-bench neighbour {} --for {}", habit.name, arguments.for_s);
    let mut section = Section::with_columns(command, ["before", "meanwhile", "after"]);
    let mut latency = |name: &str, of: fn(&Seen) -> Option<Quantiles>, which: fn(Quantiles) -> f64| {
        section.values(name, parts.each_ref().map(|part| of(&part.seen).map_or(f64::NAN, which)));
    };
    latency("sub p50, ms", |seen| seen.sub, |ms| ms.p50);
    latency("sub p99, ms", |seen| seen.sub, |ms| ms.p99);
    latency("sub, longest, ms", |seen| seen.sub, |ms| ms.max);
    latency("pub p50, ms", |seen| seen.publish, |ms| ms.p50);
    latency("pub p99, ms", |seen| seen.publish, |ms| ms.p99);
    latency("delivery p99, ms", |seen| seen.delivery, |ms| ms.p99);
    latency("connect p99, ms", |seen| seen.connect, |ms| ms.p99);
    section.values("disconnects", parts.each_ref().map(|part| part.seen.disconnects as f64));
    section.values("refused", parts.each_ref().map(|part| part.seen.refused as f64));
    section.values("gaps", parts.each_ref().map(|part| part.seen.gaps as f64));
    section.values("gateway, MB (meanwhile: peak)", parts.each_ref().map(|part| part.memory));
    let Totals { dialled, ended, frames, written, heard, why } = totals;
    section.notes.push(format!(
        "the neighbour: {} connections, {} ended by the server{}, {} frames, {} MB written, {} frames read",
        number(*dialled as f64),
        number(*ended as f64),
        why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default(),
        number(*frames as f64),
        number(*written as f64 / 1e6),
        number(*heard as f64)
    ));
    for (when, seen) in
        [("before", &parts[0].seen), ("meanwhile", &parts[1].seen), ("the 2 s after it", recovering)]
    {
        if let Some(trouble) = &seen.trouble {
            section.notes.push(format!("{when}, the first trouble of an honest client: {trouble}"));
        }
    }
    section
}
