//! The command line of Sluice: every verb is a module that parses its flags and calls a library. No rules live here.

mod check;
mod cluster;
mod health;
mod publish;
mod signals;
mod store;
mod subscribe;
mod target;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sluice, a self-hosted WebSocket real-time gateway
#[derive(Parser)]
#[command(name = "sluice", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Cluster(cluster::Arguments),
    Token(token::Arguments),
    Pub(publish::Arguments),
    Sub(subscribe::Arguments),
    Health(health::Arguments),
    Check(check::Arguments),
    Store(store::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing_level()).init();
    let outcome = match Arguments::parse().verb {
        Verb::Cluster(arguments) => cluster::run(arguments).await,
        Verb::Token(arguments) => token::run(arguments),
        Verb::Pub(arguments) => publish::run(arguments).await,
        Verb::Sub(arguments) => subscribe::run(arguments).await,
        Verb::Health(arguments) => health::run(arguments).await,
        Verb::Check(arguments) => check::run(arguments).await,
        Verb::Store(arguments) => store::run(arguments).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sluice: {error:#}");
        ExitCode::FAILURE
    })
}

fn tracing_level() -> tracing_subscriber::filter::LevelFilter {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    wanted.unwrap_or(tracing_subscriber::filter::LevelFilter::WARN)
}
