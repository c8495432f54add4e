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

/// A network that a container is on, and what it is called there: the engine forgets both when it is taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: String,
    aliases: Vec<String>,
}

impl Attachment {
    /// Of a line `network alias alias …`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Self { network: words.next()?, aliases: words.collect() })
    }
}

/// Takes it off all its networks, and says which they were.
pub(super) async fn disconnect(name: &str) -> anyhow::Result<Vec<Attachment>> {
    let format = "{{range $name, $at := .NetworkSettings.Networks}}\
                  {{$name}}{{range $at.Aliases}} {{.}}{{end}}{{println}}{{end}}";
    let said = docker(&["inspect", "-f", format, name], QUICK).await?;
    let attachments: Vec<Attachment> = said.lines().filter_map(Attachment::parse).collect();
    for Attachment { network, .. } in &attachments {
        docker(&["network", "disconnect", "-f", network, name], QUICK).await?;
    }
    Ok(attachments)
}

/// Brings it back to them, under the names that others look for.
pub(super) async fn connect(name: &str, attachments: &[Attachment]) -> anyhow::Result<()> {
    for Attachment { network, aliases } in attachments {
        let aliases = aliases.iter().flat_map(|alias| ["--alias", alias.as_str()]);
        let arguments: Vec<&str> =
            ["network", "connect"].into_iter().chain(aliases).chain([network.as_str(), name]).collect();
        docker(&arguments, QUICK).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_network_and_what_a_container_is_called_there() {
        let of = |line| Attachment::parse(line).map(|at| (at.network, at.aliases.join("+")));
        assert_eq!(of("deploy_default redis 3f2a"), Some(("deploy_default".into(), "redis+3f2a".into())));
        assert_eq!(of("bridge"), Some(("bridge".into(), String::new())));
        assert_eq!(of(""), None);
    }
}
