//! `sluice stop`, `drain`, `undrain`: a command for one instance, carried by whichever is asked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use sluice_program::output;
use tokio::time::sleep;

use super::Authorized;
use crate::page;

/// Between two looks whether a drain is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Stop an instance in order, as SIGTERM does
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice instances     # who is there
  sluice stop gateway-host-0123456789abcdef --token-file /etc/sluice/admin.token")]
pub(crate) struct Stop {
    /// Its id, as `sluice instances` names it
    id: String,
    #[command(flatten)]
    admin: Authorized,
}

/// Move the clients and the work of an instance to others; the process stays
///
/// It is not ready any more, a gateway moves its clients at the pace of drain.rate_per_s and
/// drain.subscriptions_per_s, a task gives its duties back and fetches nothing, until `sluice undrain` or a stop.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice drain gateway-host-0123456789abcdef --token-file /etc/sluice/admin.token
  sluice drain --wait-s 30 --token-file /etc/sluice/admin.token      # the one at --admin; for a preStop hook")]
pub(crate) struct Drain {
    /// Its id, as `sluice instances` names it; without it the instance at --admin itself
    id: Option<String>,
    /// Wait until the instance at --admin may be killed without anybody noticing, at most so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "id")]
    wait_s: Option<u64>,
    #[command(flatten)]
    admin: Authorized,
}

/// Have an instance that was drained take clients and work again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice undrain gateway-host-0123456789abcdef --token-file /etc/sluice/admin.token
  sluice undrain --admin http://gateway-1:8081 --token-file /etc/sluice/admin.token")]
pub(crate) struct Undrain {
    /// Its id, as `sluice instances` names it; without it the instance at --admin itself
    id: Option<String>,
    #[command(flatten)]
    admin: Authorized,
}

pub(crate) async fn stop(arguments: Stop) -> anyhow::Result<ExitCode> {
    command(&arguments.admin, Some(&arguments.id), "stop").await
}

pub(crate) async fn undrain(arguments: Undrain) -> anyhow::Result<ExitCode> {
    command(&arguments.admin, arguments.id.as_deref(), "undrain").await
}

pub(crate) async fn drain(arguments: Drain) -> anyhow::Result<ExitCode> {
    let code = command(&arguments.admin, arguments.id.as_deref(), "drain").await?;
    if let Some(wait_s) = arguments.wait_s {
        until_safe(&arguments.admin, Duration::from_secs(wait_s)).await?;
        output::line("it may be killed")?;
    }
    Ok(code)
}

async fn command(admin: &Authorized, id: Option<&str>, command: &str) -> anyhow::Result<ExitCode> {
    let path = match id {
        None => format!("/admin/{command}"),
        // What is no id is no part of a path either.
        Some(id) if !id.is_empty() && id.bytes().all(is_part_of_id) => {
            format!("/admin/instances/{id}/{command}")
        }
        Some(id) => bail!("{id:?} is no id: `sluice instances` names all"),
    };
    let said = admin.post(&path, "").await?;
    let target = said["target"].as_str().unwrap_or_default();
    output::line(format_args!("{target} is told to {command}"))?;
    Ok(ExitCode::SUCCESS)
}

fn is_part_of_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

async fn until_safe(admin: &Authorized, within: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let page = page::ask(&admin.admin.admin, admin.admin.within()).await;
        let why = match &page {
            Ok(page) if page["safe_to_kill"] == true => return Ok(()),
            Ok(page) => page.get("a_kill_would").and_then(Value::as_str).unwrap_or("it does not say"),
            Err(why) => why,
        };
        if begun.elapsed() >= within {
            bail!("not within {} s; a kill would: {why}", within.as_secs());
        }
        sleep(LOOK_EVERY).await;
    }
}
