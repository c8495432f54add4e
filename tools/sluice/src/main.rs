//! The command line of Sluice: every verb is a module that parses its flags and calls a library. No rules live here.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod api_key;
mod certs;
mod check;
mod cluster;
#[cfg(feature = "dev")]
mod dev;
#[cfg(feature = "servers")]
mod drill;
mod engines;
#[cfg(test)]
mod examples;
mod health;
mod operate;
mod page;
mod paste;
mod publish;
#[cfg(feature = "dev")]
mod restart;
#[cfg(feature = "servers")]
mod roll;
#[cfg(feature = "dev")]
mod serve;
mod signals;
mod status;
#[cfg(any(feature = "dev", feature = "store"))]
mod store;
mod subscribe;
mod target;
mod token;
#[cfg(feature = "servers")]
mod top;
mod worker;

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use sluice_lifecycle::error_chain;
use sluice_program::{arguments, build, features};
use sluice_service::lines::{self, Lines};
use sluice_service::telemetry;

/// Sluice, a self-hosted WebSocket real-time gateway
#[derive(Parser)]
#[command(name = "sluice", version = BUILD.as_str(), after_help = HELP.as_str())]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

static BUILD: LazyLock<String> =
    LazyLock::new(|| build::describe(features!("dev", "servers", "store", "otel")));

static HELP: LazyLock<String> = LazyLock::new(|| {
    let first = if cfg!(feature = "dev") { "Try it: sluice dev\nRun it: sluice serve --init\n" } else { "" };
    format!("{first}Examples of each command: sluice help COMMAND\n\nsluice {}", BUILD.as_str())
});

/// Verbs say themselves what they do.
const USUAL_LEVEL: &str = "warn";

#[derive(Subcommand)]
enum Verb {
    // A process like those of the services: it has a runtime and a log of its own.
    #[cfg(feature = "dev")]
    Serve(serve::Arguments),
    #[command(flatten)]
    Command(Box<Command>),
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "dev")]
    Dev(dev::Arguments),
    Cluster(cluster::Arguments),
    Token(token::Arguments),
    Api(api::Arguments),
    ApiKey(api_key::Arguments),
    Pub(publish::Arguments),
    Cancel(publish::CancelArguments),
    Sub(subscribe::Arguments),
    Health(health::Arguments),
    Status(status::Arguments),
    Worker(worker::Arguments),
    #[cfg(feature = "servers")]
    Top(top::Arguments),
    Instances(operate::instances::Arguments),
    Duties(operate::duties::Arguments),
    Stop(operate::commands::Stop),
    Drain(operate::commands::Drain),
    Undrain(operate::commands::Undrain),
    Disconnect(operate::disconnect::Arguments),
    Check(check::Arguments),
    Certs(certs::Arguments),
    #[cfg(any(feature = "dev", feature = "store"))]
    Store(store::Arguments),
    #[cfg(feature = "servers")]
    Roll(Box<roll::Arguments>),
    #[cfg(feature = "servers")]
    Drill(Box<drill::Arguments>),
}

fn main() -> ExitCode {
    let verb = match arguments::parse::<Arguments>() {
        Ok(arguments) => arguments.verb,
        Err(code) => return ExitCode::from(code),
    };
    let code = match verb {
        #[cfg(feature = "dev")]
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Command(command) => begin(*command),
    };
    let code = code.unwrap_or_else(|error| {
        Lines::stderr().say(&format!("sluice: {}", error_chain(error.as_ref())));
        ExitCode::FAILURE
    });
    lines::flush();
    code
}

fn begin(command: Command) -> anyhow::Result<ExitCode> {
    telemetry::init_text(level(&command))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(command))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    if outlives_its_reader(&command) {
        telemetry::log_panics();
    }
    match command {
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Token(arguments) => token::run(arguments),
        Command::Api(arguments) => api::run(arguments).await,
        Command::ApiKey(arguments) => api_key::run(arguments),
        Command::Pub(arguments) => publish::run(arguments).await,
        Command::Cancel(arguments) => publish::cancel(arguments).await,
        Command::Sub(arguments) => subscribe::run(arguments).await,
        Command::Health(arguments) => health::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Worker(arguments) => worker::run(arguments).await,
        #[cfg(feature = "servers")]
        Command::Top(arguments) => top::run(arguments).await,
        Command::Instances(arguments) => operate::instances::run(arguments).await,
        Command::Duties(arguments) => operate::duties::run(arguments).await,
        Command::Stop(arguments) => operate::commands::stop(arguments).await,
        Command::Drain(arguments) => operate::commands::drain(arguments).await,
        Command::Undrain(arguments) => operate::commands::undrain(arguments).await,
        Command::Disconnect(arguments) => operate::disconnect::run(arguments).await,
        Command::Check(arguments) => check::run(arguments).await,
        Command::Certs(arguments) => certs::run(arguments),
        #[cfg(any(feature = "dev", feature = "store"))]
        Command::Store(arguments) => store::run(arguments).await,
        #[cfg(feature = "servers")]
        Command::Roll(arguments) => roll::run(*arguments).await,
        #[cfg(feature = "servers")]
        Command::Drill(arguments) => drill::run(*arguments).await,
    }
}

/// Whether others depend on this process, so that nothing may hold it up, not even its own panic.
fn outlives_its_reader(command: &Command) -> bool {
    match command {
        #[cfg(feature = "dev")]
        Command::Dev(_) => true,
        Command::Cluster(_) => true,
        _ => false,
    }
}

/// What is logged unless `RUST_LOG` says otherwise.
#[cfg(feature = "dev")]
fn level(command: &Command) -> &'static str {
    if let Command::Dev(arguments) = command { arguments.level() } else { USUAL_LEVEL }
}

#[cfg(not(feature = "dev"))]
fn level(_command: &Command) -> &'static str {
    USUAL_LEVEL
}
