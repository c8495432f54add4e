//! A compose project, by the programs `docker` and `docker compose` or `docker-compose`, whichever are there: who
//! belongs to it, stopping one, bringing it up again. One command each, each with a bound.

mod inspect;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::condition::{Condition, Stopped};
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
        // With those that ended: an instance that is down must be seen as such, not as one that never was.
        let ids = self.ask(&["ps", "--all", "--quiet"], QUICK).await?;
        look(ids.lines()).await
    }

    async fn up(&self, service: &str) -> anyhow::Result<()> {
        // Neither what it depends on is touched, nor anything built: a roll replaces one instance.
        self.ask(&["up", "--detach", "--no-deps", "--no-build", service], LONG).await.map(drop)
    }
}

/// The one container of a service.
pub(super) struct Container {
    compose: Arc<Compose>,
    project: String,
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
    /// What was seen of it; `service` is the one that compose starts it as.
    pub(super) fn of(compose: &Arc<Compose>, seen: &Seen, service: &str) -> Self {
        let project = seen.project().unwrap_or_default().to_owned();
        let now = Mutex::new(Now::of(seen));
        Self { compose: Arc::clone(compose), project, service: service.to_owned(), now }
    }

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
        // By id: whoever has its name meanwhile is another one. How long it may take, compose has told docker.
        run(&["docker"], &["stop".into(), id], LONG).await?;
        let took = began.elapsed();
        Ok(Stopped { code: Some(self.seen().await?.state.exit_code), took })
    }

    /// The same container again, or a new one when its image or its part of the file has changed.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        self.compose.up(&self.service).await?;
        let seen = self.newest().await?;
        *self.now() = Now::of(&seen.with_context(|| format!("compose has brought up no {}", self.service))?);
        Ok(())
    }

    /// The engine is asked, and lists the newest first: compose takes long where it is a Python program.
    async fn newest(&self) -> anyhow::Result<Option<Seen>> {
        let label = |name: &str, value: &str| format!("--filter=label=com.docker.compose.{name}={value}");
        let (project, service) = (label("project", &self.project), label("service", &self.service));
        let ask = ["ps", "--all", "--quiet", "--no-trunc"].map(str::to_owned);
        let ids = run(&["docker"], &[ask.as_slice(), &[project, service]].concat(), QUICK).await?;
        Ok(look(ids.lines().take(1)).await?.pop())
    }
}

async fn look<'a>(ids: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Vec<Seen>> {
    let mut arguments = vec!["inspect".to_owned(), "--type".to_owned(), "container".to_owned()];
    let commands = arguments.len();
    arguments.extend(ids.into_iter().filter(|id| !id.is_empty()).map(str::to_owned));
    // `docker inspect` without an id is an error, and nobody is a fine answer.
    if arguments.len() == commands {
        return Ok(Vec::new());
    }
    let json = run(&["docker"], &arguments, QUICK).await?;
    serde_json::from_str(&json).context("docker inspect said something strange")
}

/// In a process group of its own, and with nobody at the other end of a pipe: Ctrl-C is for the roll, and when that is
/// left in the middle or killed, the command still ends what it has begun; compose would leave half a container.
async fn run(program: &[&str], arguments: &[String], within: Duration) -> anyhow::Result<String> {
    let said = || format!("`{} {}`", program.join(" "), arguments.join(" "));
    let (first, rest) = program.split_first().context("no program")?;
    // Memory files, not pipes: what a command leaves running would hold a pipe open, and the reader with it.
    let (mut out, mut err) = (paper()?, paper()?);
    let mut command = Command::new(first);
    // A group of its own: Ctrl-C is for the roll, which lets the step end.
    command.args(rest).args(arguments).stdin(Stdio::null()).process_group(0);
    let mut child = command.stdout(out.try_clone()?).stderr(err.try_clone()?).spawn().with_context(said)?;
    let Ok(status) = timeout(within, child.wait()).await else {
        child.kill().await.ok(); // it may have ended just now
        bail!("{} took longer than {} s", said(), within.as_secs());
    };
    if !status.with_context(said)?.success() {
        bail!("{} failed: {}", said(), read(&mut err)?.trim());
    }
    Ok(read(&mut out)?.trim().to_owned())
}

/// A file without a name, in memory.
fn paper() -> anyhow::Result<File> {
    Ok(File::from(memfd_create(c"sluice-roll", MFdFlags::MFD_CLOEXEC)?))
}

fn read(paper: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    paper.seek(SeekFrom::Start(0))?;
    paper.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within_ms: u64) -> impl Future<Output = anyhow::Result<String>> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        async move { run(&["sh"], &arguments, Duration::from_millis(within_ms)).await }
    }

    #[tokio::test]
    async fn what_a_command_says_is_heard() {
        assert_eq!(shell("echo out; echo err >&2", 5_000).await.unwrap(), "out");
        let failed = shell("echo out; echo err >&2; exit 1", 5_000).await.unwrap_err().to_string();
        assert!(failed.ends_with("failed: err"), "{failed}");
        let late = shell("exec sleep 60", 50).await.unwrap_err().to_string();
        assert!(late.ends_with("took longer than 0 s"), "{late}");
    }

    #[tokio::test]
    async fn a_command_that_nobody_waits_for_any_more_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, done) = (dir.path().join("begun"), dir.path().join("done"));
        let (one, other) = (begun.display(), done.display());
        let script =
            format!("touch {one}; while [ -e {one} ]; do sleep 0.01; done; echo said && touch {other}");
        let left = async {
            while !begun.exists() {
                tokio::task::yield_now().await
            }
        };
        tokio::select! {
            end = shell(&script, 60_000) => panic!("{end:?}"),
            () = left => {}
        }
        std::fs::remove_file(&begun).unwrap();
        while !done.exists() {
            tokio::task::yield_now().await;
        }
    }
}
