//! `sluice check`: lets each service look at its own configuration, with the code that would run, and holds those that
//! must agree against each other.

mod differences;
mod kill_timer;
mod kubernetes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output};
use std::time::Duration;

use anyhow::Context as _;
use rand::distr::{Alphanumeric, SampleString};
use sluice_launcher::{Service, service_binary};
use sluice_lifecycle::TOTAL_DEFAULT;
use sluice_program::output;
use tokio::process::Command;

use differences::{Compared, differences};
use kill_timer::kill_timers;
use kubernetes::findings;

/// Check the configuration of the services for mistakes and contradictions; nothing is started
///
/// What must be the same everywhere is compared between all that is given. Exit code 0: all can be used; 2: not.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice check   # what the environment says, for all three
  sluice check --logic /etc/sluice/logic.toml --gateway /etc/sluice/gateway.toml
  sluice check --gateway gateway-1.toml --gateway gateway-2.toml --connect   # and try each server once
  SLUICE_SHUTDOWN__KILL_AFTER_MS=10000 sluice check   # is each stop over before the platform kills?
  sluice check --platform compose.yaml --platform sluice-task.service   # the same, by their own files
  kubectl kustomize overlays/mine | sluice check --kubernetes -   # stops and rolls of its pods")]
pub(crate) struct Arguments {
    /// Configuration file of a gateway; may be repeated
    #[arg(long, value_name = "FILE")]
    gateway: Vec<PathBuf>,
    /// Configuration file of a logic; may be repeated
    #[arg(long, value_name = "FILE")]
    logic: Vec<PathBuf>,
    /// Configuration file of a task; may be repeated
    #[arg(long, value_name = "FILE")]
    task: Vec<PathBuf>,
    /// Unit of systemd, Compose file or manifest of Kubernetes, whose kill timer has to leave time for a stop; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    platform: Vec<PathBuf>,
    /// Manifests of Kubernetes, rendered; `-` reads standard input; may be repeated. Of each Deployment and StatefulSet of
    /// a service it says what would kill a stop before it is over, take one away before its replacement serves, or send
    /// clients to one that has closed its door. Alone it looks at no other configuration
    #[arg(long, value_name = "FILE")]
    kubernetes: Vec<PathBuf>,
    /// Connect once to each server that is configured, and say what it answers
    #[arg(long)]
    connect: bool,
    /// Where the service binaries are, unless beside this one
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// A configuration to be checked.
struct Subject {
    service: Service,
    /// `None`: the environment.
    file: Option<PathBuf>,
    binary: PathBuf,
}

impl Subject {
    /// What people call it.
    fn name(&self) -> String {
        match &self.file {
            Some(file) => format!("{} {}", self.service, file.display()),
            None => self.service.to_string(),
        }
    }

    async fn run(&self, flags: &[&str]) -> std::io::Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(flags);
        if let Some(file) = &self.file {
            command.arg("--config").arg(file);
        }
        command.output().await
    }

    /// Every key with its value; nothing where the configuration cannot be read, which its own check says.
    async fn compared(&self, salt: &str) -> std::io::Result<Compared> {
        let output = self.run(&["--print-comparable", salt]).await?;
        let values = serde_json::from_slice::<BTreeMap<String, String>>(&output.stdout).unwrap_or_default();
        Ok(Compared { name: self.name(), values })
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let flags: &[&str] = if arguments.connect { &["--check", "--connect"] } else { &["--check"] };
    let (platforms, manifests) = (arguments.platform.clone(), arguments.kubernetes.clone());
    let subjects = arguments.subjects()?;
    // Secrets are compared as hashes. A salt of this one run: what is printed says nothing tomorrow.
    let salt = Alphanumeric.sample_string(&mut rand::rng(), 22);
    let (mut fine, mut compared, mut totals) = (true, Vec::new(), Vec::new());
    for subject in &subjects {
        let output = subject.run(flags).await?;
        let usable = output.status.success();
        fine &= usable;
        output::line(format_args!("{}: {}", subject.name(), if usable { "fine" } else { "not usable" }))?;
        for line in String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).lines() {
            output::line(format_args!("  {line}"))?;
        }
        // Of one that is not usable too: what it says is still held against the others.
        let values = subject.compared(&salt).await?;
        totals.extend(values.total().map(|total| (subject.service, total)));
        compared.push(values);
    }
    for platform in platforms {
        fine &= leaves_time(&platform, &totals)?;
    }
    for manifests in manifests {
        fine &= survives(&manifests, &totals)?;
    }
    let differences = differences(&compared);
    fine &= differences.iter().all(|difference| difference.is_allowed);
    for difference in differences {
        output::line(difference)?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Whether a platform's kill timers come after the longest stop of whom they are for; says which do not.
fn leaves_time(file: &Path, totals: &[(Service, Duration)]) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--platform {}", file.display()))?;
    let timers = kill_timers(&text, |name| std::env::var(name).ok())
        .map_err(|why| anyhow::anyhow!("--platform {}: {why}", file.display()))?;
    let short: Vec<_> =
        timers.iter().filter_map(|timer| timer.against(longest(totals, timer.service)?)).collect();
    let verdict = if short.is_empty() { "leaves time for a stop" } else { "kills before a stop is over" };
    output::line(format_args!("{}: {verdict}", file.display()))?;
    for short in &short {
        output::line(format_args!("  {short}"))?;
    }
    Ok(short.is_empty())
}

/// The longest stop of a service, or of all.
fn longest(totals: &[(Service, Duration)], service: Option<Service>) -> Option<Duration> {
    let own = |(of, _): &&(Service, Duration)| service.is_none_or(|service| service == *of);
    // Of one that was not checked nothing is known: it is taken for one like the others.
    let total = totals.iter().filter(own).map(|(_, total)| *total).max();
    total.or(totals.iter().map(|(_, total)| *total).max())
}

/// Whether pods end and are replaced without anybody noticing; says what is in the way.
fn survives(file: &Path, totals: &[(Service, Duration)]) -> anyhow::Result<bool> {
    let is_input = file == Path::new("-");
    let text =
        if is_input { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.with_context(|| format!("--kubernetes {}", file.display()))?;
    let total = |service| longest(totals, Some(service)).unwrap_or(TOTAL_DEFAULT);
    let found =
        findings(&text, total).map_err(|why| anyhow::anyhow!("--kubernetes {}: {why}", file.display()))?;
    let fine = found.iter().all(|finding| finding.is_allowed);
    let verdict =
        if fine { "pods are stopped and rolled in time" } else { "a stop or a roll of its pods is noticed" };
    let name = if is_input { "manifests".to_owned() } else { file.display().to_string() };
    output::line(format_args!("{name}: {verdict}"))?;
    for finding in &found {
        output::line(format_args!("  {finding}"))?;
    }
    Ok(fine)
}

impl Arguments {
    /// With files given, only those; with manifests alone none; else what the environment says, for all.
    fn subjects(self) -> anyhow::Result<Vec<Subject>> {
        let all =
            [(Service::Gateway, self.gateway), (Service::Logic, self.logic), (Service::Task, self.task)];
        let given = all.iter().any(|(_, files)| !files.is_empty());
        let mut subjects = Vec::new();
        if !given && !self.kubernetes.is_empty() && self.platform.is_empty() {
            return Ok(subjects);
        }
        for (service, files) in all {
            // Without a file the environment is asked, once for each; with one, who was not named is left alone.
            let files: Vec<_> = if given { files.into_iter().map(Some).collect() } else { vec![None] };
            for file in files {
                let binary = service_binary(service, self.bin_dir.as_deref())?;
                subjects.push(Subject { service, file, binary });
            }
        }
        Ok(subjects)
    }
}
