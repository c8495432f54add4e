//! A drill from start to verdict: parts one after the other, each with a target, a load, rounds of faults and a
//! judgement of its own, so that memory and disk stay bounded however many rounds there are.

mod during;
mod leftovers;
mod neighbours;
mod part;
mod samples;
mod status_line;
mod store_reader;
pub(crate) mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::RngExt;
use sluice_judge::verdict::Verdict;
use sluice_launcher::{Engines, RedisKind, Setting};
use sluice_report::measure::measure;
use tokio_util::sync::CancellationToken;

use crate::fault::FaultKind;
use crate::links::Link;
use crate::load::{self, Plan};
use crate::place::Role;
use crate::scenario::{self, Round, Scenario};
use crate::seed::Seed;
use crate::target::given;
pub use during::{During, Intervention};
pub use sluice_load::habit::Habit;
use status_line::StatusLine;

/// How long the load of a scenario without any fault lasts when nobody says it.
pub const CALM: Duration = Duration::from_secs(20);
/// Most rounds of one part: about ten minutes, some hundred megabytes of records.
const PART_ROUNDS: usize = 60;
/// The same of a herd, whose clients subscribe to 100,000 rooms each time all come back.
const HERD_PART_ROUNDS: usize = 10;
/// Load average for each processor above which a run says little about times; the drill itself makes one or two.
const BUSY: f64 = 4.0;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which faults.
    pub scenario: Scenario,
    /// How many; `None` = as many as the scenario usually has.
    pub rounds: Option<usize>,
    /// How long the load of a scenario without any fault lasts.
    pub calm: Duration,
    /// Only kinds with one of these names.
    pub only: Vec<String>,
    /// The load, and the seed of everything random.
    pub plan: Plan,
    /// How many gateways, logics and tasks a cluster of our own has.
    pub counts: [usize; 3],
    /// How many servers of each kind it stands on.
    pub engines: Engines,
    /// Whether its services show each other certificates.
    pub secure: bool,
    /// Where the service binaries are, unless beside this one or on PATH.
    pub bin_dir: Option<PathBuf>,
    /// Where the binaries of another version are: each process that is started again comes from the other folder.
    pub previous: Option<PathBuf>,
    /// Settings of the services of a cluster of our own.
    pub settings: Vec<Setting>,
    /// Bad neighbours of all clients, by name, at the first gateway.
    pub habits: Vec<String>,
    /// Links of a cluster of our own that are slow while the load runs: no fault, but what a queue shows itself on.
    pub slow_links: Vec<Link>,
    /// A deployment that is given; empty = a cluster of our own.
    pub given: given::Wanted,
    /// Where everything is written.
    pub dir: PathBuf,
    /// Whether records stay also when all is well.
    pub keep: bool,
    /// The command line, for the record.
    pub command: String,
    /// Whether nothing is said while it runs.
    pub quiet: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The folder of each part and its judgement.
    pub parts: Vec<(PathBuf, Verdict)>,
    /// It was interrupted.
    pub interrupted: bool,
}

impl Options {
    /// Whether it can be done at all.
    ///
    /// # Errors
    /// Names the option that cannot be followed.
    pub fn check(&self) -> anyhow::Result<()> {
        // Ignored in silence, it would let a run without certificates pass for one with them.
        if self.secure && !self.given.is_empty() {
            bail!(
                "--secure is for a cluster of its own: a deployment that is given has what it was started with"
            );
        }
        if self.previous.is_some() && !self.given.is_empty() {
            bail!(
                "--previous is for a cluster of its own: a deployment that is given is rolled by who runs it"
            );
        }
        if self.plan.foreign.tabs > 0 && !self.given.is_empty() {
            bail!(
                "--foreign tabs is for a cluster of its own, whose gateways are told to let their page in: leave it"
            );
        }
        if !self.given.is_empty() {
            self.given.check()?;
        }
        self.plan.foreign.kinds().try_for_each(load::check_foreign)?;
        self.engines.check()?;
        refuse_used(&self.dir)?;
        // Before anything is started: a typing error must not cost the minute that a cluster takes.
        if let Some(name) = self.habits.iter().find(|name| Habit::named(name).is_none()) {
            bail!("there is no habit {name:?}; there are:\n{}", Habit::explained());
        }
        self.fault_kinds().map(drop)
    }

    fn seed(&self) -> Seed {
        Seed(self.plan.seed)
    }

    /// The kinds of faults that were asked for and can be done, and why others cannot. What no cluster of our own can
    /// have is not missed there.
    fn fault_kinds(&self) -> anyhow::Result<(Vec<FaultKind>, Vec<String>)> {
        let all = self.scenario.fault_kinds();
        let named =
            |kind: &FaultKind| self.only.is_empty() || self.only.iter().any(|words| kind.is_called(words));
        let asked: Vec<FaultKind> = all.iter().copied().filter(named).collect();
        if asked.is_empty() && self.scenario != Scenario::Calm {
            let names: Vec<String> = all.iter().map(FaultKind::to_string).collect();
            bail!("no fault of `{}` is called so; it has: {}", self.scenario, names.join(", "))
        }
        // A cluster of our own leaves out what only a given one can do without a word: nobody asked for it
        // there. Whoever gives a deployment is told what he did not get, and why.
        let own = self.given.is_empty();
        let refuses = |kind: FaultKind| {
            if own && self.secure && kind.needs_doors() {
                Some("members of a secure cluster have no doors: leave --secure".to_owned())
            } else if own {
                kind.needs_given().or_else(|| kind.needs_engines(self.engines))
            } else {
                self.given.refuses(kind)
            }
        };
        let (kinds, refused): (Vec<FaultKind>, Vec<FaultKind>) =
            asked.into_iter().partition(|kind| refuses(*kind).is_none());
        let why: Vec<String> = refused
            .iter()
            .filter_map(|kind| Some(format!("not done: {kind}: {}", refuses(*kind)?)))
            .collect();
        if let (true, Some(first)) = (kinds.is_empty(), why.first()) {
            bail!("nothing of that can be done; {first}");
        }
        Ok((kinds, if own { Vec::new() } else { why }))
    }
}

impl Outcome {
    /// Whether everything was judged and nothing is wrong.
    #[must_use]
    pub fn is_green(&self) -> bool {
        !self.interrupted && self.parts.iter().all(|(_, verdict)| verdict.is_green())
    }

    /// 0 green, 1 anomalies, 3 nothing can be concluded.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            green if green.is_green() => ExitCode::SUCCESS,
            // An anomaly outranks an interruption: a run that was broken off has still seen what it saw.
            red if red.parts.iter().any(|(_, verdict)| verdict.anomalies_total > 0) => ExitCode::from(1),
            _ => ExitCode::from(3),
        }
    }

    /// What people shall read of it; with `page`, a file for a browser is written too.
    ///
    /// # Errors
    /// When the records cannot be measured or the page not be written.
    pub fn report(&self, page: Option<&Path>) -> anyhow::Result<String> {
        let (dirs, verdicts): (Vec<&Path>, Vec<Verdict>) =
            self.parts.iter().map(|(dir, verdict)| (dir.as_path(), verdict.clone())).unzip();
        let measures = measure(&dirs, &verdicts)?;
        if let Some(page) = page {
            std::fs::write(page, sluice_report::html(&measures, &verdicts))
                .with_context(|| format!("cannot write {}", page.display()))?;
        }
        Ok(sluice_report::terminal(&measures, &verdicts))
    }

    /// Removes the large files of parts that were well: they show nothing more.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget(&self) -> anyhow::Result<()> {
        self.parts.iter().filter(|(_, verdict)| verdict.is_green()).try_for_each(|(dir, _)| forget(dir))
    }
}

/// A seed that nobody chose: short enough to be typed again.
#[must_use]
pub fn new_seed() -> u64 {
    rand::rng().random_range(1..1_000_000)
}

impl FaultKind {
    /// Why a cluster of our own has nothing that this could be done to; `None` = it has.
    fn needs_given(self) -> Option<String> {
        let option = match self {
            Self::Term(Role::Dev) | Self::Kill(Role::Dev) | Self::FullDisk => "--spawn",
            Self::Roll(_) => "--roll-command",
            Self::Disconnect(_) => "--container",
            Self::Term(_)
            | Self::TermTwice(_)
            | Self::TermStarting(_)
            | Self::TermEvery(_)
            | Self::Kill(_)
            | Self::KillLeader(_)
            | Self::FailOver
            | Self::KillPatroni
            | Self::KillPostmaster
            | Self::Switchover
            | Self::KillStopping(_)
            | Self::KillOneOfEach
            | Self::KillEvery(_)
            | Self::Freeze(..)
            | Self::AllAtOnce
            | Self::Restart(_)
            | Self::Wipe(_)
            | Self::OldRedis
            | Self::Crash
            | Self::Sessions
            | Self::Restore
            | Self::Partition(_)
            | Self::Cut(..)
            | Self::Due
            | Self::Revoke
            | Self::LogGone(_)
            | Self::LogStuck(_) => return None,
        };
        Some(format!("it needs a deployment that is given, with {option}"))
    }

    /// Why servers that are made up so are no good for it; `None` = they are.
    fn needs_engines(self, engines: Engines) -> Option<String> {
        let leads = |role: Role| role.service().is_some_and(|service| engines.has_leader(service));
        if let Self::KillLeader(role) | Self::Partition(role) = self
            && !leads(role)
        {
            return Some(
                "it needs several: --etcds 3, --natses 3, --redis sentinel or cluster, --patroni".to_owned(),
            );
        }
        if self == Self::FailOver && !leads(Role::Redis) {
            return Some("it needs --redis sentinel or cluster".to_owned());
        }
        if matches!(self, Self::KillPatroni | Self::KillPostmaster | Self::Switchover) && !engines.patroni {
            return Some("it needs --patroni".to_owned());
        }
        // The second: Patroni keeps there which standby has all that was answered, and one that has not could be promoted.
        if matches!(self, Self::Crash | Self::Restore | Self::Wipe(Role::Etcd)) && engines.patroni {
            return Some("it needs a PostgreSQL without Patroni".to_owned());
        }
        // A proxy leads to one server.
        if matches!(self, Self::Cut(..)) && engines != Engines::default() {
            return Some("links are cut in a cluster with one of each server".to_owned());
        }
        // Which server holds the copy, and which is the primary then, is for others to say.
        (self == Self::OldRedis && engines.redis != RedisKind::Single)
            .then(|| "it needs a Redis that is alone".to_owned())
    }
}

/// Drills. `stop` ends it soon and in order; what was recorded stays.
///
/// # Errors
/// When something could not be started, healed, read or written: then the folder says how far it came.
pub async fn run(options: &Options, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    around(options, None, stop).await
}

/// As [`run`]; without faults the load lasts for as long as something else does.
///
/// # Errors
/// As [`run`].
pub async fn around(
    options: &Options,
    during: Option<&During>,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let (kinds, refused) = options.fault_kinds()?;
    let count = options.rounds.unwrap_or_else(|| options.scenario.usual_rounds(kinds.len()));
    let rounds = scenario::plan(&kinds, count, options.seed());
    std::fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot create {}", options.dir.display()))?;
    let dir = options.dir.canonicalize()?;
    let status_line = StatusLine::new(options.quiet);
    refused.iter().for_each(|why| status_line.done(why, None));
    let most = if options.plan.crowd > 0 { HERD_PART_ROUNDS } else { PART_ROUNDS };
    let parts = parts_of(&rounds, most);
    let mut outcome = Outcome { parts: Vec::new(), interrupted: false };
    for (index, rounds) in parts.iter().enumerate() {
        let folder = if parts.len() == 1 { dir.clone() } else { dir.join(format!("part-{}", index + 1)) };
        if parts.len() > 1 {
            status_line
                .done(&format!("part {} of {}: {} rounds", index + 1, parts.len(), rounds.len()), None);
        }
        let part = part::RunPart {
            options,
            rounds,
            total: count,
            dir: &folder,
            status_line: &status_line,
            during,
            stop,
        };
        let verdict =
            part.run().await.with_context(|| format!("the records so far are in {}", folder.display()))?;
        outcome.parts.push((folder, verdict));
        // After the part, not before the run: the average of five minutes says how it was meanwhile.
        if let Some(warning) = overload() {
            status_line.done(&warning, None);
        }
        if stop.is_cancelled() {
            outcome.interrupted = true;
            break;
        }
    }
    Ok(outcome)
}

/// What makes times worthless: others that want the processors.
fn overload() -> Option<String> {
    let averages = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = averages.split_whitespace().nth(1)?.parse().ok()?;
    let processors = std::thread::available_parallelism().ok()?.get();
    (load > BUSY * processors as f64).then(|| {
        format!(
            "the machine is overloaded (load average {load} on {processors} processors): times say little"
        )
    })
}

/// Judges folders again.
///
/// # Errors
/// When a folder holds no records.
pub fn check(dirs: &[PathBuf]) -> anyhow::Result<Outcome> {
    let mut parts = Vec::new();
    for dir in dirs {
        for folder in folders_of(dir)? {
            let verdict = sluice_judge::check(&folder)
                .with_context(|| format!("{} holds no complete run", folder.display()))?;
            parts.push((folder, verdict));
        }
    }
    Ok(Outcome { parts, interrupted: false })
}

/// A folder of one part, or those below it.
///
/// # Errors
/// When there is no run in it.
pub fn folders_of(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if dir.join("run.json").is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("part-")?.parse::<u32>().ok();
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| number(path).is_some() && path.join("run.json").is_file())
        .collect();
    // By number: `part-10` would come before `part-2` by name.
    found.sort_by_key(number);
    if found.is_empty() {
        bail!("{} holds no run: neither run.json nor part-1/run.json", dir.display());
    }
    Ok(found)
}

/// As equal as possible, so that no part is a handful of rounds that is not worth its start.
fn parts_of(rounds: &[Round], most: usize) -> Vec<&[Round]> {
    if rounds.is_empty() {
        return vec![rounds];
    }
    let count = rounds.len().div_ceil(most);
    // Alike in size, else the last part may be one round long and its rates say nothing.
    rounds.chunks(rounds.len().div_ceil(count)).collect()
}

fn refuse_used(dir: &Path) -> anyhow::Result<()> {
    if dir.join("run.json").exists() || dir.join("part-1").exists() {
        bail!("{} holds the records of another run: give another --dir, or remove it", dir.display());
    }
    Ok(())
}

fn forget(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The great ones only. The verdict, the faults and the measures stay: reports compare runs by them.
        if name.starts_with("client-") || name == "store.jsonl" {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_killed_where_there_is_one() {
        let groups = Engines { etcds: 3, redis: RedisKind::Sentinel, ..Engines::default() };
        let refused = |kind: FaultKind, engines| kind.needs_engines(engines).is_some();
        for (role, of_groups) in [(Role::Etcd, false), (Role::Redis, false), (Role::Nats, true)] {
            assert!(refused(FaultKind::KillLeader(role), Engines::default()), "{role}");
            assert_eq!(refused(FaultKind::KillLeader(role), groups), of_groups, "{role}");
        }
        let patroni = Engines { patroni: true, ..groups };
        for (kind, without, with) in [
            (FaultKind::KillLeader(Role::Postgres), true, false),
            (FaultKind::Switchover, true, false),
            (FaultKind::Crash, false, true),
            (FaultKind::Wipe(Role::Etcd), false, true),
        ] {
            assert_eq!((refused(kind, groups), refused(kind, patroni)), (without, with), "{kind}");
        }
        let cluster = Engines { redis: RedisKind::Cluster, ..Engines::default() };
        assert!(!refused(FaultKind::Partition(Role::Redis), cluster));
        assert!(refused(FaultKind::OldRedis, groups) && !refused(FaultKind::OldRedis, Engines::default()));
    }

    #[test]
    fn parts_are_alike_and_complete() {
        let kinds = Scenario::Quick.fault_kinds();
        for (count, sizes) in [(0, vec![0]), (60, vec![60]), (61, vec![31, 30]), (300, vec![60; 5])] {
            let rounds = scenario::plan(&kinds, count, Seed(1));
            let parts = parts_of(&rounds, PART_ROUNDS);
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(parts.concat(), rounds);
        }
    }
}
