//! `sluice roll`: replaces the instances of a deployment one at a time. Flags, signals and exit codes; the steps are
//! below. It plans nothing between processes: each is stopped and started as anybody could, and waited for.

mod board;
mod condition;
mod docker;
mod instance;
mod kind;
mod process;
mod proof;
mod state;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_drill::run::{During, Options};
use sluice_lifecycle::error_chain;
use sluice_program::output::note;
use tokio_util::sync::CancellationToken;

use crate::signals::Signals;
use board::Board;
use docker::{Compose, Seen};
use instance::{Hold, Instance};
use kind::Kind;
use process::Process;
use proof::Proof;
use state::State;
use steps::{End, Roll};

/// It was interrupted, and can go on.
const INTERRUPTED: u8 = 4;

/// Replace every instance, one at a time: gateways, then tasks, then logics
///
/// Each is stopped with SIGTERM, started again and waited for until it is ready; none is taken away while another is
/// missing. With --file a container is made anew when its image or its part of the file has changed, which is an
/// upgrade: build or pull the image first, and have the environment that `up` had.
///
/// The first Ctrl-C ends the roll after the instance that is being replaced, the second at once. Called again it goes
/// on where it was. Exit code 0: all replaced; 1: an instance did not stop cleanly or its replacement is not ready, or
/// the proof found something wrong; 2: usage; 3: all replaced, but the proof is inconclusive; 4: interrupted.
#[derive(clap::Args)]
#[command(override_usage = USAGE, after_help = "Examples:
  sluice roll --file deploy/compose.cluster.yaml
  sluice roll --file deploy/compose.cluster.yaml --only gateway-2
  sluice roll --file deploy/compose.cluster.yaml --prove --clients 200 --rate 200
  sluice roll --pid gateway-1=4711 --start 'gateway-1=sluice-gateway --config gateway-1.toml' \\
      --admin gateway-1=http://127.0.0.1:8081")]
pub(crate) struct Arguments {
    /// Compose file; may be repeated, as compose takes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pid", "start", "admin"])]
    file: Vec<PathBuf>,
    /// Compose project, if it is not called after its folder
    #[arg(long, value_name = "NAME", requires = "file")]
    project: Option<String>,
    /// A process: gateway-1=4711; may be repeated
    #[arg(long, value_name = "NAME=PID")]
    pid: Vec<String>,
    /// How that process is started: gateway-1=COMMAND; what it says is added to ./gateway-1.log
    #[arg(long, value_name = "NAME=COMMAND")]
    start: Vec<String>,
    /// Where its admin page is: gateway-1=http://127.0.0.1:8081
    #[arg(long, value_name = "NAME=URL")]
    admin: Vec<String>,
    /// Only this instance; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where an interrupted roll leaves how far it came
    #[arg(long, value_name = "FILE", default_value = "sluice-roll.json")]
    state: PathBuf,
    /// A replacement is ready within this, seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    ready_s: u64,
    /// Pause between two instances, for balancers to see the new one, milliseconds
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    pause_ms: u64,
    #[command(flatten)]
    proof: Proof,
}

const USAGE: &str = "sluice roll --file <FILE>... [OPTIONS]
       sluice roll --pid <NAME=PID> --start <NAME=COMMAND> [--admin <NAME=URL>]... [OPTIONS]";

/// What is there to be rolled.
struct Fleet {
    /// Its name, the same whenever it is asked for.
    of: String,
    instances: Vec<Instance>,
    /// Its containers, where it has some.
    seen: Vec<Seen>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (fleet, mut state, options) = match arguments.prepare().await {
        Ok(prepared) => prepared,
        Err(error) => {
            note(format_args!("sluice: {}", error_chain(error.as_ref())));
            return Ok(ExitCode::from(2));
        }
    };
    let board = Board::new(&fleet.instances);
    let wanted = fleet.instances.iter().filter(|instance| instance.wanted);
    let names: Vec<&str> = wanted.map(|instance| instance.name.as_str()).collect();
    let again = if state.is_fresh() { "rolls" } else { "goes on with" };
    board.say(&format!("{again} {}: {}", fleet.of, names.join(", ")));
    let asked = CancellationToken::new();
    let during = During::default();
    let steps = Roll {
        instances: &fleet.instances,
        board: &board,
        ready: Duration::from_secs(arguments.ready_s),
        pause: Duration::from_millis(arguments.pause_ms),
        asked: &asked,
        during: &during,
    };
    let shown = async {
        tokio::select! {
            end = steps.run(&mut state) => end,
            () = board.watch(&fleet.instances) => Ok(End::Asked), // it watches until it is dropped
        }
    };
    let all = async {
        let Some(options) = &options else { return Ok((shown.await, Ok(ExitCode::SUCCESS))) };
        board.say(&format!(
            "{} clients, {} publishes/s around it",
            options.plan.clients, options.plan.rate_per_s
        ));
        let (end, outcome) = proof::around(options, &during, &asked, shown).await?;
        anyhow::Ok((end, outcome.and_then(|outcome| proof::report(options, &outcome))))
    };
    let end = interruptible(all, &asked, &board).await?;
    let end = match end {
        Some(Ok((Ok(End::Complete), proven))) => {
            board.say(&format!("all replaced{}", pids(&fleet)));
            // Only now: as long as it is there, the same command goes on where this one ended.
            state.remove()?;
            // The roll is over, whatever comes of its proof and of what it says: nothing is left to go on with.
            let proven = proven.context("all replaced, but")?;
            board.written().context("all replaced, but")?;
            return Ok(proven);
        }
        Some(Ok((Ok(End::Asked), _))) | None => Ok(ExitCode::from(INTERRUPTED)),
        Some(Ok((Err(error), _)) | Err(error)) => Err(error),
    };
    left(&state);
    end
}

/// The processes that run now, as the next roll takes them.
fn pids(fleet: &Fleet) -> String {
    let of = |instance: &Instance| match &instance.hold {
        Hold::Process(process) => Some(format!(" --pid {}={}", instance.name, process.pid())),
        Hold::Container(_) => None,
    };
    let pids: String = fleet.instances.iter().filter_map(of).collect();
    if pids.is_empty() { pids } else { format!(":{pids}") }
}

/// `None`: it was left in the middle.
async fn interruptible<T>(
    work: impl Future<Output = T>,
    asked: &CancellationToken,
    board: &Board,
) -> anyhow::Result<Option<T>> {
    let mut signals = Signals::install()?;
    tokio::pin!(work);
    tokio::select! {
        end = &mut work => return Ok(Some(end)),
        () = signals.asked() => {}
    }
    // Not at once: an instance that was stopped and not yet started again would stay away.
    asked.cancel();
    board.say("ends after the instance that is being replaced; once more to leave at once");
    Ok(tokio::select! {
        end = &mut work => Some(end),
        () = signals.asked() => None,
    })
}

/// Says what an unfinished roll leaves.
fn left(state: &State) {
    let now = state
        .now()
        .map(|step| format!(", {} was being replaced and may be down", step.name))
        .unwrap_or_default();
    note(format_args!(
        "sluice: {} replaced{now}. The same command goes on from here; {} has the state, without it everything \
         begins anew",
        state.done(),
        state.file().display()
    ));
}

impl Arguments {
    /// All that can be refused is looked at before the first instance is touched.
    async fn prepare(&self) -> anyhow::Result<(Fleet, State, Option<Options>)> {
        let fleet = self.fleet().await?;
        let state = self.state(&fleet)?;
        let options = self.proof.is_wanted().then(|| self.proof.options(&fleet.instances, &fleet.seen));
        Ok((fleet, state, options.transpose()?))
    }

    async fn fleet(&self) -> anyhow::Result<Fleet> {
        if self.file.is_empty() && self.pid.is_empty() {
            bail!(
                "what is to be rolled? --file names a compose file; for processes give each --pid NAME=PID and --start \
                 'NAME=COMMAND', and --admin NAME=URL to see that it is ready.\n\nUsage: {USAGE}"
            );
        }
        let mut fleet = if self.file.is_empty() { self.processes()? } else { self.containers().await? };
        for name in &self.only {
            if fleet.instances.iter().all(|instance| instance.name != *name) {
                let names: Vec<&str> =
                    fleet.instances.iter().map(|instance| instance.name.as_str()).collect();
                bail!("--only {name}: there is only {}", names.join(", "));
            }
        }
        for instance in &mut fleet.instances {
            instance.wanted = self.only.is_empty() || self.only.contains(&instance.name);
        }
        // Gateways first, logics last, by the order of the kinds: each finds what it calls up while it stops.
        fleet.instances.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        Ok(fleet)
    }

    async fn containers(&self) -> anyhow::Result<Fleet> {
        let compose = Arc::new(Compose::find(&self.file, self.project.clone()).await?);
        let seen = compose.containers().await?;
        let instances = instance::among(&compose, &seen)?;
        let Some(project) = seen.first().and_then(Seen::project).filter(|_| !instances.is_empty()) else {
            bail!("no gateway, task or logic of it has a container: is it up, and under that --project?");
        };
        Ok(Fleet { of: format!("project {project}"), instances, seen })
    }

    fn processes(&self) -> anyhow::Result<Fleet> {
        let pids = named("--pid", &self.pid)?;
        let (mut starts, mut admins) = (named("--start", &self.start)?, named("--admin", &self.admin)?);
        // An earlier part of this roll may have started others in their places.
        let of = format!("processes {}", pids.keys().cloned().collect::<Vec<_>>().join(" "));
        let state = State::open(&self.state, &of)?;
        let mut instances = Vec::new();
        for (name, pid) in pids {
            let kind: Kind = name.parse().map_err(anyhow::Error::msg)?;
            let pid = pid.parse().with_context(|| format!("--pid {name}={pid}: that is no pid"))?;
            let command = starts.remove(&name).with_context(|| format!("add --start '{name}=COMMAND'"))?;
            let log = PathBuf::from(format!("{name}.log"));
            let pid = state.pid(&name).unwrap_or(pid);
            let process = Process::new(pid, command, admins.remove(&name), log);
            // Who is being replaced may be down, and who was replaced and ended is said when all are looked at.
            let may_be_gone = state.is_done(&name) || state.now().is_some_and(|step| step.name == name);
            if process.identity().is_none() && !may_be_gone {
                bail!("--pid {name}={pid}: there is no such process");
            }
            // A pid is easily mistyped, and what would be signalled is then somebody else's.
            if let Some(program) = process.program().filter(|program| *program != kind) {
                bail!("--pid {name}={pid}: that is a {program}");
            }
            instances.push(Instance { name, kind, hold: Hold::Process(Box::new(process)), wanted: true });
        }
        if let Some(name) = starts.keys().chain(admins.keys()).next() {
            bail!("{name} has no --pid: add --pid {name}=PID");
        }
        Ok(Fleet { of, instances, seen: Vec::new() })
    }

    fn state(&self, fleet: &Fleet) -> anyhow::Result<State> {
        State::open(&self.state, &fleet.of)
    }
}

/// `gateway-1=value`, each name once.
fn named(option: &str, texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for text in texts {
        let (name, value) =
            text.split_once('=').with_context(|| format!("{option} {text}: write gateway-1=…"))?;
        if found.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("{option} names {name} twice");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        roll: Arguments,
    }

    async fn fleet(line: &str) -> anyhow::Result<Fleet> {
        let words = ["roll"].into_iter().chain(line.split(' '));
        Line::try_parse_from(words)?.roll.fleet().await
    }

    #[tokio::test]
    async fn processes_go_in_order_whatever_order_they_are_named_in() {
        let me = std::process::id();
        let line = format!(
            "--pid logic-1={me} --pid gateway-2={me} --pid gateway-1={me} --pid task={me} --start logic-1=a=b \
             --start gateway-2=b --start gateway-1=c --start task=d --admin logic-1=http://127.0.0.1:1"
        );
        let fleet = fleet(&line).await.unwrap();
        let names: Vec<&str> = fleet.instances.iter().map(|instance| instance.name.as_str()).collect();
        assert_eq!(names, ["gateway-1", "gateway-2", "task", "logic-1"]);
        assert_eq!(fleet.instances[3].admin().as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(fleet.of, "processes gateway-1 gateway-2 logic-1 task");
    }

    #[tokio::test]
    async fn what_cannot_be_rolled_names_the_option_that_is_missing() {
        let me = std::process::id();
        for (line, text) in [
            ("--pid gateway-1=3", "--start 'gateway-1=COMMAND'"),
            ("--pid gateway-1=4194305 --start gateway-1=a", "there is no such process"),
            ("--only task", "--pid NAME=PID"),
            ("--pid gateway-1=x --start gateway-1=a", "that is no pid"),
            ("--pid web=3 --start web=a", "call it gateway-1"),
            (&format!("--pid task={me} --start task=a --start task-2=b"), "--pid task-2=PID"),
            ("--pid task=3 --pid task=4", "names task twice"),
            (&format!("--pid task={me} --start task=a --only logic"), "there is only task"),
            ("--file nowhere.yaml", "there is no nowhere.yaml"),
            ("--start task=a", "--file"),
        ] {
            let error = format!("{:#}", fleet(line).await.err().unwrap());
            assert!(error.contains(text), "{line}: {error}");
        }
    }
}
