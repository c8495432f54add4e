//! Durable publishes: how many a second when clients push, how long the answer takes then and under a steady load.

use anyhow::bail;
use sluice_launcher::{Service, Setting};

use super::given::Given;
use super::{Window, notes, windows};
use crate::Common;
use crate::report::Section;
use crate::spec::{Job, Load, Pace, Publishers};
use crate::worker::Worker;

/// The two loads.
const TAGS: [&str; 2] = ["saturated", "steady"];
/// Calls of one key and publishes of one user are counted: here they are what is measured.
const NO_LIMITS: [&str; 2] = ["logic.api.calls_per_s=0", "gateway.limits.user.publishes_per_s=0"];

/// What publishes besides WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Via {
    /// Calls of logic's HTTP API on connections that are kept, each awaited.
    Api,
}

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
    /// Publish by the HTTP API as well, on the same cluster: one call at a time on each connection, and WebSockets that await
    /// each answer for comparison
    #[arg(long, value_name = "WAY", conflicts_with = "compare_tls")]
    via: Option<Via>,
    #[command(flatten)]
    given: Given,
    /// Measure without certificates between the services, then with them, and say what they cost
    #[arg(long)]
    compare_tls: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        let (given, via, compare_tls) = (Given::default(), None, false);
        Self { connections: 64, depth: 64, rooms: 1_000, data: 128, rate: 1_000, given, via, compare_tls }
    }
}

/// One load of the run.
struct Part {
    tag: &'static str,
    api: bool,
    pace: Pace,
}

impl Arguments {
    /// One after the other, on the same cluster.
    fn parts(&self) -> Vec<Part> {
        let (deep, awaited) = (Pace::Closed { depth: self.depth }, Pace::Closed { depth: 1 });
        let steady = Pace::Open { per_s: self.rate };
        let part = |tag, api, pace| Part { tag, api, pace };
        match self.via {
            None => vec![part(TAGS[0], false, deep), part(TAGS[1], false, steady)],
            Some(Via::Api) => vec![
                part("websocket, saturated", false, deep),
                part("websocket, each awaited", false, awaited),
                part("api, each awaited", true, awaited),
                part("websocket, steady", false, steady),
                part("api, steady", true, steady),
            ],
        }
    }
}

/// One section, or two and what certificates cost. One command for both: figures of two runs differ by more than that.
pub(crate) async fn sections(arguments: &Arguments, common: &Common) -> anyhow::Result<Vec<Section>> {
    // What is given is not started anew, and nobody said where its API is.
    if !arguments.given.is_empty() && (arguments.compare_tls || arguments.via.is_some()) {
        bail!("--compare-tls and --via are for a cluster of its own: leave --gateway away");
    }
    if !arguments.compare_tls {
        return Ok(vec![run(arguments, common).await?]);
    }
    // A folder stays of the kind it was made for.
    let dir = |name: &str| common.dir.as_ref().map(|dir| dir.join(name));
    let plain = run(arguments, &Common { secure: false, dir: dir("plain"), ..common.clone() }).await?;
    let mut secure = run(arguments, &Common { secure: true, dir: dir("secure"), ..common.clone() }).await?;
    let costs = TAGS.iter().filter_map(|tag| cost_of_tls(tag, &plain, &secure)).collect::<Vec<_>>();
    secure.notes.extend(costs);
    Ok(vec![plain, secure])
}

fn services_cpu(tag: &str) -> String {
    format!("{tag}: CPU of gateway, logic and task, µs per publish")
}

/// By the medians.
fn cost_of_tls(tag: &str, plain: &Section, secure: &Section) -> Option<String> {
    let name = services_cpu(tag);
    let median = |section: &Section| {
        let figure = section.figures.iter().find(|figure| figure.name == name)?;
        Some(figure.values[1])
    };
    let percent = (median(secure)? / median(plain)? - 1.0) * 100.0;
    Some(format!("{tag}: with certificates the services take {percent:+.1} % CPU a publish"))
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { connections, depth, rooms, data, rate, given, via, compare_tls: _ } = arguments;
    let secure = if common.secure { " --secure" } else { "" };
    let via = if via.is_some() { " --via api" } else { "" };
    let command = format!(
        "sluice-bench publish --connections {connections} --depth {depth} --rooms {rooms} --data {data} --rate {rate}{via}{secure}{}",
        given.words()
    );
    let mut section = Section::new(command);
    // First, so that a setting given by hand wins.
    let no_limits = NO_LIMITS.iter().map(|it| it.parse()).collect::<Result<Vec<Setting>, _>>()?;
    let settings = [&*no_limits, &*common.settings].concat();
    let site = given.or_own(&Common { settings, ..common.clone() }, 1).await?;
    let job = |Part { tag, api, pace }: &Part| -> anyhow::Result<Job> {
        let (to, api_key) = match &site.bed {
            Some(bed) if *api => (bed.api()?.into(), Some(bed.cluster.api_key().to_owned())),
            Some(_) | None => (site.entrance(0)?, None),
        };
        let publishers =
            Publishers { to, connections: *connections, data_bytes: *data, pace: *pace, api_key };
        // It is part of the names of rooms and users.
        let tag = tag.replace(", ", "-").replace(' ', "-");
        Ok(Job::Load(Load {
            secret: site.secret.clone(),
            tag,
            rooms: *rooms,
            publishers: Some(publishers),
            subscribers: None,
        }))
    };
    for part in arguments.parts() {
        let tag = part.tag;
        let mut publishers = Worker::start(&job(&part)?).await?;
        let label = format!("publish, {tag}");
        let all = windows(&label, common, site.bed.as_ref(), &mut [&mut publishers]).await?;
        publishers.end().await?;
        section.figure(format!("{tag}: publishes/s"), all.iter().map(|window| window.acked_per_s));
        section.figure(format!("{tag}: answer p50, ms"), all.iter().map(|window| window.ack(|ack| ack.p50)));
        section.figure(format!("{tag}: answer p99, ms"), all.iter().map(|window| window.ack(|ack| ack.p99)));
        if site.bed.is_some() {
            costs(&mut section, tag, &all);
        }
        notes(&mut section, tag, &["publishers"], &all);
    }
    site.end().await;
    Ok(section)
}

/// CPU of each process, which only a cluster of its own shows.
fn costs(section: &mut Section, tag: &str, all: &[Window]) {
    let cost = |window: &Window, service| window.cpu(service) / (window.acked_per_s * window.seconds) * 1e6;
    for service in [Service::Gateway, Service::Logic, Service::Task, Service::Postgres] {
        let name = format!("{tag}: CPU of {service}, µs per publish");
        section.figure(name, all.iter().map(|window| cost(window, service)));
    }
    let services = [Service::Gateway, Service::Logic, Service::Task];
    let sum = |window: &Window| services.into_iter().map(|service| cost(window, service)).sum::<f64>();
    section.figure(services_cpu(tag), all.iter().map(sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_certificates_cost_is_said_by_the_medians() {
        let of = |medians: [f64; 2]| {
            let mut section = Section::new(String::new());
            for (tag, median) in TAGS.into_iter().zip(medians) {
                section.values(services_cpu(tag), [0.0, median, 99.0]);
            }
            section
        };
        let (plain, secure) = (of([20.0, 40.0]), of([21.0, 38.0]));
        let said: Vec<_> = TAGS.iter().filter_map(|tag| cost_of_tls(tag, &plain, &secure)).collect();
        assert!(said[0].starts_with("saturated: ") && said[0].contains("+5.0 %"), "{said:?}");
        assert!(said[1].contains("-5.0 %"), "{said:?}");
        assert_eq!(cost_of_tls("steady", &plain, &Section::new(String::new())), None);
    }
}
