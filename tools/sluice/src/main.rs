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
#[cfg(feature = "servers")]
mod roll;
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

static BUILD: LazyLock<String> = LazyLock::new(|| build::describe(features!("dev", "servers", "store")));

static HELP: LazyLock<String> = LazyLock::new(|| {
    let first = if cfg!(feature = "dev") { "Try it: sluice dev\n" } else { "" };
    format!("{first}Examples of each command: sluice help COMMAND\n\nsluice {}", BUILD.as_str())
});

/// Verbs say themselves what they do.
const USUAL_LEVEL: &str = "warn";

#[derive(Subcommand)]
enum Verb {
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

#[tokio::main]
async fn main() -> ExitCode {
    let verb = match arguments::parse::<Arguments>() {
        Ok(arguments) => arguments.verb,
        Err(code) => return ExitCode::from(code),
    };
    let code = match telemetry::init_text(level(&verb)) {
        Ok(()) => run(verb).await,
        Err(error) => Err(error.into()),
    };
    let code = code.unwrap_or_else(|error| {
        Lines::stderr().say(&format!("sluice: {}", error_chain(error.as_ref())));
        ExitCode::FAILURE
    });
    lines::flush();
    code
}

async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    if outlives_its_reader(&verb) {
        telemetry::log_panics();
    }
    match verb {
        #[cfg(feature = "dev")]
        Verb::Dev(arguments) => dev::run(arguments).await,
        Verb::Cluster(arguments) => cluster::run(arguments).await,
        Verb::Token(arguments) => token::run(arguments),
        Verb::Api(arguments) => api::run(arguments).await,
        Verb::ApiKey(arguments) => api_key::run(arguments),
        Verb::Pub(arguments) => publish::run(arguments).await,
        Verb::Cancel(arguments) => publish::cancel(arguments).await,
        Verb::Sub(arguments) => subscribe::run(arguments).await,
        Verb::Health(arguments) => health::run(arguments).await,
        Verb::Status(arguments) => status::run(arguments).await,
        Verb::Worker(arguments) => worker::run(arguments).await,
        #[cfg(feature = "servers")]
        Verb::Top(arguments) => top::run(arguments).await,
        Verb::Instances(arguments) => operate::instances::run(arguments).await,
        Verb::Duties(arguments) => operate::duties::run(arguments).await,
        Verb::Stop(arguments) => operate::commands::stop(arguments).await,
        Verb::Drain(arguments) => operate::commands::drain(arguments).await,
        Verb::Undrain(arguments) => operate::commands::undrain(arguments).await,
        Verb::Disconnect(arguments) => operate::disconnect::run(arguments).await,
        Verb::Check(arguments) => check::run(arguments).await,
        Verb::Certs(arguments) => certs::run(arguments),
        #[cfg(any(feature = "dev", feature = "store"))]
        Verb::Store(arguments) => store::run(arguments).await,
        #[cfg(feature = "servers")]
        Verb::Roll(arguments) => roll::run(*arguments).await,
        #[cfg(feature = "servers")]
        Verb::Drill(arguments) => drill::run(*arguments).await,
    }
}

/// Whether others depend on this process, so that nothing may hold it up, not even its own panic.
fn outlives_its_reader(verb: &Verb) -> bool {
    match verb {
        #[cfg(feature = "dev")]
        Verb::Dev(_) => true,
        Verb::Cluster(_) => true,
        _ => false,
    }
}

/// What is logged unless `RUST_LOG` says otherwise.
#[cfg(feature = "dev")]
fn level(verb: &Verb) -> &'static str {
    if let Verb::Dev(arguments) = verb { arguments.level() } else { USUAL_LEVEL }
}

#[cfg(not(feature = "dev"))]
fn level(_verb: &Verb) -> &'static str {
    USUAL_LEVEL
}
