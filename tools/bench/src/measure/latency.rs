//! From a publish on one gateway to its delivery on another, through logic, store, queue and task, at a steady load.

use super::given::Given;
use super::{notes, windows};
use crate::Common;
use crate::report::Section;
use crate::spec::{Job, Load, Pace, Publishers, Subscribers};
use crate::worker::Worker;

/// Time from a publish on one gateway to its delivery on another
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Publishes a second
    #[arg(long, default_value_t = Self::default().rate)]
    rate: u32,
    /// Rooms, each with one subscriber
    #[arg(long, default_value_t = Self::default().rooms)]
    rooms: usize,
    /// Publishing connections
    #[arg(long, default_value_t = Self::default().publishers)]
    publishers: usize,
    /// Bytes of data
    #[arg(long, default_value_t = Self::default().data)]
    data: usize,
    #[command(flatten)]
    given: Given,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { rate: 500, rooms: 100, publishers: 16, data: 128, given: Given::default() }
    }
}

pub(crate) async fn run(arguments: &Arguments, common: &Common) -> anyhow::Result<Section> {
    let Arguments { rate, rooms, publishers, data, ref given } = *arguments;
    let mut section = Section::new(format!(
        "sluice-bench latency --rate {rate} --rooms {rooms} --publishers {publishers} --data {data}{}",
        given.words()
    ));
    let site = given.or_own(common, 2).await?;
    let pace = Pace::Open { per_s: rate };
    let (to, data_bytes) = (site.entrance(0)?, data);
    let writers = Publishers { to, connections: publishers, data_bytes, pace, api_key: None };
    let readers = Subscribers { to: site.entrance(1)?, connections: rooms, check: true, timed: true };
    let mut clients = Worker::start(&Job::Load(Load {
        secret: site.secret.clone(),
        tag: "latency".into(),
        rooms,
        subscribers: Some(readers),
        publishers: Some(writers),
    }))
    .await?;
    let all = windows("latency", common, site.bed.as_ref(), &mut [&mut clients]).await?;
    clients.end().await?;
    site.end().await;
    section.figure("deliveries/s", all.iter().map(|window| window.delivered_per_s));
    let delivery = |which: fn(sluice_load::samples::Quantiles) -> f64| {
        all.iter().filter_map(|window| window.end.delivery.map(which)).collect::<Vec<_>>()
    };
    section.figure("publish to delivery p50, ms", delivery(|delivery| delivery.p50));
    section.figure("publish to delivery p99, ms", delivery(|delivery| delivery.p99));
    section.figure("publish to delivery, longest, ms", delivery(|delivery| delivery.max));
    section.figure("answer p50, ms", all.iter().map(|window| window.ack(|ack| ack.p50)));
    section.figure("answer p99, ms", all.iter().map(|window| window.ack(|ack| ack.p99)));
    notes(&mut section, "steady", &["clients"], &all);
    Ok(section)
}
