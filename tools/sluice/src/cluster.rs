//! `sluice cluster`: a whole private Sluice that runs until a signal. Flags, output and commands only; the launcher
//! does the work.

mod commands;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use sluice_launcher::{Cluster, Options, Setting};
use sluice_program::secret::TokenSecret;

use crate::engines::EngineArguments;
use crate::signals::Signals;
use commands::Commands;
use output::Output;

/// Start a private Sluice: NATS, etcd, Redis, PostgreSQL and the services, on free loopback ports
///
/// Runs until SIGINT or SIGTERM, then stops everything in order and exits with 0. A child that ends is reported.
/// A line {"start":"logic"} on standard input (not a terminal) starts a replacement; {"start":"gateway-2"} one in that
/// very place. The end of standard input is no stop. Without a token secret it makes one of its own.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice cluster
  sluice cluster --gateways 1 --logics 1 --tasks 1 --dir ./data
  sluice cluster --json --set gateway.drain.rate_per_s=50 --set all.etcd.lease_ttl_s=2
  sluice cluster --secure   # every link encrypted: services and servers show certificates, servers ask for passwords
  sluice cluster --etcds 3 --natses 3 --redis sentinel   # servers that outlive one of their own
  sluice cluster --etcds 3 --patroni   # a PostgreSQL that outlives its primary
  sluice cluster --gateways 0 --logics 0 --tasks 0   # the servers alone")]
pub(crate) struct Arguments {
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
    /// Folder for data and logs, used again when it exists; without it a temporary one, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where the service binaries are, unless beside this one or on PATH
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Configuration of the services: gateway, logic, task, one of them (logic-1) or all; may be repeated
    #[arg(long = "set", value_name = "SERVICE.KEY=VALUE")]
    settings: Vec<Setting>,
    /// Encrypt every link, with certificates and passwords made in the folder: no service and no server lets a stranger in
    #[arg(long)]
    secure: bool,
    /// Start children again that end by themselves
    #[arg(long)]
    restart: bool,
    /// Write one JSON object per line: the addresses first, then events
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secret: TokenSecret,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Before anything starts: a Ctrl-C while servers come up must still stop them.
    let mut signals = Signals::install()?;
    let output = Output::new(arguments.json);
    let cluster = Cluster::new(Options {
        gateways: arguments.gateways,
        logics: arguments.logics,
        tasks: arguments.tasks,
        engines: arguments.engines.engines(),
        dir: arguments.dir,
        bin_dir: arguments.bin_dir,
        previous: None,
        settings: arguments.settings,
        restart: arguments.restart,
        log_readers: false,
        token_secret: arguments.secret.read("sluice")?,
        secure: arguments.secure,
        doors: None,
    })?;
    // Before the launch, so that no end of a process falls between two looks.
    let mut events = cluster.events();
    output.starting(cluster.dir());
    let launched = tokio::select! {
        launched = cluster.launch() => Some(launched),
        () = signals.asked() => None,
    };
    if let Some(Ok(())) = launched {
        output.running(&cluster)?;
        let mut commands = Commands::listen(arguments.json)?;
        loop {
            tokio::select! {
                biased;
                () = signals.asked() => break,
                Ok(event) = events.recv() => output.event(&event),
                command = commands.next() => match command {
                    Ok(start) => cluster.request_start(start.service, start.index),
                    Err(why) => output.not_understood(&why),
                },
            }
        }
    }
    output.stopping();
    let stopped = cluster.stop().await;
    // How processes ended during a start that failed is in the error already.
    let shown = matches!(launched, Some(Ok(())));
    while let Ok(event) = events.try_recv() {
        if shown {
            output.event(&event);
        }
    }
    output.stopped(&stopped);
    // After the stop: whatever failed, nothing of it keeps running.
    launched.transpose()?;
    Ok(if stopped.killed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
