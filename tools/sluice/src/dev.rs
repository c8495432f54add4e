//! `sluice dev`: everything in one process, for whoever wants to try it. Flags and words only; the library does the work.

mod output;
mod restart;

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use sluice_dev::{Dev, Error, Options};
use sluice_lifecycle::{Lifecycle, Report, Signals, StopReason, WATCHDOG_MARGIN, arm_watchdog, error_chain};
use sluice_service::lines::{self, Lines};
use tokio::sync::broadcast::error::RecvError;

use output::Output;

/// Run gateway, logic and task in one process on embedded parts: nothing to install, for development only
///
/// Listens on loopback and lets everybody in. Messages are in ./sluice-dev.db and survive a kill. A page shows what
/// happens; SIGINT, SIGTERM or a closed terminal stops everything in order and exits with 0.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  sluice dev
  sluice dev --gateways 3 --dir ./data
  sluice dev --memory --port 9000
  sluice dev --origin http://localhost:5173   # lets in the pages of a front end's own server
  sluice dev restart gateway-2   # in another terminal: roll one service, clients move
  sluice dev --json --dir ./data | head -1 | jq .   # for programs")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Subcommand)]
enum Verb {
    Restart(restart::Arguments),
}

#[derive(clap::Args)]
struct Run {
    /// Folder of the data and of what has to be remembered, as ports and the secret of tokens
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Keep messages in memory: they are gone with the process, no promise holds
    #[arg(long)]
    memory: bool,
    /// How many gateways
    #[arg(long, default_value_t = 2, value_name = "N")]
    gateways: usize,
    /// Client port of the first gateway; without it the one of last time, else 8080, else a free one; 0: a free one
    #[arg(long)]
    port: Option<u16>,
    /// Where to listen: an address of loopback
    #[arg(long, default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    host: IpAddr,
    /// A page of this origin may connect, as browsers send it: http://localhost:5173; may be repeated
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Write one JSON object with the addresses, and the log to standard error
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What is logged. Programs want to read afterwards what happened; people see stages and the reason of a stop in the
    /// output, and would read them twice. That an upgrade is refused they see nowhere else: a browser hides why.
    pub(crate) fn level(&self) -> &'static str {
        if self.run.json {
            "info"
        } else {
            "warn,sluice_gateway::refusals=info,sluice_lifecycle::report=off,sluice_lifecycle::state=off"
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Some(Verb::Restart(arguments)) => restart::run(arguments).await,
        None => live(arguments.run).await,
    }
}

async fn live(run: Run) -> anyhow::Result<ExitCode> {
    let signals = Signals::install()?;
    let (lifecycle, engine) = Lifecycle::new(sluice_dev::plan());
    signals.drive(&lifecycle);
    // Nobody else ends this process when a stop hangs: there is no platform around it.
    arm_watchdog(&lifecycle, WATCHDOG_MARGIN, lines::flush)?;
    let output = Output::new(run.json);
    let Run { dir, memory, gateways, port, host, origins, json: _ } = run;
    let options = Options { dir, memory, gateways, host, port, origins };
    let started = async {
        let dev = Dev::start(options, &lifecycle).await?;
        tell(&dev, &output, &lifecycle).await;
        Ok::<_, Error>(())
    };
    let run = async { Ok::<_, Error>(engine.run().await) };
    // A start that fails does so before there is anything to release: what it began ends with the engine, which would
    // only say the cause twice more.
    Ok(match tokio::try_join!(run, started) {
        Ok((report, ())) => ended(&output, &report),
        Err(error) => refused(&error),
    })
}

/// Says what happens until nothing more can.
async fn tell(dev: &Dev, output: &Output, lifecycle: &Lifecycle) {
    if lifecycle.stopping().is_cancelled() {
        return;
    }
    // Before the banner: what happens while it is written is told after it.
    let mut events = dev.events();
    output.running(dev);
    let mut progress = lifecycle.progress();
    let stopping = lifecycle.stopping();
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            // Looked at first, so that no service ends before it was said that all of them stop.
            () = stopping.cancelled(), if !told => {
                told = true;
                output.stopping();
            }
            event = events.recv() => match event {
                Ok(event) => output.event(&event, told),
                // A terminal that stood still has missed some lines. None is worth an end.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = progress.wait_for(|progress| progress.stage == sluice_lifecycle::Stage::Gone) => return,
        }
    }
}

fn ended(output: &Output, report: &Report) -> ExitCode {
    output.stopped(report);
    if let StopReason::Failed(..) = report.reason {
        Lines::stderr().say(&format!("sluice dev: {}", report.reason));
    }
    ExitCode::from(u8::try_from(report.exit_code()).unwrap_or(1))
}

fn refused(error: &Error) -> ExitCode {
    // A terminal may show ^C before it.
    let lead = if std::io::stderr().is_terminal() { "\r" } else { "" };
    Lines::stderr().say(&format!("{lead}sluice dev: {}", error_chain(error)));
    ExitCode::from(error.exit_code())
}
