//! `sluice duties`: who owns what, and taking it from its owner.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};
use sluice_program::output;

use super::{Admin, Authorized};
use crate::status::aligned;

/// Show who owns which duty, or take duties from their owners
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sluice duties
  sluice duties --admin http://logic-1:7071 --json | jq '.[] | select(.owner_lives | not)'"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    admin: Admin,
    /// The page as it is
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Take a duty from its owner; another task takes it at once
    ///
    /// Safe at any moment: what a duty does is exact whoever does it. With --all --emergency, for when the old and the
    /// new owners are stuck: every duty is taken from its owner, and registrations of those who are gone are removed.
    #[command(after_help = "Examples:
  sluice duties release sweep --token-file /etc/sluice/admin.token
  sluice duties release --all --emergency --token-file /etc/sluice/admin.token")]
    Release(Release),
}

#[derive(clap::Args)]
struct Release {
    /// sweep, reap, due/0 … due/7
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Every duty; needs --emergency
    #[arg(long, requires = "emergency")]
    all: bool,
    /// Yes, I know that no owner is asked
    #[arg(long, requires = "all")]
    emergency: bool,
    #[command(flatten)]
    admin: Authorized,
}

/// Before anything is done.
const WARNING: &str = "EMERGENCY RELEASE: every duty is taken from its owner, and registrations of the gone are \
                       removed. Nothing is lost or done twice; tasks take the duties again within a second. An owner \
                       that is stuck should be stopped or killed.";

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Some(Verb::Release(release)) => release.run().await?,
        None => {
            let page = arguments.admin.get("/admin/duties").await?;
            if arguments.json {
                output::line(page)?;
            } else {
                output::text(&table(&page))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Release {
    async fn run(self) -> anyhow::Result<()> {
        if self.all {
            output::note(WARNING);
            let wish = json!({ "command": "release", "target": "all", "emergency": true });
            let said = self.admin.post("/admin/command", &wish.to_string()).await?;
            for one in said["released"].as_array().into_iter().flatten() {
                output::line(taken(&one["duty"], &one["owner"]))?;
            }
            for id in said["registrations_removed"].as_array().into_iter().flatten() {
                output::line(format_args!("registration of {} removed", id.as_str().unwrap_or_default()))?;
            }
            return Ok(());
        }
        let name = self.name.unwrap_or_default();
        // What is no name of a duty is none of a path either.
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/') {
            bail!("{name:?} is no duty: sweep, reap, due/0 … due/7");
        }
        let said = self.admin.post(&format!("/admin/duties/{name}/release"), "").await?;
        output::line(taken(&said["released"], &said["owner"]))?;
        Ok(())
    }
}

fn taken(duty: &Value, owner: &Value) -> String {
    format!("{} taken from {}", duty.as_str().unwrap_or_default(), owner.as_str().unwrap_or_default())
}

fn table(page: &Value) -> String {
    let mut rows = vec![["DUTY", "OWNER", "LIVES"].map(String::from)];
    for one in page.as_array().into_iter().flatten() {
        let owner = one["owner"].as_str().unwrap_or("nobody");
        let lives = match (one["owner"].is_null(), one["owner_lives"].as_bool()) {
            (true, _) => "",
            (false, Some(true)) => "yes",
            (false, _) => "no",
        };
        rows.push([one["duty"].as_str().unwrap_or_default(), owner, lives].map(String::from));
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_whether_an_owner_lives() {
        let page = json!([
            {"duty": "sweep", "owner": "task-a-1", "owner_lives": true},
            {"duty": "reap", "owner": "task-b-1", "owner_lives": false},
            {"duty": "due/0", "owner": null, "owner_lives": false},
        ]);
        let text = table(&page);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["DUTY OWNER LIVES", "sweep task-a-1 yes", "reap task-b-1 no", "due/0 nobody"]);
    }
}
