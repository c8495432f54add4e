//! Which processes a cluster has started, on disk: what ends them when the launcher itself was killed reads it, and so
//! does the next start in the same folder. A process is known by its pid and when it began, so that no other one that
//! was given the same pid is ever taken for it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::defaults::{LEFT_WAIT, POLL};
use crate::error::Error;

/// The file's name in the cluster's folder.
pub(crate) const FILE: &str = "processes";

/// The record of one cluster.
#[derive(Debug)]
pub(crate) struct ProcessRecord {
    path: PathBuf,
    file: Mutex<File>,
}

/// One that runs although its launcher is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    pid: i32,
    began: u64,
    signal: Signal,
    name: String,
}

impl ProcessRecord {
    /// Opens it; what an earlier cluster wrote stays until [`ProcessRecord::end_left`].
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = Mutex::new(file.map_err(Error::file("cannot open", &path))?);
        Ok(Self { path, file })
    }

    /// A process was started; `signal` ends it at once.
    pub(crate) fn add(&self, pid: u32, signal: Signal, name: &str) -> Result<(), Error> {
        // one that has ended already is nobody's business
        let Some(began) = began(pid) else { return Ok(()) };
        let line = format!("{pid} {began} {} {name} {}\n", signal.as_str().trim_start_matches("SIG"), boot());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(Error::file("cannot write", &self.path))
    }

    /// Ends what an earlier cluster of this folder left running, and forgets it.
    pub(crate) async fn end_left(&self) -> Result<(), Error> {
        let text = std::fs::read_to_string(&self.path).map_err(Error::file("cannot read", &self.path))?;
        let (boot, until) = (boot(), Instant::now() + LEFT_WAIT);
        let left: Vec<Left> = text.lines().filter_map(|line| Left::parse(line, &boot)).collect();
        let living = || left.iter().filter(|one| one.lives());
        let names: Vec<&str> = living().map(|one| one.name.as_str()).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            tracing::warn!("an earlier cluster in this folder was killed; what it left is ended: {names}");
        }
        living().for_each(|one| one.signal(one.signal));
        while living().next().is_some() && Instant::now() < until {
            sleep(POLL).await;
        }
        living().for_each(|one| one.signal(Signal::SIGKILL));
        // A moment for the system to carry out the last signals.
        sleep(if living().next().is_some() { POLL * 4 } else { Duration::ZERO }).await;
        if let Some(Left { pid, name, .. }) = living().next() {
            return Err(Error::System(format!(
                "{name} (pid {pid}) of an earlier cluster still runs on the data of {}: end it, then start again",
                self.path.parent().unwrap_or(&self.path).display()
            )));
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now, when nobody of them is left: else the next start would not know them.
        file.set_len(0).map_err(Error::file("cannot empty", &self.path))
    }
}

impl Left {
    /// `None` for a line that makes no sense, or is from before the machine was started again.
    fn parse(line: &str, boot: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (pid, began) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let signal = format!("SIG{}", words.next()?).parse().ok()?;
        let name = words.next()?.to_owned();
        (words.next()? == boot).then_some(Self { pid, began, signal, name })
    }

    fn lives(&self) -> bool {
        u32::try_from(self.pid).is_ok_and(|pid| began(pid) == Some(self.began))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).ok(); // one that ended just now, or whose end is refused: looked at again
        kill(Pid::from_raw(self.pid), Signal::SIGCONT).ok(); // a frozen one could not hear it
    }
}

/// When a process began, in ticks since the machine did; `None` when there is none, or only its remains.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace(); // a program's name may hold anything
    let state = words.next()?;
    let began = words.nth(18)?.parse().ok()?;
    (state != "Z").then_some(began)
}

/// Ticks are counted anew each time the machine starts.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.trim().is_empty() { "unknown".to_owned() } else { id.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn what_was_left_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut ours = Command::new("sleep").arg("600").spawn().unwrap();
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let record = ProcessRecord::open(folder.path()).unwrap();
        record.add(ours.id(), Signal::SIGKILL, "logic-0").unwrap();
        let path = folder.path().join(FILE);
        let (pid, began) = (other.id(), began(other.id()).unwrap());
        let mut text = std::fs::read_to_string(&path).unwrap();
        // the same pid at another time, before the machine was started again, and no line of ours
        text.push_str(&format!(
            "{pid} {} KILL task-0 {}\n{pid} {began} KILL task-0 other\n",
            began + 1,
            boot()
        ));
        text.push_str("1\n\n-1 0 KILL x y\n");
        std::fs::write(&path, text).unwrap();
        let (ended, status) =
            tokio::join!(record.end_left(), tokio::task::spawn_blocking(move || ours.wait().unwrap()));
        ended.unwrap();
        assert!(!status.unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None, "somebody else's");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
