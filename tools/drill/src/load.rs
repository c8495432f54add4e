//! The load: many clients in one process that publish, read, leave and come back by a script made from a seed, and
//! write down everything that happens to them. It judges nothing and does no harm to anybody but by its numbers.

mod asker;
mod diary;
mod letter;
mod library;
mod pace;
mod plain;
mod plan;
mod standing;
mod tally;
mod world;
mod zipf;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::bail;
use sluice_checker::record::Seen;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};

pub use plan::{Kind, Part, Plan, Role, Summary};
pub use tally::Progress;
pub use world::Entrances;
pub use zipf::Zipf;

use crate::clock::Clock;
use crate::records::Records;
use asker::Asker;
use diary::Diary;
use standing::Standing;
use world::{Phase, World};

/// Everybody is connected and subscribed within this.
const GATHER: Duration = Duration::from_secs(120);
/// What was sent gets this long to be answered when sending has ended.
const QUIET: Duration = Duration::from_secs(30);
/// Goodbyes take this long at most.
const GOODBYE: Duration = Duration::from_secs(10);
/// Between two looks at something that should happen soon.
const LOOK: Duration = Duration::from_millis(20);
/// Files that clients share.
const FILES: usize = 8;

/// A load that runs. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Load {
    world: Arc<World>,
    phase: watch::Sender<Phase>,
    standings: Vec<Arc<Standing>>,
    parts: Vec<Part>,
    asker: Asker,
    clients: JoinSet<()>,
    /// Which client a task is.
    names: HashMap<Id, String>,
    records: Records,
}

impl Load {
    /// Begins; returns when all clients are connected and subscribed, and sending has begun.
    ///
    /// # Errors
    /// When a file cannot be made, or not everybody gets in.
    pub async fn start(plan: Plan, entrances: Entrances, clock: Clock, dir: &Path) -> anyhow::Result<Self> {
        let records = Records::create(dir, FILES, clock)?;
        let parts = plan.parts();
        let (phase, seen) = watch::channel(Phase::Gather);
        let world = Arc::new(World::new(plan, entrances, clock, seen));
        let (mut clients, mut standings, mut names) = (JoinSet::new(), Vec::new(), HashMap::new());
        for part in parts.iter().cloned() {
            let standing = Arc::new(Standing::new(&part.user, &part.rooms));
            standings.push(Arc::clone(&standing));
            let diary = Diary::begin(Arc::clone(&world), standing, records.scribe(part.client), &part);
            let (world, diary) = (Arc::clone(&world), Arc::new(diary));
            let name = format!("client {} ({})", part.client, part.role.name());
            let task = match part.kind {
                Kind::Library => clients.spawn(library::live(world, part, diary)),
                Kind::Plain => clients.spawn(plain::live(world, part, diary)),
            };
            names.insert(task.id(), name);
        }
        let asker = Asker::begin(&world, &records);
        let load = Self { world, phase, standings, parts, asker, clients, names, records };
        load.gather().await?;
        load.phase.send_replace(Phase::Run);
        Ok(load)
    }

    async fn gather(&self) -> anyhow::Result<()> {
        let ready = || self.world.ready.load(Relaxed) as usize;
        let start = Instant::now();
        while ready() < self.parts.len() {
            if start.elapsed() > GATHER {
                let failed = self.world.tally.failed_connects.load(Relaxed);
                bail!(
                    "only {} of {} clients got in within {GATHER:?}, {failed} attempts failed: are all \
                       gateways ready?",
                    ready(),
                    self.parts.len()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Who plays what, and what it amounts to, in two lines.
    #[must_use]
    pub fn summary(&self) -> String {
        let plan = &self.world.plan;
        let deliveries = plan.deliveries_per_s(&self.parts);
        format!(
            "{} clients: {}\n{} + {} publishes/s to {} rooms, about {deliveries:.0} deliveries/s, seed {}",
            self.parts.len(),
            Summary(&self.parts),
            plan.rate_per_s,
            plan.beacon_per_s,
            plan.rooms,
            plan.seed
        )
    }

    /// What clients read, by room: with the beacon's.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// A look at it; cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = self.world.tally.progress(self.world.clock.now_us());
        for instance in self.standings.iter().filter_map(|standing| standing.instance()) {
            progress.connected += 1;
            *progress.connected_by_instance.entry(instance).or_default() += 1;
        }
        progress
    }

    /// Sending ends, nobody stops reading or stays away any more; returns when everything is answered and everybody
    /// is back. After 30 s what has no answer is given up. Returns how many were.
    pub async fn quiesce(&self) -> u64 {
        let before = self.world.tally.unknown.load(Relaxed);
        self.phase.send_if_modified(|phase| {
            let later = *phase < Phase::Quiet;
            *phase = (*phase).max(Phase::Quiet);
            later
        });
        let start = Instant::now();
        let calm =
            || self.progress().unanswered == 0 && self.standings.iter().all(|standing| standing.is_live());
        while !calm() && start.elapsed() < QUIET {
            sleep(LOOK).await;
        }
        self.phase.send_replace(Phase::Settle);
        while self.progress().unanswered > 0 && start.elapsed() < QUIET + GOODBYE {
            sleep(LOOK).await; // they are giving up
        }
        self.world.tally.unknown.load(Relaxed) - before
    }

    /// Waits until each client has its rooms up to these heads; `false` when that took longer.
    pub async fn everyone_has(&self, heads: &BTreeMap<String, u64>, within: Duration) -> bool {
        let start = Instant::now();
        while !self.lacking(heads).is_empty() {
            if start.elapsed() >= within {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Who lacks what of these heads now, for people.
    #[must_use]
    pub fn lacking(&self, heads: &BTreeMap<String, u64>) -> Vec<String> {
        self.standings.iter().flat_map(|standing| standing.lacks(heads)).collect()
    }

    /// Users who lack something of these heads. The end of their connection may wait unread as well, so nothing is
    /// known of who is there from them.
    #[must_use]
    pub fn behind(&self, heads: &BTreeMap<String, u64>) -> BTreeSet<String> {
        let lacks = |standing: &&Arc<Standing>| !standing.lacks(heads).is_empty();
        self.standings.iter().filter(lacks).map(|standing| standing.user.clone()).collect()
    }

    /// Room → user → connections that are open and subscribed to it.
    #[must_use]
    pub fn open_presence(&self) -> BTreeMap<String, BTreeMap<String, u32>> {
        let mut rooms: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for standing in &self.standings {
            for room in standing.live() {
                *rooms.entry(room).or_default().entry(standing.user.clone()).or_default() += 1;
            }
        }
        rooms
    }

    /// User → connections, as presence answers for a room.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn presence(&self, room: &str) -> anyhow::Result<BTreeMap<String, u32>> {
        self.asker.presence(room).await
    }

    /// A page of a room, oldest first, also written into the records.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn history(&self, room: &str, before: Option<u64>) -> anyhow::Result<Vec<Seen>> {
        self.asker.history(room, before).await
    }

    /// Everybody says goodbye; the records are whole when this returns.
    ///
    /// # Errors
    /// When a client ended by a fault of its own, or not everything could be written.
    pub async fn end(mut self) -> anyhow::Result<Progress> {
        let progress = self.progress();
        self.phase.send_replace(Phase::End);
        let names = &self.names;
        let goodbyes = async {
            while let Some(ended) = self.clients.join_next_with_id().await {
                if let Err(error) = ended {
                    let name = names.get(&error.id()).map_or("a client", String::as_str);
                    bail!("{name} of the load failed: {error}");
                }
            }
            anyhow::Ok(())
        };
        match timeout(GOODBYE, goodbyes).await {
            Ok(ended) => ended?,
            Err(_) => self.clients.shutdown().await, // their records lack the last line, which says so
        }
        self.asker.end().await;
        self.records.close()?;
        Ok(progress)
    }
}
