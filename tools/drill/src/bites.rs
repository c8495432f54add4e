//! Proof that the drill finds what is wrong: the services are built with bugs in them, and each bug has a run that must
//! turn red. The same run without the bug comes first and must be green. Builds nothing itself: `make drill-bites` does.

mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sluice_judge::verdict::{AnomalyKind, Verdict};
use sluice_launcher::{Service, service_binary};
use sluice_lifecycle::error_chain;
use sluice_program::output::{self, Unwritten};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::run;
use crate::target::given;
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
    /// Of everything random.
    pub seed: u64,
    /// Where the services with the bugs are; `None` = in the folder `seeded` beside this executable's.
    pub bin_dir: Option<PathBuf>,
    /// Where everything is written, a folder for each run.
    pub dir: PathBuf,
    /// The command line, for the record.
    pub command: String,
}

/// How one run ended.
struct Ran {
    kinds: Vec<(AnomalyKind, usize)>,
    why: Option<String>,
    seconds: f32,
}

/// Runs every bite and prints a table; whether all were caught.
///
/// # Errors
/// When the services have no bugs, or others than are known here.
pub async fn prove(options: &Options, stop: &CancellationToken) -> anyhow::Result<bool> {
    let bin_dir = bin_dir(options)?;
    let bites = wanted(&options.names, &bugs_of(&bin_dir)?)?;
    output::line(format_args!("{:<28} {:<16} {:>5}  seen", "bug", "setup", "s"))?;
    let mut caught = 0;
    let mut controls: Vec<(Setup, &[&str], bool)> = Vec::new();
    for bite in &bites {
        // Once for each setup: bugs that share one share its proof that it is green without them.
        let known = controls.iter().find(|(setup, beside, _)| (*setup, *beside) == (bite.setup, bite.beside));
        let is_green = if let Some((.., is_green)) = known {
            *is_green
        } else {
            let ran = one(options, &bin_dir, &bite.setup, bite.beside, stop).await?;
            let is_green = ran.kinds.is_empty() && ran.why.is_none();
            let note = if is_green { "" } else { "NOT GREEN, so it proves nothing" };
            ran.print(&format!("- {}", bite.beside.join(", ")), bite.setup.name, note)?;
            controls.push((bite.setup, bite.beside, is_green));
            is_green
        };
        let bugs = [&[bite.bug], bite.beside].concat();
        let ran = one(options, &bin_dir, &bite.setup, &bugs, stop).await?;
        let is_seen = ran.kinds.iter().any(|(kind, _)| bite.shows.contains(kind));
        // Red also without the bug, the run shows that something is wrong, but not what.
        caught += usize::from(is_seen && is_green);
        let expected: Vec<&str> = bite.shows.iter().map(|kind| kind.name()).collect();
        let note =
            if is_seen { String::new() } else { format!("ESCAPED, expected {}", expected.join(" or ")) };
        ran.print(bite.bug, bite.setup.name, &note)?;
    }
    output::line(format_args!("{caught} of {} caught", bites.len()))?;
    Ok(caught == bites.len())
}

impl Ran {
    fn of(outcome: anyhow::Result<run::Outcome>, began: Instant) -> Self {
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Err(error) => Self { kinds: Vec::new(), why: Some(error_chain(error.as_ref())), seconds },
            Ok(outcome) => {
                let verdicts = || outcome.parts.iter().map(|(_, verdict)| verdict);
                let why = verdicts().flat_map(|verdict| verdict.inconclusive.clone()).next();
                Self { kinds: kinds(verdicts()), why, seconds }
            }
        }
    }

    fn print(&self, bug: &str, setup: &str, note: &str) -> Result<(), Unwritten> {
        let mut seen: Vec<String> =
            self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        if seen.is_empty() {
            seen.push("nothing".to_owned());
        }
        seen.extend(self.why.iter().map(|why| format!("inconclusive: {why}")));
        let note = if note.is_empty() { String::new() } else { format!("  {note}") };
        let line = format_args!("{bug:<28} {setup:<16} {:>5.0}  {}{note}", self.seconds, seen.join(", "));
        output::line(line)
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

/// One run of a setup with these bugs.
async fn one(
    options: &Options,
    bin_dir: &Path,
    setup: &Setup,
    bugs: &[&str],
    stop: &CancellationToken,
) -> anyhow::Result<Ran> {
    let mut settings = setup.settings.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    if !bugs.is_empty() {
        settings.push(format!("{SETTING}={}", bugs.join(",")).parse()?);
    }
    let folder = if bugs.is_empty() { "none".to_owned() } else { bugs.join("+") };
    let dir = options.dir.join(format!("{} {folder}", setup.name).replace(' ', "-"));
    let began = Instant::now();
    let drill = run::Options {
        scenario: setup.scenario,
        rounds: Some(setup.rounds),
        only: setup.only.iter().map(|words| (*words).to_owned()).collect(),
        plan: setup.plan(options.seed),
        // Two of each: with one, what another would do wrongly is not done at all.
        counts: [2, 2, 2],
        bin_dir: Some(bin_dir.to_owned()),
        settings,
        habits: setup.habits.iter().map(|name| (*name).to_owned()).collect(),
        given: given::Wanted::default(),
        dir,
        keep: false,
        command: options.command.clone(),
        quiet: true,
    };
    let outcome = run::run(&drill, stop).await;
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Ok(Ran::of(outcome, began))
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
