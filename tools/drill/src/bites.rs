//! Proof that the drill finds what is wrong: the services are built with bugs in them, and each bug has a run that must
//! turn red. The same run without the bug comes first and must be green. Builds nothing itself: `make drill-bites` does.

mod proof;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sluice_judge::verdict::{AnomalyKind, Verdict};
use sluice_launcher::{Engines, Service, service_binary};
use sluice_lifecycle::error_chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::run;
use crate::target::given;
use proof::{Proof, Ran};
use table::{BITES, Bite, Setup};

/// What a setting calls the bugs of a process.
const SETTING: &str = "all.seeded_bug";
/// What the services call the same.
const VARIABLE: &str = "SLUICE_SEEDED_BUG";
/// A name that no bug has: whoever has bugs answers with all their names.
const NONE: &str = "?";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only these bugs; empty = all.
    pub names: Vec<String>,
    /// Of everything random: the first.
    pub seed: u64,
    /// How many of them, one after the other.
    pub seeds: u32,
    /// Where the services with the bugs are; `None` = in the folder `seeded` beside this executable's.
    pub bin_dir: Option<PathBuf>,
    /// Where everything is written, a folder for each run.
    pub dir: PathBuf,
    /// The command line, for the record.
    pub command: String,
}

/// Runs every bite with every seed, says how each ended, and prints a table of all; whether all were caught.
///
/// # Errors
/// When the services have no bugs, or others than are known here.
pub async fn prove(options: &Options, stop: &CancellationToken) -> anyhow::Result<bool> {
    let bin_dir = bin_dir(options)?;
    let bites = wanted(&options.names, &bugs_of(&bin_dir)?)?;
    let mut proof = Proof::begin(&bites, options.seeds as usize)?;
    for bite in &bites {
        for seed in (options.seed..).take(options.seeds as usize) {
            let run = |bugs: Vec<&'static str>| one(options, &bin_dir, &bite.setup, bugs, seed, stop);
            if proof.is_ground_green(bite, seed).is_none() {
                let (ran, dir) = run(bite.beside.to_vec()).await?;
                options.forget(&dir, ran.is_green())?;
                proof.ground(bite, seed, ran)?;
            }
            let (ran, dir) = run([&[bite.bug], bite.beside].concat()).await?;
            let is_caught = proof.bite(bite, seed, ran)?;
            options.forget(&dir, is_caught)?;
        }
    }
    Ok(proof.end(&bites)?)
}

impl Options {
    /// Of many runs only the records of those stay that did not end as they should: the disk has an end.
    fn forget(&self, dir: &Path, is_as_expected: bool) -> anyhow::Result<()> {
        if self.seeds > 1 && is_as_expected {
            std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        Ok(())
    }
}

fn ran(outcome: anyhow::Result<run::Outcome>, began: Instant) -> Ran {
    let seconds = began.elapsed().as_secs_f32();
    match outcome {
        Err(error) => Ran { kinds: Vec::new(), why: Some(error_chain(error.as_ref())), seconds },
        Ok(outcome) => {
            let verdicts = || outcome.parts.iter().map(|(_, verdict)| verdict);
            let why = verdicts().flat_map(|verdict| verdict.inconclusive.clone()).next();
            Ran { kinds: kinds(verdicts()), why, seconds }
        }
    }
}

/// What is wrong, and how often, most first.
fn kinds<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Vec<(AnomalyKind, usize)> {
    let mut counts = std::collections::BTreeMap::<AnomalyKind, usize>::new();
    for anomaly in verdicts.flat_map(|verdict| &verdict.anomalies) {
        *counts.entry(anomaly.kind).or_default() += 1;
    }
    let mut counts: Vec<(AnomalyKind, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// One run of a setup with these bugs, and where its records are.
async fn one(
    options: &Options,
    bin_dir: &Path,
    setup: &Setup,
    bugs: Vec<&'static str>,
    seed: u64,
    stop: &CancellationToken,
) -> anyhow::Result<(Ran, PathBuf)> {
    let mut settings = setup.settings.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    if !bugs.is_empty() {
        settings.push(format!("{SETTING}={}", bugs.join(",")).parse()?);
    }
    let folder = if bugs.is_empty() { "none".to_owned() } else { bugs.join("+") };
    let seeded = if options.seeds > 1 { format!(" {seed}") } else { String::new() };
    let dir = options.dir.join(format!("{} {folder}{seeded}", setup.name).replace(' ', "-"));
    let began = Instant::now();
    let drill = run::Options {
        scenario: setup.scenario,
        rounds: Some(setup.rounds),
        only: setup.only.iter().map(|words| (*words).to_owned()).collect(),
        calm: setup.calm,
        plan: setup.plan(seed),
        // Two of each: with one, what another would do wrongly is not done at all.
        counts: [2, 2, 2],
        engines: Engines::default(),
        secure: false,
        bin_dir: Some(bin_dir.to_owned()),
        previous: None,
        settings,
        habits: setup.habits.iter().map(|name| (*name).to_owned()).collect(),
        slow_links: setup.slow_links.to_vec(),
        given: given::Wanted::default(),
        dir: dir.clone(),
        keep: false,
        command: options.command.clone(),
        quiet: true,
    };
    let outcome = run::run(&drill, stop).await;
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Ok((ran(outcome, began), dir))
}

/// The bites that are asked for, of which there must be one for each bug there is.
fn wanted(names: &[String], bugs: &BTreeSet<String>) -> anyhow::Result<Vec<Bite>> {
    let known: BTreeSet<String> = BITES.iter().map(|bite| bite.bug.to_owned()).collect();
    // A bug without a bite would be one that nobody has ever seen caught.
    if let Some(bug) = bugs.symmetric_difference(&known).next() {
        bail!("`{bug}` is only on one side: the services and the drill are of different versions");
    }
    if let Some(name) = names.iter().find(|name| !known.contains(*name)) {
        bail!("there is no seeded bug {name:?}; there are {}", Vec::from_iter(known).join(", "));
    }
    let asked = |bite: &&Bite| names.is_empty() || names.iter().any(|name| name == bite.bug);
    Ok(BITES.iter().filter(asked).copied().collect())
}

fn bin_dir(options: &Options) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &options.bin_dir {
        return Ok(dir.clone());
    }
    let me = std::env::current_exe()?;
    let beside = me.parent().and_then(Path::parent).map(|target| target.join("seeded"));
    beside
        .filter(|dir| dir.is_dir())
        .context("the services with bugs in them are missing: `make drill-bites` builds them")
}

/// The bugs that the services have, as they say themselves.
fn bugs_of(bin_dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let task = service_binary(Service::Task, Some(bin_dir))?;
    let said = Command::new(&task).arg("--check").env(VARIABLE, NONE).output()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let names = said.split_once("there are ").map(|(_, names)| names.trim());
    let names = names
        .with_context(|| format!("{} has no bugs: `make drill-bites` builds some that do", task.display()))?;
    Ok(names.split(", ").map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_one_bite_with_faults_that_exist() {
        let mut seen = BTreeSet::new();
        for bite in BITES {
            let named = |other: &&Bite| other.setup.name == bite.setup.name;
            assert!(BITES.iter().filter(named).all(|other| other.setup == bite.setup), "{:?}", bite.setup);
            assert!(seen.insert(bite.bug), "{} twice", bite.bug);
            assert!(!bite.shows.is_empty() && bite.beside.iter().all(|bug| *bug != bite.bug), "{}", bite.bug);
            let kinds = bite.setup.scenario.fault_kinds();
            for words in bite.setup.only {
                assert_eq!(kinds.iter().filter(|kind| kind.is_called(words)).count(), 1, "{words}");
            }
        }
        let known: BTreeSet<String> = seen.iter().map(|bug| (*bug).to_owned()).collect();
        assert!(BITES.iter().flat_map(|bite| bite.beside).all(|bug| seen.contains(bug)));
        assert_eq!(wanted(&[], &known).unwrap().len(), BITES.len());
        assert_eq!(wanted(&["no-goodbye".into()], &known).unwrap().len(), 1);
        assert!(wanted(&["nonsense".into()], &known).is_err());
        assert!(wanted(&[], &BTreeSet::new()).is_err());
    }
}
