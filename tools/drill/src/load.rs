//! The load: many clients in one process that publish, read, leave and come back by a script made from a seed, and
//! write down everything that happens to them. It judges nothing and does no harm to anybody but by its numbers.

mod backend;
mod client_state;
mod counters;
mod crowd;
mod events;
mod foreign;
mod library;
mod message;
mod pace;
mod plain;
mod plan;
mod query_client;
mod recorder;
mod shared;
mod zipf;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt;
use sluice_judge::record::PageMessage;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};

pub use counters::Progress;
pub use crowd::destination;
pub use foreign::{Browser, ForeignMeans, check as check_foreign};
pub use plan::{ClientKind, ClientRole, ClientSpec, ForeignClients, Plan, Summary};
pub use shared::Endpoints;
pub use zipf::Zipf;

use crate::clock::Clock;
use crate::records::Records;
use client_state::ClientState;
use crowd::Member;
use query_client::QueryClient;
use recorder::Recorder;
use shared::{LoadPhase, LoadShared};

/// Everybody is connected and subscribed within this.
const GATHER: Duration = Duration::from_secs(120);
/// What was sent gets this long to be answered when sending has ended.
const QUIET: Duration = Duration::from_secs(30);
/// One that reads slowly, and nobody else, is waited for so long at most.
const SLOW_WITHIN: Duration = Duration::from_secs(90);
/// Goodbyes take this long at most.
const GOODBYE: Duration = Duration::from_secs(10);
/// Between two looks at something that should happen soon.
const LOOK: Duration = Duration::from_millis(20);
/// Longer for each client.
const LOOK_AT_ONE: Duration = Duration::from_micros(20);
/// Files that clients share.
const FILES: usize = 8;

/// A load that runs. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Load {
    shared: Arc<LoadShared>,
    phase: watch::Sender<LoadPhase>,
    states: Vec<Arc<ClientState>>,
    specs: Vec<ClientSpec>,
    query_client: QueryClient,
    clients: JoinSet<anyhow::Result<()>>,
    /// Which client a task is.
    names: HashMap<Id, String>,
    records: Records,
}

impl Load {
    /// Begins; returns when all clients are connected and subscribed, and sending has begun.
    ///
    /// # Errors
    /// When a file cannot be made, or not everybody gets in.
    pub async fn start(plan: Plan, endpoints: Endpoints, clock: Clock, dir: &Path) -> anyhow::Result<Self> {
        let records = Records::create(dir, FILES, clock)?;
        let specs = plan.specs();
        let (phase, seen) = watch::channel(LoadPhase::Gather);
        let shared = Arc::new(LoadShared::new(plan, endpoints, clock, seen));
        let (mut clients, mut states, mut names) = (JoinSet::new(), Vec::new(), HashMap::new());
        let mut members = Vec::new();
        for spec in specs.iter().cloned() {
            let state = Arc::new(ClientState::new(&spec.user, &spec.rooms));
            states.push(Arc::clone(&state));
            // In this order: the first line of each client stands before anything that happens to it.
            let recorder = Recorder::begin(Arc::clone(&shared), state, records.writer(spec.client), &spec);
            if spec.role == ClientRole::Crowd {
                members.push(Member { spec, recorder });
                continue;
            }
            let (shared, recorder) = (Arc::clone(&shared), Arc::new(recorder));
            let name = format!("client {} ({})", spec.client, spec.role.name());
            let task = match spec.kind {
                ClientKind::Library => clients.spawn(library::live(shared, spec, recorder).map(Ok)),
                ClientKind::Events | ClientKind::EventSource => {
                    clients.spawn(events::live(shared, spec, recorder).map(Ok))
                }
                ClientKind::JavaScript | ClientKind::Python | ClientKind::Tab => {
                    let log = foreign::log(dir, spec.kind, spec.client);
                    clients.spawn(foreign::live(shared, spec, recorder, log))
                }
                ClientKind::Api => {
                    let api = shared.endpoints.api().context("backends need an API: nobody named one")?;
                    clients.spawn(backend::live(shared, spec, recorder, api).map(Ok))
                }
                ClientKind::Plain => clients.spawn(plain::live(shared, spec, recorder).map(Ok)),
            };
            names.insert(task.id(), name);
        }
        if !members.is_empty() {
            let shared = Arc::clone(&shared);
            // a thread of its own: one poll for all of them
            let task = clients.spawn_blocking(move || crowd::live(&shared, members));
            names.insert(task.id(), "the crowd".to_owned());
        }
        let query_client = QueryClient::begin(&shared, &records);
        // Made before the wait: dropped by a failure, it ends all clients that have begun.
        let load = Self { shared, phase, states, specs, query_client, clients, names, records };
        load.gather().await?;
        load.phase.send_replace(LoadPhase::Run);
        Ok(load)
    }

    /// Between two looks at everybody: of a crowd each look takes a while.
    fn look(&self) -> Duration {
        LOOK + LOOK_AT_ONE * u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    async fn gather(&self) -> anyhow::Result<()> {
        let ready = || self.shared.ready.load(Relaxed) as usize;
        let start = Instant::now();
        while ready() < self.specs.len() {
            if start.elapsed() > GATHER {
                let failed = self.shared.counters.failed_connects.load(Relaxed);
                bail!(
                    "only {} of {} clients got in within {GATHER:?}, {failed} attempts failed: are all \
                       gateways ready?",
                    ready(),
                    self.specs.len()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Which client does what, and what it amounts to, in two lines.
    #[must_use]
    pub fn summary(&self) -> String {
        let plan = &self.shared.plan;
        let deliveries = plan.deliveries_per_s(&self.specs);
        format!(
            "{} clients: {}\n{} + {} publishes/s to {} rooms, about {deliveries:.0} deliveries/s, seed {}",
            self.specs.len(),
            Summary(&self.specs),
            plan.rate_per_s,
            plan.beacon_per_s,
            plan.rooms,
            plan.seed
        )
    }

    /// What clients read, by room: with the beacon's.
    #[must_use]
    pub fn specs(&self) -> &[ClientSpec] {
        &self.specs
    }

    /// A look at it; cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = self.shared.counters.progress(self.shared.clock.now_us());
        for instance in self.states.iter().filter_map(|state| state.instance()) {
            progress.connected += 1;
            *progress.connected_by_instance.entry(instance).or_default() += 1;
        }
        progress
    }

    /// Sending ends, nobody stops reading or stays away any more; returns when everything is answered and everybody
    /// is back. After 30 s what has no answer is given up. Returns how many were.
    pub async fn quiesce(&self) -> u64 {
        // What was given up during the run has had its minute and is counted there.
        let before = self.shared.counters.unknown.load(Relaxed);
        self.phase.send_if_modified(|phase| {
            // Never backwards: a second call must not wake who is about to leave.
            let later = *phase < LoadPhase::Quiet;
            *phase = (*phase).max(LoadPhase::Quiet);
            later
        });
        let start = Instant::now();
        let calm = || self.progress().unanswered == 0 && self.states.iter().all(|state| state.is_live());
        while !calm() && start.elapsed() < QUIET {
            sleep(self.look()).await;
        }
        self.phase.send_replace(LoadPhase::Settle);
        while self.progress().unanswered > 0 && start.elapsed() < QUIET + GOODBYE {
            sleep(self.look()).await; // they are giving up
        }
        self.shared.counters.unknown.load(Relaxed) - before
    }

    /// The crowd spreads evenly over the gateways again; returns when it has, or after a while.
    pub async fn spread(&self, within: Duration) {
        if self.shared.plan.crowd == 0 {
            return;
        }
        self.shared.astray.store(u32::MAX, Relaxed); // until it was looked at again
        self.shared.spreads.fetch_add(1, Relaxed);
        let start = Instant::now();
        while self.shared.astray.load(Relaxed) > 0 && start.elapsed() < within {
            sleep(self.look()).await;
        }
    }

    /// Waits until each client has its rooms up to these heads; `false` when that took longer. Who reads slowly has
    /// buffers of a few KiB, which let large messages through one by one: it has as long again each time it comes on.
    pub async fn everyone_has(&self, heads: &BTreeMap<String, u64>, within: Duration) -> bool {
        let start = Instant::now();
        let (mut least, mut came_on_at) = (u64::MAX, start);
        loop {
            let (slow, others) = self.missing(heads);
            if slow == 0 && others == 0 {
                return true;
            }
            if slow < least {
                (least, came_on_at) = (slow, Instant::now());
            }
            let slow_alone = others == 0 && start.elapsed() < SLOW_WITHIN;
            let since = if slow_alone { came_on_at } else { start };
            if since.elapsed() >= within {
                return false;
            }
            sleep(self.look()).await;
        }
    }

    /// Messages up to these heads that are missing, counted for each client: those who read slowly, and all others.
    fn missing(&self, heads: &BTreeMap<String, u64>) -> (u64, u64) {
        let mut missing = (0_u64, 0_u64);
        for (state, spec) in self.states.iter().zip(&self.specs) {
            let of = if spec.role == ClientRole::Slow { &mut missing.0 } else { &mut missing.1 };
            *of = of.saturating_add(state.missing(heads));
        }
        missing
    }

    /// Who lacks what of these heads now, for people.
    #[must_use]
    pub fn lacking(&self, heads: &BTreeMap<String, u64>) -> Vec<String> {
        self.states.iter().flat_map(|state| state.lacks(heads)).collect()
    }

    /// Users who lack something of these heads. The end of their connection may wait unread as well, so nothing is
    /// known of who is there from them.
    #[must_use]
    pub fn behind(&self, heads: &BTreeMap<String, u64>) -> BTreeSet<String> {
        let lacks = |state: &&Arc<ClientState>| !state.lacks(heads).is_empty();
        self.states.iter().filter(lacks).map(|state| state.user.clone()).collect()
    }

    /// Room → user → connections that are open and subscribed to it.
    #[must_use]
    pub fn open_presence(&self) -> BTreeMap<String, BTreeMap<String, u32>> {
        let mut rooms: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for state in &self.states {
            for room in state.live() {
                *rooms.entry(room).or_default().entry(state.user.clone()).or_default() += 1;
            }
        }
        rooms
    }

    /// User → connections, as presence answers for a room.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn presence(&self, room: &str) -> anyhow::Result<BTreeMap<String, u32>> {
        self.query_client.presence(room).await
    }

    /// A page of a room, oldest first, also written into the records.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn history(&self, room: &str, before: Option<u64>) -> anyhow::Result<Vec<PageMessage>> {
        self.query_client.history(room, before).await
    }

    /// Everybody says goodbye; the records are whole when this returns.
    ///
    /// # Errors
    /// When a client ended by a fault of its own, or not everything could be written.
    pub async fn end(mut self) -> anyhow::Result<Progress> {
        let progress = self.progress();
        self.phase.send_replace(LoadPhase::End);
        let names = &self.names;
        let goodbyes = async {
            while let Some(ended) = self.clients.join_next_with_id().await {
                let (id, outcome) = match ended {
                    Ok((id, outcome)) => (id, outcome),
                    Err(error) => (error.id(), Err(error.into())),
                };
                let name = names.get(&id).map_or("a client", String::as_str);
                outcome.with_context(|| format!("{name} of the load failed"))?;
            }
            anyhow::Ok(())
        };
        match timeout(GOODBYE, goodbyes).await {
            Ok(ended) => ended?,
            Err(_) => self.clients.shutdown().await, // their records lack the last line, which says so
        }
        self.query_client.end().await;
        self.records.close()?;
        Ok(progress)
    }
}
