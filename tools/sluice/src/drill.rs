//! `sluice drill`: load, faults, verdict. Flags and output only; the drill does the work.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sluice_drill::bites;
use sluice_drill::load::{ForeignClients, Plan};
use sluice_drill::run::{self, Habit, Options};
use sluice_drill::scenario::Scenario;
use sluice_drill::target::given;
use sluice_launcher::Setting;
use sluice_lifecycle::error_chain;
use sluice_program::output;
use sluice_program::secret::TokenSecret;
use tokio_util::sync::CancellationToken;

use crate::engines::EngineArguments;
use crate::paste;
use crate::signals::Signals;
use crate::target::trust;

/// Put load on a Sluice, do harm to it, and let an independent judge say whether anything was lost
///
/// Without a target it starts a cluster of its own, on free loopback ports. Exit code 0: nothing was lost, doubled,
/// reordered or left behind; 1: something was, and its records are kept; 3: nothing can be concluded; 2: usage.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Arguments {
    /// What is to happen
    #[arg(default_value = "quick")]
    scenario: Scenario,
    /// How many faults, one after the other; without it what the scenario usually has
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only faults with these words in their name; may be repeated
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Of everything random; without it a new one, which is said
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many clients; without it 200, of a herd 40
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// Publishes a second, all clients together; without it 500, of a herd 100
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Part of the publishes that backends send by the HTTP API of logic, 0 to 1; without it 0.1 where there is one
    #[arg(long, value_name = "PART", value_parser = share)]
    api_share: Option<f64>,
    /// Clients besides, in other languages and processes of their own, or tabs of a Chromium: js=N,python=N,tabs=N; in a
    /// checkout of the sources
    #[arg(long, value_name = "LANGUAGE=N", default_value = "", value_parser = foreign, hide_default_value = true)]
    foreign: ForeignClients,
    /// How many rooms; without it 50, of a herd 1,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rooms: Option<u32>,
    /// Clients besides, that only read and come back; without it none, of a herd 10,000
    #[arg(long, value_name = "N")]
    crowd: Option<u32>,
    /// Rooms that each of the crowd reads
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    crowd_rooms: u32,
    /// Clients besides, in a room where some watch who comes and goes, with a leave_grace_s of 15; without it 14 in quick
    /// and roll, else none
    #[arg(long, value_name = "N")]
    watched: Option<u32>,
    /// A bad neighbour at the first gateway, all the time; may be repeated
    #[arg(long = "habit", value_name = "HABIT")]
    habits: Vec<String>,
    /// Folder for records and data, new; without it `./drill-SEED`
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Keep all records, also when all is well
    #[arg(long)]
    keep: bool,
    /// Say nothing while it runs
    #[arg(long, short)]
    quiet: bool,
    /// Judge again what these folders hold, several parts as one; runs nothing
    #[arg(long, num_args = 1.., value_name = "DIR", conflicts_with_all = ["rounds", "only", "seed", "dir"])]
    check: Vec<PathBuf>,
    /// Prove that the drill finds what is wrong: services with bugs built in, all or these, each on a run that must turn
    /// red; `make drill-bites` builds them
    #[arg(long, num_args = 0.., value_name = "BUG", conflicts_with_all = ["rounds", "only", "check", "report", "keep"])]
    bites: Option<Vec<String>>,
    /// With `--bites`: so many seeds, one after the other; keeps only records of runs that did not end as they should
    #[arg(long, default_value_t = 1, value_name = "N", requires = "bites",
        value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    given: Given,
}

/// A cluster of its own.
#[derive(clap::Args)]
#[command(next_help_heading = "A cluster of its own")]
struct Own {
    /// How many gateways
    #[arg(long, default_value_t = 2, value_name = "N")]
    gateways: usize,
    /// How many logics
    #[arg(long, default_value_t = 2, value_name = "N")]
    logics: usize,
    /// How many tasks
    #[arg(long, default_value_t = 2, value_name = "N")]
    tasks: usize,
    #[command(flatten)]
    engines: EngineArguments,
    /// Encrypt every link but those of clients, with certificates and passwords made for the run
    #[arg(long, conflicts_with_all = ["check", "bites"])]
    secure: bool,
    /// Where the service binaries are, unless beside this one or on PATH
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Folder with the binaries of another version: the cluster begins with these, and each process that is started again
    /// is one of the other version than before
    #[arg(long, value_name = "DIR", conflicts_with_all = ["check", "bites"])]
    previous: Option<PathBuf>,
    /// Configuration of the services, as of `sluice cluster`; may be repeated
    #[arg(long = "set", value_name = "SERVICE.KEY=VALUE")]
    settings: Vec<Setting>,
}

/// One that is given.
#[derive(clap::Args)]
#[command(next_help_heading = "A deployment that is given: only what is named is touched")]
struct Given {
    /// Where clients connect; may be repeated, gateway-1 first
    #[arg(long = "gateway", value_name = "WS-URL")]
    gateway: Vec<String>,
    /// Certificate authority to trust at wss:// beside the public ones, PEM
    #[arg(long, env = "SLUICE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// HTTP API of a logic, for backends that publish; may be repeated
    #[arg(long = "api", value_name = "URL", requires = "api_key")]
    api: Vec<String>,
    /// A key of it that may publish in every room and disconnect every user
    #[arg(long, env = "SLUICE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Admin page: of the gateways in order, or PLACE=URL; may be repeated
    #[arg(long = "admin", value_name = "URL")]
    admin: Vec<String>,
    /// A process to signal: gateway-1=1234; may be repeated
    #[arg(long = "pid", value_name = "PLACE=PID")]
    pid: Vec<String>,
    /// How that process is started again: gateway-1='COMMAND'; may be repeated
    #[arg(long = "restart", value_name = "PLACE=COMMAND")]
    restart: Vec<String>,
    /// A container to signal, start, pause and take off its networks: gateway-1=NAME; may be repeated
    #[arg(long = "container", value_name = "PLACE=NAME")]
    container: Vec<String>,
    /// Where the truth is read from: postgres://… or sqlite:FILE
    #[arg(long, env = "SLUICE_POSTGRES__URL", hide_env_values = true, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    secret: TokenSecret,
    /// Command of a whole deployment in one process; its first line is JSON with its gateways and its pid
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,
    /// Command that restarts one gateway in an ordered way; {} is its name
    #[arg(long, value_name = "COMMAND")]
    roll_command: Option<String>,
}

/// A part of something.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("it is a part, from 0 to 1".to_owned()),
    }
}

/// `js=2,python=1,tabs=20`; nothing is nobody.
fn foreign(text: &str) -> Result<ForeignClients, String> {
    let mut all = ForeignClients::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let count = |count: &str| count.parse().map_err(|_| format!("{part:?} has no number: js=2"));
        match part.split_once('=') {
            Some(("js", number)) => all.javascript = count(number)?,
            Some(("python", number)) => all.python = count(number)?,
            Some(("tabs", number)) => all.tabs = count(number)?,
            Some(_) | None => {
                return Err(format!("{part:?} is no client in another language: js=N, python=N or tabs=N"));
            }
        }
    }
    Ok(all)
}

fn after_help() -> String {
    format!(
        "Scenarios:\n{}
Habits:\n{}
Examples:
  sluice drill   # SIGTERM and SIGKILL to each service, three minutes
  sluice drill mix --report drill.html
  sluice drill crash --rounds 300 --seed 7   # in parts, one after the other
  sluice drill mix --only 'term logic' --only 'freeze gateway'
  sluice drill stores --etcds 3 --natses 3 --redis sentinel --only leader
  sluice drill stores --redis cluster --only redis
  sluice drill stores --etcds 3 --patroni --only postgres   # PostgreSQL fails over
  sluice drill quick --secure   # every link encrypted, with certificates and passwords
  sluice drill quick --foreign js=2,python=2,tabs=20   # clients in JavaScript, Python and a browser are judged too
  sluice drill herd   # 10,000 clients come back, again and again
  sluice drill herd --crowd 500 --only 'kill gateway' --habit churner
  sluice drill --check drill-7
  sluice drill crash --spawn 'sluice dev --json --dir ./data' --only 'kill dev'
  sluice drill roll --spawn 'sluice dev --json --dir ./data' --roll-command 'sluice dev restart {{}} --dir ./data' --only 'roll'
  sluice drill crash --spawn 'sluice serve --config sluice.toml' --token-secret-file secret.txt --only dev
  sluice drill --bites no-fence no-goodbye --seed 11 --seeds 10
  sluice drill crash --gateway ws://127.0.0.1:8080/ws --admin http://127.0.0.1:8081 --token-secret \"$SECRET\" \\
      --pid gateway-1=4711 --restart 'gateway-1=sluice-gateway --config gateway.toml' --only 'kill gateway' \\
      --store postgres://sluice@127.0.0.1/sluice",
        Scenario::explained(),
        Habit::explained()
    )
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let report = arguments.report.clone();
    if !arguments.check.is_empty() {
        let outcome = run::check(&arguments.check)?;
        output::text(&outcome.report(report.as_deref())?)?;
        return Ok(outcome.exit_code());
    }
    if let Some(names) = arguments.bites.clone() {
        return prove(arguments, names).await;
    }
    // Wrong arguments end with 2, as clap's own do: 1 says that the drill has found something.
    let options = match arguments.options() {
        Ok(options) => options,
        Err(error) => {
            output::note(format_args!("sluice: {}", error_chain(error.as_ref())));
            return Ok(ExitCode::from(2));
        }
    };
    let stop = CancellationToken::new();
    let mut signals = Signals::install()?;
    let drill = run::run(&options, &stop);
    tokio::pin!(drill);
    let outcome = tokio::select! {
        outcome = &mut drill => outcome?,
        () = signals.asked() => {
            output::note(format_args!("\nstopping; to judge what there is: {}", check(&options)));
            stop.cancel();
            // Waited for: the drill stops its cluster and writes the records that can be judged later.
            drill.await?
        }
    };
    let kept = || format!("the drill is over, {} judges it again, but", check(&options));
    output::text(&outcome.report(report.as_deref())?).with_context(kept)?;
    if !options.keep {
        outcome.forget()?;
    }
    // What was green has been forgotten, so only of the others there is something to judge again.
    if !outcome.is_green() {
        output::line(format_args!("judge again: {}", check(&options)))?;
    }
    Ok(outcome.exit_code())
}

/// The command that judges what was written.
fn check(options: &Options) -> String {
    format!("{} drill --check {}", paste::program(), paste::path(&options.dir))
}

async fn prove(arguments: Arguments, names: Vec<String>) -> anyhow::Result<ExitCode> {
    let seed = arguments.seed.unwrap_or_else(run::new_seed);
    let options = bites::Options {
        names,
        seed,
        seeds: arguments.seeds,
        bin_dir: arguments.own.bin_dir,
        dir: arguments.dir.unwrap_or_else(|| PathBuf::from(format!("bites-{seed}"))),
        command: paste::command(),
    };
    let stop = CancellationToken::new();
    let mut signals = Signals::install()?;
    let proof = bites::prove(&options, &stop);
    tokio::pin!(proof);
    let all_caught = tokio::select! {
        all_caught = &mut proof => all_caught?,
        () = signals.asked() => {
            stop.cancel();
            proof.await?
        }
    };
    Ok(if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn options(self) -> anyhow::Result<Options> {
        let seed = self.seed.unwrap_or_else(run::new_seed);
        let mut given = given::Wanted {
            gateways: self.given.gateway,
            // A key alone is what the environment says to another verb.
            api_key: self.given.api_key.filter(|_| !self.given.api.is_empty()).unwrap_or_default(),
            apis: self.given.api,
            trust: trust(self.given.ca.as_deref())?,
            ca: self.given.ca,
            admins: self.given.admin,
            pids: self.given.pid,
            restarts: self.given.restart,
            containers: self.given.container,
            store: self.given.store,
            token_secret: String::new(),
            spawn: self.given.spawn,
            roll_command: self.given.roll_command,
        };
        // Else a cluster would be started, and the processes named would be left alone without a word.
        if given.is_empty() && !(given.pids.is_empty() && given.containers.is_empty()) {
            bail!("--pid and --container belong to a deployment that is given: name it with --gateway");
        }
        // A cluster of its own has its own, whatever the environment says.
        if !given.is_empty() {
            given.token_secret = self.given.secret.read("sluice")?.unwrap_or_default();
        }
        let names_api = given.is_empty() || given.spawn.is_some() || !given.apis.is_empty();
        if !names_api && self.api_share.is_some_and(|share| share > 0.0) {
            bail!("--api-share needs to know where the API is: name it with --api and --api-key");
        }
        let usual = self.scenario.usual_plan();
        let options = Options {
            scenario: self.scenario,
            rounds: self.rounds,
            calm: run::CALM,
            only: self.only,
            plan: Plan {
                seed,
                clients: self.clients.unwrap_or(usual.clients),
                rate_per_s: self.rate.unwrap_or(usual.rate_per_s),
                rooms: self.rooms.unwrap_or(usual.rooms),
                crowd: self.crowd.unwrap_or(usual.crowd),
                crowd_rooms: self.crowd_rooms,
                watched: self.watched.unwrap_or(usual.watched),
                api_share: self.api_share.unwrap_or(usual.api_share),
                foreign: self.foreign,
                ..usual
            },
            habits: self.habits,
            slow_links: Vec::new(),
            counts: [self.own.gateways, self.own.logics, self.own.tasks],
            engines: self.own.engines.engines(),
            secure: self.own.secure,
            bin_dir: self.own.bin_dir,
            previous: self.own.previous,
            settings: self.own.settings,
            given,
            dir: self.dir.unwrap_or_else(|| PathBuf::from(format!("drill-{seed}"))),
            keep: self.keep,
            command: paste::command(),
            quiet: self.quiet,
        };
        options.check()?;
        Ok(options)
    }
}
