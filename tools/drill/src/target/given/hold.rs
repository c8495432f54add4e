//! A hold on one process that is given: a pid of somebody else's, a child of a command, or a container. A pid is signalled
//! only while it is still the process that was meant.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Deserialize;
use sluice_launcher::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Ended, Ending};
use super::container;

/// Between two looks at a process that is not our child.
const LOOK: Duration = Duration::from_millis(20);
/// A command says where it listens within this.
const INTRODUCTION: Duration = Duration::from_secs(60);

/// What a command with all services says first.
#[derive(Debug, Deserialize)]
pub(super) struct Introduction {
    pub(super) gateways: Vec<Gateway>,
    pid: u32,
    /// Where it says of all of it whether it is ready.
    pub(super) page: Option<String>,
    /// Where its data is.
    pub(super) dir: Option<PathBuf>,
    /// The file that is its store.
    pub(super) store: Option<PathBuf>,
    /// Who answers to backends.
    #[serde(default)]
    pub(super) logics: Vec<Logic>,
    /// A key for them.
    pub(super) api_key: Option<String>,
}

/// One of its logics.
#[derive(Debug, Deserialize)]
pub(super) struct Logic {
    pub(super) http: Option<String>,
}

/// One of its gateways.
#[derive(Debug, Deserialize)]
pub(super) struct Gateway {
    pub(super) name: Option<String>,
    pub(super) ws: String,
    pub(super) admin: String,
}

pub(super) struct Hold {
    kind: Kind,
    asked: Mutex<Option<Instant>>,
}

enum Kind {
    Process(Box<Held>),
    Container(String),
}

struct Held {
    process: tokio::sync::Mutex<Process>,
    pid: Mutex<Option<Identity>>,
    again: Option<Again>,
}

/// How a process is started again.
enum Again {
    Command(String),
    /// It introduces itself with a line, and keeps its addresses.
    Introduced(String),
}

enum Process {
    Found,
    Ours {
        child: Box<Child>,
        /// Reads its standard output to the end, where somebody must.
        _rest: JoinSet<()>,
    },
}

/// A pid and when its process began: pids are given away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: u32,
    began: u64,
}

impl Identity {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let state = rest.next()?;
        let began = rest.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, began })
    }

    fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hold {
    pub(super) fn of_pid(pid: u32, restart: Option<String>) -> anyhow::Result<Self> {
        let identity = Identity::of(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self::process(Process::Found, identity, restart.map(Again::Command)))
    }

    pub(super) fn of_container(name: String) -> Self {
        Self { kind: Kind::Container(name), asked: Mutex::new(None) }
    }

    pub(super) async fn spawn(command: &str, log: &Path) -> anyhow::Result<(Self, Introduction)> {
        let (child, rest, said) = introduced(command, log).await?;
        let identity = Identity::of(said.pid).with_context(|| format!("`{command}` ended at once"))?;
        let again = Some(Again::Introduced(command.to_owned()));
        Ok((Self::process(Process::Ours { child: Box::new(child), _rest: rest }, identity, again), said))
    }

    fn process(process: Process, identity: Identity, again: Option<Again>) -> Self {
        let (process, pid) = (tokio::sync::Mutex::new(process), Mutex::new(Some(identity)));
        Self { kind: Kind::Process(Box::new(Held { process, pid, again })), asked: Mutex::new(None) }
    }

    pub(super) fn container(&self) -> Option<&str> {
        match &self.kind {
            Kind::Container(name) => Some(name),
            Kind::Process(_) => None,
        }
    }

    /// Whether the drill started the process that runs now.
    pub(super) fn is_ours(&self) -> bool {
        match &self.kind {
            Kind::Process(held) => {
                held.process.try_lock().is_ok_and(|process| matches!(*process, Process::Ours { .. }))
            }
            Kind::Container(_) => false,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Process(held) => locked(&held.pid).filter(|identity| identity.lives()).map(|id| id.pid),
            Kind::Container(_) => None,
        }
    }

    pub(super) async fn signal(&self, signal: Signal) -> bool {
        if !matches!(signal, Signal::SIGSTOP | Signal::SIGCONT) {
            locked(&self.asked).get_or_insert_with(Instant::now);
        }
        match &self.kind {
            Kind::Container(name) => container::signal(name, signal).await.is_ok(),
            Kind::Process(_) => {
                let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
                pid.is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
            }
        }
    }

    pub(super) async fn ended(&self, within: Duration) -> Option<Ended> {
        let how = match &self.kind {
            Kind::Container(name) => Ending::Code(container::ended(name, within).await.ok()?),
            Kind::Process(held) => match &mut *held.process.lock().await {
                Process::Ours { child, .. } => how(timeout(within, child.wait()).await.ok()?.ok()?),
                Process::Found => {
                    let identity = *locked(&held.pid);
                    let until = Instant::now() + within;
                    while identity.is_some_and(Identity::lives) {
                        if Instant::now() >= until {
                            return None;
                        }
                        sleep(LOOK).await;
                    }
                    Ending::Unseen
                }
            },
        };
        let took = locked(&self.asked).map(|asked| asked.elapsed()).unwrap_or_default();
        Some(Ended { how, took })
    }

    pub(super) async fn ended_or_killed(&self, within: Duration) -> Option<Ended> {
        if let Some(ended) = self.ended(within).await {
            return Some(ended);
        }
        self.signal(Signal::SIGKILL).await;
        self.ended(within).await
    }

    pub(super) async fn start(&self, log: &Path) -> anyhow::Result<()> {
        *locked(&self.asked) = None;
        let held = match &self.kind {
            Kind::Container(name) => return container::start(name).await,
            Kind::Process(held) => held,
        };
        let (child, rest, number) = match held.again.as_ref().context("nobody said how")? {
            Again::Command(command) => {
                let child = shell(command, log)?.spawn().with_context(|| command.clone())?;
                let number = child.id().unwrap_or_default();
                (child, JoinSet::new(), number)
            }
            Again::Introduced(command) => {
                let (child, rest, said) = introduced(command, log).await?;
                (child, rest, said.pid)
            }
        };
        *locked(&held.pid) = Identity::of(number);
        *held.process.lock().await = Process::Ours { child: Box::new(child), _rest: rest };
        Ok(())
    }
}

/// A shell says 128 and the signal's number where its command was ended by one.
fn how(status: ExitStatus) -> Ending {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) if code > 128 => Ending::Signal(code - 128),
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Unseen,
    }
}

/// A command in a process group of its own, so that Ctrl-C reaches the drill alone; what it says goes to `log`.
fn shell(command: &str, log: &Path) -> anyhow::Result<Command> {
    let open = || std::fs::OpenOptions::new().create(true).append(true).open(log);
    let file = open().with_context(|| format!("cannot open {}", log.display()))?;
    let mut shell = Command::new("sh");
    // a simple command takes the shell's place, so that the child is what was meant
    let line =
        if command.contains([';', '|', '&', '\n']) { command.to_owned() } else { format!("exec {command}") };
    shell.args(["-c", &line]).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    shell.process_group(0).kill_on_drop(true);
    Ok(shell)
}

/// Starts a command and reads the line it says first.
async fn introduced(command: &str, log: &Path) -> anyhow::Result<(Child, JoinSet<()>, Introduction)> {
    let mut child =
        shell(command, log)?.stdout(Stdio::piped()).spawn().with_context(|| command.to_owned())?;
    let stdout = child.stdout.take().with_context(|| format!("`{command}` has no standard output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(INTRODUCTION, lines.next_line()).await;
    let line = line.with_context(|| format!("`{command}` said nothing within {INTRODUCTION:?}"))??;
    let line = line.with_context(|| format!("`{command}` ended without a word; see {}", log.display()))?;
    let said = serde_json::from_str(&line).with_context(|| {
        format!(r#"the first line of `{command}` is not {{"gateways":[{{"ws","admin"}}],"pid":…}}: {line:?}"#)
    })?;
    let mut rest = JoinSet::new();
    rest.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, rest, said))
}

/// Runs a command to its end; `$1` is `argument`.
pub(super) async fn finish(
    command: &str,
    argument: &str,
    log: &Path,
    within: Duration,
) -> anyhow::Result<()> {
    let open = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", command, "sh", argument]).stdin(Stdio::null()).stdout(open.try_clone()?).stderr(open);
    let status = timeout(within, shell.process_group(0).kill_on_drop(true).status()).await;
    let status = status.with_context(|| format!("`{command}` took longer than {within:?}"))??;
    if !status.success() {
        bail!("`{command}` failed ({status}); see {}", log.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_signalled_ends_and_returns() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut found = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let hold = Hold::of_pid(found.id(), Some("sleep 61".into())).unwrap();
        assert!(!hold.is_ours());
        assert_eq!(hold.ended(Duration::from_millis(50)).await, None);
        assert!(hold.signal(Signal::SIGTERM).await);
        assert_eq!(hold.ended(Duration::from_secs(5)).await.unwrap().how, Ending::Unseen);
        found.wait().unwrap();
        assert!(!hold.signal(Signal::SIGTERM).await, "nobody else is signalled");
        hold.start(&log).await.unwrap();
        assert!(hold.is_ours() && hold.pid().is_some());
        assert!(hold.signal(Signal::SIGKILL).await);
        assert_eq!(hold.ended(Duration::from_secs(5)).await.unwrap().how, Ending::Signal(9));
    }

    #[tokio::test]
    async fn a_command_introduces_itself() {
        let dir = tempfile::tempdir().unwrap();
        let command =
            r#"echo '{"gateways":[{"ws":"ws://a","admin":"http://a"}],"pid":'$$',"dir":"x"}'; exec sleep 60"#;
        let (hold, said) = Hold::spawn(command, &dir.path().join("log")).await.unwrap();
        assert_eq!(said.gateways[0].ws, "ws://a");
        assert!(hold.signal(Signal::SIGTERM).await);
        assert_eq!(hold.ended(Duration::from_secs(5)).await.unwrap().how, Ending::Signal(15));
        let error = Hold::spawn("echo hello", &dir.path().join("log")).await.err().unwrap();
        assert!(format!("{error:#}").contains("hello"), "{error:#}");
    }
}
