//! One part: a target, a load on it, rounds of faults, then silence, a look at what is left, and the judgement.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rand::RngExt;
use sluice_judge::record::{FaultRecord, Leftovers, PresenceAsked, RunRecord};
use sluice_judge::verdict::Verdict;
use sluice_launcher::{Service, Setting};
use tokio::runtime::{self, Handle, Runtime};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::neighbours::Neighbours;
use super::status_line::StatusLine;
use super::store_reader::StoreReader;
use super::token::token;
use super::{During, Options, leftovers, neighbours, samples};
use crate::clock::Clock;
use crate::fault::{FaultInjector, STOP_BUDGET, exit_of};
use crate::load::{Browser, Endpoints, ForeignMeans, Load, Plan};
use crate::place::Place;
use crate::scenario::Round;
use crate::target::Target;
use crate::target::given::Given;
use crate::target::own::{self, Own};

/// One user of the load schedules a thousand messages at once, and asks who is in each of the rooms: more than a person does.
const LOAD_LIMITS: [&str; 2] =
    ["gateway.limits.user.publishes_per_s=10000", "gateway.limits.user.questions_per_s=500"];

/// Between two rounds: long enough for everybody to be back, random so that no phase is special.
const PAUSE_MS: std::ops::Range<u64> = 1_000..1_500;
/// After a fault, publishes are answered again within this; the run goes on anyhow, the judge sees it.
const PROGRESS: Duration = Duration::from_secs(30);
/// Everybody has everything within this, what is promised; one that reads slowly comes on within it.
const EVERYONE: Duration = Duration::from_secs(10);
/// Presence is right within this: twice the lease of who is gone, and a round of the reaper.
const PRESENCE: Duration = Duration::from_secs(20);
/// Who is away for less never left: what a logic does when nobody says something else.
const LEAVE_GRACE_MS: u64 = 15_000;
/// A crowd is spread over the gateways again within this; the round begins anyhow.
const SPREAD: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Between two lines about the run.
const SHOW: Duration = Duration::from_millis(500);

/// One part of a run.
pub(super) struct RunPart<'a> {
    pub options: &'a Options,
    pub rounds: &'a [Round],
    /// Rounds of all parts.
    pub total: usize,
    pub dir: &'a Path,
    pub status_line: &'a StatusLine,
    pub during: Option<&'a During>,
    pub stop: &'a CancellationToken,
}

/// What happened, as far as it came.
struct PartRecord {
    plan: Plan,
    run: RunRecord,
    leftovers: Leftovers,
    files: BTreeMap<Place, u64>,
    faults: File,
    clock: Clock,
}

impl RunPart<'_> {
    pub(super) async fn run(&self) -> anyhow::Result<Verdict> {
        std::fs::create_dir_all(self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        self.status_line.done("starting", None);
        let started = async {
            let browser = self.browser().await?;
            anyhow::Ok((self.target(browser.as_ref()).await?, browser))
        };
        let Some(started) = self.stop.run_until_cancelled(started).await else {
            bail!("interrupted before the load began");
        };
        let (target, browser) = started?;
        let mut record = self.begin(&target)?;
        // whatever happens, what was started is stopped and what was said is kept
        let happened = self.happen(&target, browser.as_ref(), &mut record).await;
        self.status_line.now("stopping", None);
        if let Some(browser) = browser {
            browser.stop().await;
        }
        for (place, ended) in target.stop().await {
            let mut fault = record.fault(format!("final stop {}", place.role), place.to_string());
            fault.exit = exit_of(&ended, STOP_BUDGET);
            record.write(&fault)?;
        }
        self.keep_logs(&target)?;
        // The servers of the run are gone before it is judged: reading the records needs the memory.
        drop(target);
        record.run.interrupted |= happened.is_err();
        write_json(&self.dir.join("leftovers.json"), &record.leftovers)?;
        write_json(&self.dir.join("run.json"), &record.run)?;
        happened?;
        self.status_line.now("judging", None);
        let dir = self.dir.to_owned();
        let verdict = tokio::task::spawn_blocking(move || sluice_judge::check(&dir)).await??;
        std::fs::remove_dir_all(self.dir.join("cluster")).ok(); // not there for a given target
        Ok(verdict)
    }

    /// The browser, where the load has tabs: before the gateways, which are told where its page comes from.
    async fn browser(&self) -> anyhow::Result<Option<Browser>> {
        if self.options.plan.foreign.tabs == 0 {
            return Ok(None);
        }
        Browser::start(self.dir).await.map(Some)
    }

    async fn target(&self, browser: Option<&Browser>) -> anyhow::Result<Target> {
        let options = self.options;
        if !options.given.is_empty() {
            let given = Given::take(&options.given, &self.dir.join("logs")).await?;
            return Ok(Target::Given(Box::new(given)));
        }
        let [gateways, logics, tasks] = options.counts;
        // First, so that a setting given by hand wins.
        let mut settings = LOAD_LIMITS.iter().map(|it| it.parse()).collect::<Result<Vec<Setting>, _>>()?;
        settings.extend_from_slice(&options.settings);
        if let Some(browser) = browser {
            settings.push(format!("gateway.origins=[{:?}]", browser.origin()).parse::<Setting>()?);
        }
        let wanted = own::ClusterWanted {
            gateways,
            logics,
            tasks,
            engines: options.engines,
            dir: self.dir.join("cluster"),
            bin_dir: options.bin_dir.clone(),
            previous: options.previous.clone(),
            settings,
            links: self.rounds.iter().any(|round| round.kind.needs_links()),
            doors: self.rounds.iter().any(|round| round.kind.needs_doors()),
            slow_links: options.slow_links.clone(),
            log_readers: self.rounds.iter().any(|round| round.kind.needs_log_readers()),
            secure: options.secure,
        };
        Ok(Target::Own(Box::new(Own::start(&wanted).await?)))
    }

    fn begin(&self, target: &Target) -> anyhow::Result<PartRecord> {
        let clock = Clock::start();
        let plan = self.plan(target, clock);
        let path = self.dir.join("faults.jsonl");
        let faults = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let run = RunRecord {
            command: self.options.command.clone(),
            scenario: self.options.scenario.to_string(),
            seed: plan.seed,
            build: build(),
            started_ms: clock.began_ms(),
            clients: plan.everybody(),
            rate_per_s: plan.rate_per_s,
            beacon_room: plan.beacon_room(),
            beacon_per_s: plan.beacon_per_s,
            leave_grace_ms: if plan.watched > 0 { LEAVE_GRACE_MS } else { 0 },
            max_behind: max_behind(&self.options.settings),
            neighbours: neighbours::tags(self.options, plan.seed),
            ..RunRecord::default()
        };
        Ok(PartRecord { plan, run, leftovers: Leftovers::default(), files: BTreeMap::new(), faults, clock })
    }

    /// A store that is given may hold the rooms of earlier loads: each load has its own. Backends are there where they can
    /// call somebody.
    fn plan(&self, target: &Target, clock: Clock) -> Plan {
        let mut plan = self.options.plan.clone();
        if !self.options.given.is_empty() {
            plan.prefix = format!("drill-{}/", clock.began_ms());
        }
        if target.api().is_none() {
            plan.api_share = 0.0; // a deployment that is given need not have one
        }
        plan
    }

    /// From the first client to the last look.
    async fn happen(
        &self,
        target: &Target,
        browser: Option<&Browser>,
        record: &mut PartRecord,
    ) -> anyhow::Result<()> {
        let url = target.store_url().context("nobody said where the store is: --store postgres://…")?;
        let load_runtime = LoadRuntime::new()?;
        let means =
            ForeignMeans { ca: self.options.given.ca.clone(), browser: browser.map(Browser::address) };
        let load = self.load(target, means, record, load_runtime.handle()?).await?;
        let began_us = record.clock.now_us();
        self.status_line.done(&load.summary(), None);
        // Before neighbours come by the thousand: who comes between two counts is taken away from files that were open.
        record.files = leftovers::files(target).await;
        let neighbours = Neighbours::begin(self.options, target, record.run.seed).await?;
        let rounds = self.under_load(target, &load, record).await;
        let neighbours = neighbours.end().await;
        target.heal_slow_links();
        record.run.interrupted = self.stop.is_cancelled();
        record.run.load_us = record.clock.now_us() - began_us;
        neighbours.iter().for_each(|said| self.status_line.done(said, None));
        if rounds.is_err() || record.run.interrupted {
            load.end().await?;
            rounds?;
            let mut store = StoreReader::connect(&url, &record.plan.prefix).await?;
            record.leftovers.heads = store.heads().await?;
            return store.dump(&self.dir.join("store.jsonl")).await.map(drop);
        }
        self.status_line.now("waiting for the last answers", Some(&load.progress()));
        record.run.sent_until_us = record.clock.now_us();
        let unknown = load.quiesce().await;
        let mut store = StoreReader::connect(&url, &record.plan.prefix).await?;
        let heads = store.heads().await?;
        record.run.settled_us = record.clock.now_us();
        let everyone = load.everyone_has(&heads, EVERYONE).await;
        if !everyone || unknown > 0 {
            let lacking = load.lacking(&heads);
            let first: Vec<&String> = lacking.iter().take(3).collect();
            self.status_line.done(
                &format!("{unknown} without answer, {} lack something: {first:?}", lacking.len()),
                None,
            );
        }
        let presence = self.presence(&load, &heads).await;
        let progress = load.end().await?;
        self.status_line.now("waiting until nothing is left", Some(&progress));
        record.leftovers = leftovers::look(target, &mut store).await?;
        record.leftovers.presence = presence;
        let before = std::mem::take(&mut record.files);
        let after = leftovers::files(target).await;
        let files = before
            .into_iter()
            .filter_map(|(place, open)| Some((place.to_string(), (open, *after.get(&place)?))));
        record.leftovers.files = files.collect();
        // what was added while everybody was waited for belongs to nobody's heads
        record.leftovers.heads = store.heads().await?;
        let stored = store.dump(&self.dir.join("store.jsonl")).await?;
        self.status_line.done(&format!("{stored} messages in the store"), Some(&progress));
        Ok(())
    }

    async fn load(
        &self,
        target: &Target,
        means: ForeignMeans,
        record: &PartRecord,
        load_runtime: &Handle,
    ) -> anyhow::Result<Load> {
        self.status_line.now("connecting", None);
        let secret = target.token_secret().to_owned();
        let endpoints = Endpoints::fixed(target.endpoints(), move |user| token(&secret, user))
            .trusting(self.options.given.trust.clone())
            .with_api(target.api())
            .with_means(means);
        let (plan, clock, dir) = (record.plan.clone(), record.clock, self.dir.to_owned());
        let load =
            load_runtime.spawn(async move { Load::start(plan, endpoints, clock, &dir).await }).await??;
        let steady = u64::from(self.options.plan.rate_per_s).max(1);
        if !self.progresses(&load, steady).await {
            bail!("after {PROGRESS:?} only {} publishes were answered", load.progress().acked);
        }
        Ok(load)
    }

    /// The rounds, with samples and the line about the run beside them.
    async fn under_load(&self, target: &Target, load: &Load, record: &mut PartRecord) -> anyhow::Result<()> {
        let (over, clock) = (CancellationToken::new(), record.clock);
        let what = Mutex::new(String::from("steady"));
        let rounds = async {
            let outcome = self.all_rounds(target, load, record, &what).await;
            over.cancel();
            outcome
        };
        let show = async {
            while over.run_until_cancelled(sleep(SHOW)).await.is_some() {
                let now = what.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.status_line.now(&now, Some(&load.progress()));
            }
        };
        let (rounds, samples, ()) =
            tokio::join!(rounds, samples::take(target, load, clock, self.dir, &over), show);
        rounds.and(samples)
    }

    async fn all_rounds(
        &self,
        target: &Target,
        load: &Load,
        record: &mut PartRecord,
        what: &Mutex<String>,
    ) -> anyhow::Result<()> {
        match self.during {
            Some(during) => {
                // The load is steady: what is proved may begin, and says itself when it is over.
                during.steady.cancel();
                self.stop.run_until_cancelled(during.over.cancelled()).await;
                during.faults(record.clock).iter().try_for_each(|fault| record.write(fault))?;
            }
            None if self.rounds.is_empty() => {
                self.stop.run_until_cancelled(sleep(self.options.calm)).await;
            }
            None => {}
        }
        for round in self.rounds {
            let mut rng = self.options.seed().stream("round", round.number);
            let pause = sleep(Duration::from_millis(rng.random_range(PAUSE_MS)));
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
            load.spread(SPREAD).await;
            let name = format!("{}/{} {}", round.number, self.total, round.kind);
            what.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&name);
            let (number, turn, clock) = (round.number, round.turn, record.clock);
            let (dir, rooms, trust) = (self.dir, &*record.plan.prefix, self.options.given.trust.clone());
            let injector = FaultInjector { target, clock, round: number, turn, dir, rooms, trust, rng };
            let faults = injector.inject(round.kind).await.with_context(|| name.clone())?;
            let steady = u64::from(self.options.plan.rate_per_s / 4).max(1);
            // Before the next one: faults that overlap could not be told apart.
            let goes_on = self.progresses(load, steady).await;
            for mut fault in faults {
                if !goes_on {
                    fault.note = format!("{} (after {PROGRESS:?} the load had not moved on)", fault.note);
                }
                record.write(&fault)?;
                self.status_line.done(&format!("{name}: {}", said(&fault)), Some(&load.progress()));
            }
        }
        Ok(())
    }

    /// Whether publishes are answered and messages delivered again, and nearly everybody is back.
    async fn progresses(&self, load: &Load, acks: u64) -> bool {
        let (before, until) = (load.progress(), Instant::now() + PROGRESS);
        loop {
            let now = load.progress();
            let plan = &self.options.plan;
            // of the others some leave on purpose, of a watched room half for good
            let are_back = now.connected * 10 >= plan.clients * 9 + plan.crowd * 10 + plan.watched * 5;
            // Answers alone are not enough: those who are back first would speak for all.
            if are_back && now.acked >= before.acked + acks && now.delivered > before.delivered {
                return true;
            }
            if Instant::now() >= until || self.stop.is_cancelled() {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Asks for everybody who has read all up to these heads until it is right, and says what was said last.
    async fn presence(&self, load: &Load, heads: &BTreeMap<String, u64>) -> Vec<PresenceAsked> {
        self.status_line.now("asking who is there", Some(&load.progress()));
        // In a room that is watched whoever is gone is named until that is told.
        let grace_ms = if self.options.plan.watched > 0 { LEAVE_GRACE_MS } else { 0 };
        let until = Instant::now() + PRESENCE + Duration::from_millis(grace_ms);
        let (mut asked, mut behind) = (Vec::new(), load.behind(heads));
        for (room, mut open) in load.open_presence() {
            loop {
                // no answer at all is wrong as well, once patience is over
                let mut said = load.presence(&room).await.unwrap_or_default();
                said.retain(|user, _| !behind.contains(user));
                open.retain(|user, _| !behind.contains(user));
                if said == open || Instant::now() >= until {
                    asked.push(PresenceAsked { room, said, open });
                    break;
                }
                sleep(LOOK).await;
                open = load.open_presence().remove(&room).unwrap_or_default();
                behind = load.behind(heads);
            }
        }
        asked
    }

    /// What the processes said belongs to the record, their data does not.
    fn keep_logs(&self, target: &Target) -> anyhow::Result<()> {
        let logs = self.dir.join("logs");
        let Some(from) = target.log_dir().filter(|from| *from != logs) else { return Ok(()) };
        std::fs::create_dir_all(&logs)?;
        for entry in std::fs::read_dir(from)?.flatten() {
            let path: PathBuf = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") && path.is_file() {
                std::fs::copy(&path, logs.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

/// Threads of the load alone: however busy clients are, faults come in time and ends are seen when they happen.
struct LoadRuntime(Option<Runtime>);

impl LoadRuntime {
    fn new() -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread().thread_name("load").enable_all().build();
        Ok(Self(Some(runtime.context("no threads for the load")?)))
    }

    fn handle(&self) -> anyhow::Result<&Handle> {
        self.0.as_ref().map(Runtime::handle).context("the load is over")
    }
}

impl Drop for LoadRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background(); // a runtime must not be waited for inside another
        }
    }
}

impl PartRecord {
    fn fault(&self, kind: String, target: String) -> FaultRecord {
        let now = self.clock.now_us();
        FaultRecord {
            round: 0,
            kind,
            target,
            began_us: now,
            healed_us: now,
            hit: true,
            exit: None,
            copied_us: None,
            note: String::new(),
        }
    }

    /// Written at once: a drill that is killed has said what it did.
    fn write(&mut self, fault: &FaultRecord) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(fault)?;
        line.push(b'\n');
        self.faults.write_all(&line).context("faults.jsonl")
    }
}

/// The version, and the commit where the build was told.
fn build() -> String {
    let commit = sluice_program::build::commit().map(|commit| format!(" ({commit})"));
    sluice_program::build::VERSION.to_owned() + &commit.unwrap_or_default()
}

fn said(fault: &FaultRecord) -> String {
    let away = (fault.healed_us - fault.began_us) / 1_000;
    let exit = fault.exit.as_ref().map(|exit| match exit.code {
        Some(code) => format!(", code {code} after {} ms", exit.took_ms),
        None => ", killed".to_owned(),
    });
    let missed = if fault.hit { "" } else { ", HIT NOTHING" };
    format!("{} healed after {away} ms{}{missed}", fault.target, exit.unwrap_or_default())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(value)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// What gateways are told of it; 0 = nothing.
fn max_behind(settings: &[Setting]) -> u64 {
    let told = settings.iter().rev().find_map(|one| one.of_all(Service::Gateway, "max_behind"));
    told.and_then(|value| value.parse().ok()).unwrap_or(0)
}
