//! One child process: started in its own process group, watched, signalled only while its pid is certainly its own.

use std::future::{Future, poll_fn};
use std::io::PipeWriter;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::defaults::LOG_TAIL_BYTES;
use crate::error::Error;
use crate::held::Hold;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// When it was seen to have ended.
    pub at: Instant,
    /// From the first signal meant to end it, sent through [`Process`], to its end.
    pub elapsed: Option<Duration>,
}

impl Exit {
    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// A child process. Dropping the last reference kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    /// Reaping and signalling both happen under this lock: a pid is never signalled after it was given back.
    child: Mutex<Child>,
    asked: Mutex<Option<Instant>>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// Starts a command of [`held`](crate::held) with its own process group and its output appended to `log`; standard error goes to
    /// `stderr` instead where there is one. With `talks`, standard output is a pipe, returned for the caller to read to
    /// its end. The program begins once `on_record` has taken its pid.
    pub(crate) fn start(
        name: String,
        mut command: Command,
        log: PathBuf,
        stderr: Option<PipeWriter>,
        talks: bool,
        on_record: impl FnOnce(u32) -> Result<(), Error>,
    ) -> Result<(Arc<Self>, Option<ChildStdout>), Error> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(Error::file("cannot open", &log))?;
        let copy = file.try_clone().map_err(Error::file("cannot open", &log))?;
        let stderr = stderr.map_or_else(|| Stdio::from(file), Stdio::from);
        // A group of its own: Ctrl-C in a terminal reaches the launcher alone, which stops in order.
        command.stderr(stderr).process_group(0).kill_on_drop(true);
        if talks {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(copy);
        }
        let failed = |source| Error::Spawn { name: name.clone(), source };
        let hold = Hold::on(&mut command).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let pid = child.id().unwrap_or_default();
        on_record(pid)?;
        hold.release();
        let exit = watch::Sender::new(None);
        let process = Self { name, pid, log, child: Mutex::new(child), asked: Mutex::new(None), exit };
        Ok((Arc::new(process), stdout))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end, tells it, then publishes it: who has seen the exit finds its event told already. Exactly one
    /// task runs this for each process.
    pub(crate) async fn watch(&self, tell: impl FnOnce(&Exit)) -> Exit {
        // Under the lock for each look, not for the whole wait: a signal must come through.
        let status = poll_fn(|context| {
            let mut child = self.child();
            let wait = pin!(child.wait());
            wait.poll(context)
        });
        // waitpid on a child of our own can only fail when somebody else reaped it
        let status = status.await.unwrap_or_else(|_| ExitStatus::from_raw(0xff00));
        let at = Instant::now();
        // Read after the end: a signal that came in the last moment counts.
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let exit = Exit { status, at, elapsed: asked.map(|asked| at - asked) };
        tell(&exit);
        self.exit.send_replace(Some(exit));
        exit
    }

    /// Name in logs and errors: `logic-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's own pid; meaningless to others once it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its log: standard error, and for stores standard output too.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Sends a signal; `false` when the process has already ended.
    pub fn signal(&self, signal: Signal) -> bool {
        let child = self.child();
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return false };
        // The first signal that asks for the end starts the clock; a second one must not restart it.
        if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGKILL) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
        kill(Pid::from_raw(pid), signal).is_ok()
    }

    /// SIGTERM: asks it to stop.
    pub fn term(&self) -> bool {
        self.signal(Signal::SIGTERM)
    }

    /// SIGKILL: ends it at once.
    pub fn kill(&self) -> bool {
        self.signal(Signal::SIGKILL)
    }

    /// SIGSTOP: freezes it until [`Process::thaw`].
    pub fn freeze(&self) -> bool {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: lets a frozen process go on.
    pub fn thaw(&self) -> bool {
        self.signal(Signal::SIGCONT)
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end, however long that takes.
    pub async fn exit(&self) -> Exit {
        let mut seen = self.exit.subscribe();
        let waited = seen.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match waited {
            Some(exit) => exit,
            None => std::future::pending().await, // the sender is our own: cannot be gone
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::StillRunning`] when it has not ended within `timeout`.
    pub async fn wait_exit(&self, timeout: Duration) -> Result<Exit, Error> {
        let waited = tokio::time::timeout(timeout, self.exit()).await;
        waited.map_err(|_| Error::StillRunning { name: self.name.clone(), pid: self.pid, after: timeout })
    }

    /// Resident memory now, bytes; `None` once it has ended.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.proc_status("VmRSS:")
    }

    fn proc_status(&self, key: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Whether it has been reaped; looks itself, for use where no task runs any more.
    pub(crate) fn reap_now(&self) -> bool {
        !matches!(self.child().try_wait(), Ok(None))
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
