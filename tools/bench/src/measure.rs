//! The measurements, one module each, and what they share: a cluster of their own, windows over workers, CPU time of
//! every process. A measurement ends what it started.

pub(crate) mod connects;
pub(crate) mod fanout;
pub(crate) mod given;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod neighbour;
pub(crate) mod publish;
pub(crate) mod stops;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use sluice_launcher::{Cluster, Node, Options, Service};

use crate::report::{Report, Section, number};
use crate::spec::Snapshot;
use crate::worker::Worker;
use crate::{Common, What, machine};

/// Runs what is asked for.
pub(crate) async fn run(what: What, common: &Common) -> anyhow::Result<Report> {
    let machine = machine::describe();
    let sections = match &what {
        What::Publish(arguments) => publish::sections(arguments, common).await?,
        What::Fanout(arguments) => vec![fanout::run(arguments, common).await?],
        What::Idle(arguments) => vec![idle::run(arguments, common).await?],
        What::Connects(arguments) => vec![connects::run(arguments, common).await?],
        What::Latency(arguments) => vec![latency::run(arguments, common).await?],
        What::Neighbour(arguments) => neighbour::run(arguments, common).await?,
        What::Stops(arguments) => vec![stops::run(arguments, common).await?],
        What::All | What::Worker => vec![
            publish::run(&publish::Arguments::default(), common).await?,
            fanout::run(&fanout::Arguments::new(1, 1_000), common).await?,
            fanout::run(&fanout::Arguments::new(1_000, 10), common).await?,
            idle::run(&idle::Arguments::default(), common).await?,
            connects::run(&connects::Arguments::default(), common).await?,
            latency::run(&latency::Arguments::default(), common).await?,
            stops::run(&stops::Arguments::default(), common).await?,
        ],
    };
    Ok(Report { machine, sections })
}

/// A private cluster and the names and pids of its processes.
struct Bed {
    cluster: Cluster,
}

impl Bed {
    async fn start(common: &Common, gateways: usize) -> anyhow::Result<Self> {
        progress("starting the stores and the services");
        let options = Options {
            gateways,
            dir: common.dir.clone(),
            bin_dir: common.bin_dir.clone(),
            settings: common.settings.clone(),
            secure: common.secure,
            ..Options::default()
        };
        Ok(Self { cluster: Cluster::start(options).await? })
    }

    fn gateway(&self, index: usize) -> anyhow::Result<SocketAddr> {
        address(&self.cluster.gateway(index))
    }

    /// The API of the first logic.
    fn api(&self) -> anyhow::Result<SocketAddr> {
        let logic = self.cluster.logic(0);
        let host = logic.http().trim_start_matches("http://");
        host.parse().with_context(|| format!("the API of logic at {:?}", logic.http()))
    }

    fn secret(&self) -> String {
        self.cluster.token_secret().to_owned()
    }

    /// CPU seconds of each so far.
    fn cpu(&self) -> Vec<(Service, f64)> {
        let services = Service::SERVICES.into_iter().chain(Service::STORES);
        let used =
            |service| self.cluster.nodes(service).iter().map(|node| machine::cpu_seconds(node.pid())).sum();
        services.map(|service| (service, used(service))).collect()
    }
}

fn address(gateway: &Node) -> anyhow::Result<SocketAddr> {
    let host = gateway.ws().trim_start_matches("ws://");
    host.split('/').next().unwrap_or(host).parse().with_context(|| format!("gateway at {:?}", gateway.ws()))
}

/// What happened between two marks.
struct Window {
    seconds: f64,
    published_per_s: f64,
    acked_per_s: f64,
    delivered_per_s: f64,
    delivered: f64,
    /// Messages in one read.
    coalesced: f64,
    /// The snapshot at its end: latencies are the window's own.
    end: Snapshot,
    /// CPU seconds of each process of the cluster, then of each worker.
    cpu: Vec<(Service, f64)>,
    workers_cpu: Vec<f64>,
}

impl Window {
    fn cpu(&self, service: Service) -> f64 {
        self.cpu.iter().filter(|(which, _)| *which == service).map(|(_, seconds)| seconds).sum()
    }

    fn ack(&self, which: fn(sluice_load::samples::Quantiles) -> f64) -> f64 {
        self.end.ack.map_or(f64::NAN, which)
    }
}

/// Lets the workers go and measures as many windows as asked for after the warm-up. Counters are summed over the
/// workers, each of which has its own part.
async fn windows(
    label: &str,
    common: &Common,
    bed: Option<&Bed>,
    workers: &mut [&mut Worker],
) -> anyhow::Result<Vec<Window>> {
    for worker in workers.iter_mut() {
        worker.go().await?;
    }
    watch(label, "warm-up", common.warmup, workers).await?;
    let mut all = Vec::new();
    for run in 1..=common.runs {
        // Differences of two marks: warm-up and connecting are in neither rate nor CPU time.
        let (begin, cpu_begin, own_begin) = mark(bed, workers).await?;
        watch(label, &format!("run {run} of {}", common.runs), common.seconds, workers).await?;
        let (end, cpu_end, own_end) = mark(bed, workers).await?;
        let seconds = end.at_s - begin.at_s;
        let delivered = (end.delivered - begin.delivered) as f64;
        let minus = |(end, begin): (&f64, &f64)| end - begin;
        all.push(Window {
            seconds,
            published_per_s: (end.published - begin.published) as f64 / seconds,
            acked_per_s: (end.acked - begin.acked) as f64 / seconds,
            delivered_per_s: delivered / seconds,
            delivered,
            coalesced: delivered / (end.reads - begin.reads) as f64,
            cpu: cpu_end.iter().zip(&cpu_begin).map(|(end, begin)| (end.0, end.1 - begin.1)).collect(),
            workers_cpu: own_end.iter().zip(&own_begin).map(minus).collect(),
            end,
        });
    }
    Ok(all)
}

type Marked = (Snapshot, Vec<(Service, f64)>, Vec<f64>);

async fn mark(bed: Option<&Bed>, workers: &mut [&mut Worker]) -> anyhow::Result<Marked> {
    let mut sum = Snapshot::default();
    for worker in workers.iter_mut() {
        sum.add(worker.mark().await?);
    }
    let own = workers.iter().map(|worker| machine::cpu_seconds(worker.pid)).collect();
    Ok((sum, bed.map(Bed::cpu).unwrap_or_default(), own))
}

/// Waits, and says once a second how it goes.
async fn watch(label: &str, part: &str, seconds: u32, workers: &mut [&mut Worker]) -> anyhow::Result<()> {
    let mut before: Option<Snapshot> = None;
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..=seconds {
        beat.tick().await;
        let mut now = Snapshot::default();
        for worker in workers.iter_mut() {
            now.add(worker.peek().await?);
        }
        if let Some(before) = &before {
            let rate = |end: u64, begin: u64| number((end - begin) as f64 / (now.at_s - before.at_s));
            let (acked, delivered) = (rate(now.acked, before.acked), rate(now.delivered, before.delivered));
            progress(&format!("{label}, {part}: {acked} answered/s, {delivered} delivered/s"));
        }
        before = Some(now);
    }
    Ok(())
}

/// Where the CPU went and what went wrong, for the notes.
fn notes(section: &mut Section, label: &str, workers: &[&str], windows: &[Window]) {
    let Some(last) = windows.last() else { return };
    let cores = last.cpu.iter().map(|(service, cpu)| (service.as_str(), *cpu));
    let cores = cores.chain(workers.iter().copied().zip(last.workers_cpu.iter().copied()));
    let cores: Vec<String> = cores.map(|(name, cpu)| format!("{name} {:.2}", cpu / last.seconds)).collect();
    section.notes.push(format!("{label}: cores in use: {}", cores.join(", ")));
    let Snapshot { gaps, skipped, troubles, trouble, .. } = &last.end;
    if gaps + skipped + troubles > 0 {
        let first = trouble.as_deref().unwrap_or("none");
        section.notes.push(format!(
            "{label}: TROUBLE: {gaps} gaps, {skipped} skipped frames, {troubles} errors or closes, the first: {first}"
        ));
    }
}

fn progress(line: &str) {
    sluice_program::output::note(format_args!("bench: {line}"));
}
