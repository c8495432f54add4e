//! `sluice-bench` measures Sluice: real services, real stores, clients in processes of their own. Each figure comes
//! from several windows after a warm-up. It judges nothing and fails only when it could not measure.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod control;
mod floor;
mod habit;
mod honest;
mod load;
mod machine;
mod measure;
mod report;
mod spec;
mod token;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use sluice_launcher::Setting;
use sluice_lifecycle::error_chain;
use sluice_program::{arguments, build, features, output};
use tokio::signal::unix::{SignalKind, signal};

/// Measures Sluice: durable publishes, deliveries, idle connections, connects, latency end to end, bad neighbours, stops
#[derive(Parser)]
#[command(name = "sluice-bench", version = BUILD.as_str(), after_help = HELP.as_str())]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    common: Common,
}

static BUILD: LazyLock<String> = LazyLock::new(|| build::describe(features!()));

static HELP: LazyLock<String> = LazyLock::new(|| format!("{EXAMPLES}\n\nsluice-bench {}", BUILD.as_str()));

const EXAMPLES: &str = "Examples:
  sluice-bench
  sluice-bench publish --runs 5 --seconds 10 --json
  sluice-bench publish --via api --connections 64   # by the HTTP API, beside WebSockets
  sluice-bench latency --gateway wss://rooms.example.org/ws --ca ca.pem   # of a deployment that runs, over TLS
  sluice-bench stops --json
  sluice-bench publish --rate 5000 --compare-tls   # what encrypting every link costs";

/// What all measurements share.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Windows measured of each figure; the table shows the least, the median and the most
    #[arg(long, global = true, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of a window, seconds
    #[arg(long, global = true, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Load before the first window, seconds
    #[arg(long, global = true, default_value_t = 3, value_name = "S")]
    warmup: u32,
    /// Where the service binaries are, unless beside this one or on PATH
    #[arg(long, global = true, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Folder for the data of the stores; without it a temporary one, removed at the end
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Configuration of the services, as of `sluice cluster`; may be repeated
    #[arg(long = "set", global = true, value_name = "SERVICE.KEY=VALUE")]
    settings: Vec<Setting>,
    /// Encrypt every link, with certificates and passwords, as `sluice cluster --secure` does
    #[arg(long, global = true)]
    secure: bool,
    /// Write one JSON object instead of the table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// All of them with their defaults (also without a subcommand)
    All,
    Publish(measure::publish::Arguments),
    Fanout(measure::fanout::Arguments),
    Idle(measure::idle::Arguments),
    Connects(measure::connects::Arguments),
    Latency(measure::latency::Arguments),
    Neighbour(measure::neighbour::Arguments),
    Stops(measure::stops::Arguments),
    /// Clients or a floor, told on standard input what to do
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    let arguments: Arguments = match arguments::parse() {
        Ok(arguments) => arguments,
        Err(code) => return ExitCode::from(code),
    };
    let outcome = match arguments.what {
        Some(What::Worker) => work(),
        what => measure(what.unwrap_or(What::All), &arguments.common),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("sluice-bench: {}", error_chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn work() -> anyhow::Result<()> {
    let (control, job) = control::Control::open()?;
    match job {
        spec::Job::Load(spec) => load::run(control, spec),
        spec::Job::Floor(spec) => floor::run(control, spec),
        spec::Job::Honest(place) => honest::run(control, place),
        spec::Job::Habit(name, place) => habit::run(control, &name, &place),
    }
}

fn measure(what: What, common: &Common) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            report = measure::run(what, common) => {
                let report = report?;
                if common.json { report.print_json() } else { report.print_table() }
            }
            _ = term.recv() => bail!("stopped by SIGTERM"),
            _ = int.recv() => bail!("stopped by SIGINT"),
        }
    })
}
