//! A compose project, by the programs `docker` and `docker compose` or `docker-compose`, whichever are there: who
//! belongs to it, stopping one, bringing it up again. One command each, each with a bound.

mod inspect;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::instance::{Condition, Hold, Instance, Kind, Stopped};
pub(super) use inspect::Seen;

/// A question.
const QUICK: Duration = Duration::from_secs(20);
/// A stop, or a start: the engine and its patience come on top of our own times.
const LONG: Duration = Duration::from_secs(120);

/// A project and the program that knows it.
#[derive(Debug)]
pub(super) struct Compose {
    /// `docker compose` or `docker-compose`.
    program: &'static [&'static str],
    files: Vec<PathBuf>,
    project: Option<String>,
}

impl Compose {
    /// Finds the program; asks nothing of the project yet.
    pub(super) async fn find(files: &[PathBuf], project: Option<String>) -> anyhow::Result<Self> {
        if let Some(file) = files.iter().find(|file| !file.is_file()) {
            bail!("there is no {}: --file names a compose file", file.display());
        }
        for program in [["docker", "compose"].as_slice(), ["docker-compose"].as_slice()] {
            if run(program, &["version".into()], QUICK).await.is_ok() {
                return Ok(Self { program, files: files.to_vec(), project });
            }
        }
        bail!(
            "neither `docker compose` nor `docker-compose` answers: install one, or roll processes with --pid"
        )
    }

    async fn ask(&self, arguments: &[&str], within: Duration) -> anyhow::Result<String> {
        let files = self.files.iter().flat_map(|file| ["--file".to_owned(), file.display().to_string()]);
        let mut all: Vec<String> = files.collect();
        if let Some(project) = &self.project {
            all.extend(["--project-name".to_owned(), project.clone()]);
        }
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run(self.program, &all, within).await
    }

    /// All containers of the project, also those that do not run.
    pub(super) async fn containers(&self) -> anyhow::Result<Vec<Seen>> {
        let ids = self.ask(&["ps", "--all", "--quiet"], QUICK).await?;
        look(ids.lines()).await
    }

    async fn up(&self, service: &str) -> anyhow::Result<()> {
        self.ask(&["up", "--detach", "--no-deps", "--no-build", service], LONG).await.map(drop)
    }

    async fn of_service(&self, service: &str) -> anyhow::Result<Option<Seen>> {
        let ids = self.ask(&["ps", "--all", "--quiet", service], QUICK).await?;
        Ok(look(ids.lines()).await?.into_iter().next())
    }
}

/// The instances among the containers of a project: what runs a program of ours.
pub(super) fn instances(compose: &Arc<Compose>, seen: &[Seen]) -> anyhow::Result<Vec<Instance>> {
    let mut found: Vec<Instance> = Vec::new();
    for container in seen {
        let (Some(kind), Some(service)) = (Kind::of_program(&container.path), container.service()) else {
            continue;
        };
        if found.iter().any(|instance| instance.name == service) {
            bail!(
                "service {service} has several containers, and compose can only replace them together: give each \
                 a service of its own, as deploy/compose.cluster.yaml does"
            );
        }
        let now = Mutex::new(Now::of(container));
        let hold = Container { compose: Arc::clone(compose), service: service.to_owned(), now };
        found.push(Instance { name: service.to_owned(), kind, hold: Hold::Container(hold) });
    }
    Ok(found)
}

/// The one container of a service.
pub(super) struct Container {
    compose: Arc<Compose>,
    service: String,
    now: Mutex<Now>,
}

/// What changes when it is made anew.
#[derive(Clone)]
struct Now {
    id: String,
    admin: Option<String>,
}

impl Now {
    fn of(seen: &Seen) -> Self {
        Self { id: seen.id.clone(), admin: seen.admin_url() }
    }
}

impl Container {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admin(&self) -> Option<String> {
        self.now().admin.clone()
    }

    async fn seen(&self) -> anyhow::Result<Seen> {
        let id = self.now().id.clone();
        look([id.as_str()]).await?.pop().with_context(|| format!("the container of {} is gone", self.service))
    }

    pub(super) async fn identity(&self) -> anyhow::Result<Option<String>> {
        Ok(self.seen().await?.identity())
    }

    pub(super) async fn condition(&self) -> anyhow::Result<Condition> {
        Ok(self.seen().await?.condition())
    }

    /// The engine sends the stop signal, waits for as long as the file says, and kills then.
    pub(super) async fn stop(&self) -> anyhow::Result<Stopped> {
        let (began, id) = (Instant::now(), self.now().id.clone());
        run(&["docker"], &["stop".into(), id], LONG).await?;
        let took = began.elapsed();
        Ok(Stopped { code: Some(self.seen().await?.state.exit_code), took })
    }

    /// The same container again, or a new one when its image or its part of the file has changed.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        self.compose.up(&self.service).await?;
        let seen = self.compose.of_service(&self.service).await?;
        *self.now() = Now::of(&seen.with_context(|| format!("compose has brought up no {}", self.service))?);
        Ok(())
    }
}

async fn look<'a>(ids: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Vec<Seen>> {
    let mut arguments = vec!["inspect".to_owned(), "--type".to_owned(), "container".to_owned()];
    let commands = arguments.len();
    arguments.extend(ids.into_iter().filter(|id| !id.is_empty()).map(str::to_owned));
    if arguments.len() == commands {
        return Ok(Vec::new());
    }
    let json = run(&["docker"], &arguments, QUICK).await?;
    serde_json::from_str(&json).context("docker inspect said something strange")
}

/// In a process group of its own: Ctrl-C is for the roll, which ends what it has begun.
async fn run(program: &[&str], arguments: &[String], within: Duration) -> anyhow::Result<String> {
    let said = || format!("`{} {}`", program.join(" "), arguments.join(" "));
    let (first, rest) = program.split_first().context("no program")?;
    let mut command = Command::new(first);
    command.args(rest).args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let output = timeout(within, command.output()).await;
    let output = output.with_context(|| format!("{} took longer than {} s", said(), within.as_secs()))?;
    let output = output.with_context(said)?;
    if !output.status.success() {
        bail!("{} failed: {}", said(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
