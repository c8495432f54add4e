//! A container, by the program `docker`: signals, ends, networks. One command each, each with a bound.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use sluice_launcher::Signal;
use tokio::process::Command;
use tokio::time::timeout;

/// Longest time for a command that does not wait for anything.
const QUICK: Duration = Duration::from_secs(20);

async fn docker(arguments: &[&str], within: Duration) -> anyhow::Result<String> {
    let said = || format!("docker {}", arguments.join(" "));
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(within, output).await.with_context(|| format!("{} took too long", said()))?;
    let output = output.with_context(said)?;
    if !output.status.success() {
        bail!("{}: {}", said(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Sends a signal; standing still and going on are the container's, so that all its processes do.
pub(super) async fn signal(name: &str, signal: Signal) -> anyhow::Result<()> {
    let verb = match (signal == Signal::SIGSTOP, signal == Signal::SIGCONT) {
        (true, _) => vec!["pause"],
        (_, true) => vec!["unpause"],
        _ => vec!["kill", "-s", signal.as_str()],
    };
    docker(&[&*verb, &[name]].concat(), QUICK).await.map(drop)
}

/// Its exit code, once it has ended.
pub(super) async fn ended(name: &str, within: Duration) -> anyhow::Result<i32> {
    let code = docker(&["wait", name], within).await?;
    code.parse().with_context(|| format!("docker wait {name}: {code:?} is no exit code"))
}

pub(super) async fn start(name: &str) -> anyhow::Result<()> {
    docker(&["start", name], QUICK).await.map(drop)
}

/// Takes it off all its networks, and says which they were.
pub(super) async fn disconnect(name: &str) -> anyhow::Result<Vec<String>> {
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let networks = docker(&["inspect", "-f", format, name], QUICK).await?;
    let networks: Vec<String> = networks.split_whitespace().map(str::to_owned).collect();
    for network in &networks {
        docker(&["network", "disconnect", "-f", network, name], QUICK).await?;
    }
    Ok(networks)
}

pub(super) async fn connect(name: &str, networks: &[String]) -> anyhow::Result<()> {
    for network in networks {
        docker(&["network", "connect", network, name], QUICK).await?;
    }
    Ok(())
}
