//! An instance that is a process of this machine: signalled by its pid while that is certainly still meant, started by
//! a command. What was started lives on when the roll is over.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::condition::{Condition, Stopped};
use super::kind::Kind;

/// Longest stop: the usual total, its watchdog, and a slow machine.
const STOP: Duration = Duration::from_secs(20);
/// Between two looks at a process that is not our child.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Process {
    command: String,
    admin: Option<String>,
    /// What it says goes here.
    log: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    pid: u32,
    /// When it began, as the kernel counts: pids are given away again.
    began: Option<u64>,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(pid: u32, command: String, admin: Option<String>, log: PathBuf) -> Self {
        Self { command, admin, log, now: Mutex::new(Now { pid, began: began(pid), child: None }) }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admin(&self) -> Option<String> {
        self.admin.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.now().pid
    }

    /// Its pid as it knows it itself, in its own namespace; `None` where what was started need not be the service, but a
    /// shell around it.
    pub(super) fn pid_within(&self) -> Option<u32> {
        let now = self.now();
        // Of a compound command the pid is the shell's, and the page knows the service's.
        let is_itself = now.child.is_none() || is_simple(&self.command);
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", now.pid)).ok().filter(|_| is_itself)?;
        // In a container a process knows itself by the innermost of its pids.
        let all = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        all.split_whitespace().next_back()?.parse().ok()
    }

    /// The service whose program it runs, if it runs one of ours.
    pub(super) fn program(&self) -> Option<Kind> {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid())).ok()?;
        Kind::of_program(&String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?))
    }

    pub(super) fn identity(&self) -> Option<String> {
        let mut now = self.now();
        now.lives().then(|| format!("{}@{}", now.pid, now.began.unwrap_or_default()))
    }

    pub(super) fn condition(&self) -> Condition {
        let mut now = self.now();
        if now.lives() {
            return Condition::Running { healthy: true };
        }
        let status = now.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        Condition::Ended(match status {
            Some(status) => format!("it ended with {status}; see {}", self.log.display()),
            None => format!("there is no process {}", now.pid),
        })
    }

    pub(super) async fn stop(&self) -> anyhow::Result<Stopped> {
        let began = Instant::now();
        self.signal(Signal::SIGTERM)?;
        while self.identity().is_some() {
            if began.elapsed() > STOP {
                // Never SIGKILL from here: what the service still has to do is its own to say.
                bail!("SIGTERM did not end pid {} within {} s: look at its log", self.pid(), STOP.as_secs());
            }
            sleep(LOOK).await;
        }
        let child = self.now().child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        Ok(Stopped { code: child.and_then(|status| status.code()), took: began.elapsed() })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut now = self.now();
        if !now.lives() {
            return Ok(());
        }
        let pid = i32::try_from(now.pid).context("no pid")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal pid {pid}"))
    }

    pub(super) fn start(&self) -> anyhow::Result<()> {
        // After an interruption the start may have been done already; two would share its ports.
        if self.identity().is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        // With `exec` the pid is the service's own, so that a signal reaches it and not a shell.
        let line =
            if is_simple(&self.command) { format!("exec {}", self.command) } else { self.command.clone() };
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = shell.process_group(0).spawn().with_context(|| self.command.clone())?;
        let pid = child.id().context("it ended at once")?;
        *self.now() = Now { pid, began: began(pid), child: Some(child) };
        Ok(())
    }
}

/// A simple command takes the shell's place, so that the pid is its own.
fn is_simple(command: &str) -> bool {
    !command.contains([';', '|', '&', '\n'])
}

impl Now {
    fn lives(&mut self) -> bool {
        // Our own child is asked for by its handle: once it is reaped its pid may be another's.
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        self.began.is_some() && began(self.pid) == self.began
    }
}

/// When a process began, in ticks since the machine did; `None` when there is none, or only its remains.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?;
    let began = rest.nth(18)?.parse().ok()?;
    // A zombie has ended; it only waits for a parent that is not us.
    (state != "Z").then_some(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_stopped_started_and_stopped_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut found = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::new(found.id().unwrap(), "sleep 61".into(), None, dir.path().join("log"));
        let first = process.identity().unwrap();
        let (stopped, reaped) = tokio::join!(process.stop(), found.wait());
        assert_eq!(stopped.unwrap().code, None, "only its parent knows");
        reaped.unwrap();
        assert!(matches!(process.condition(), Condition::Ended(why) if why.contains("no process")));
        process.start().unwrap();
        assert_ne!(process.identity().unwrap(), first);
        assert_eq!(process.condition(), Condition::Running { healthy: true });
        process.stop().await.unwrap();
        assert_eq!(process.identity(), None);
    }

    #[tokio::test]
    async fn who_ends_at_once_is_noticed_with_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::new(0, "sh -c 'exit 2'".into(), None, dir.path().join("log"));
        assert_eq!(process.identity(), None);
        process.start().unwrap();
        while process.identity().is_some() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(process.condition(), Condition::Ended(why) if why.contains("exit status: 2")));
    }
}
