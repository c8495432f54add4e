//! A program that begins only once it is on record. A shell has its pid until then and becomes it when it is told to;
//! when its launcher is killed before, the shell ends with their pipe, and nobody has to find it.
//!
//! A parent-death signal would tie each child to the thread that started it, which may end long before the launcher.

use std::io::{PipeWriter, Write};
use std::path::Path;

use tokio::process::Command;

/// `exec` keeps the pid and when it began, which are what the record knows a process by.
const SCRIPT: &str = r#"read -r _ || exit 0; exec "$@" < /dev/null"#;

/// A command that becomes `program`, with the arguments that are added to it.
pub(crate) fn command(program: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, "sluice-held"]).arg(program);
    shell
}

/// Holds one that was made by [`command`]. Dropped without [`Hold::release`] it lets the program never begin.
#[derive(Debug)]
pub(crate) struct Hold(PipeWriter);

impl Hold {
    /// Takes the command's standard input, before it is spawned; the program has none.
    pub(crate) fn on(command: &mut Command) -> std::io::Result<Self> {
        let (read, write) = std::io::pipe()?;
        command.stdin(read);
        Ok(Self(write))
    }

    /// It is on record: the program begins.
    pub(crate) fn release(mut self) {
        self.0.write_all(b"\n").ok(); // a shell that was killed meanwhile is seen by its watcher
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use crate::process::Process;

    use super::*;

    /// The folder of a launcher that stands between the start of a child and its record.
    const FOLDER: &str = "SLUICE_TEST_HELD_IN";

    /// Starts `touch begun`, which is put on record by `on_record`.
    fn start(folder: &Path, on_record: impl FnOnce(u32)) -> std::sync::Arc<Process> {
        let mut touch = command(Path::new("touch"));
        touch.arg(folder.join("begun"));
        let started = Process::start("touch".into(), touch, folder.join("log"), None, false, |pid| {
            on_record(pid);
            Ok(())
        });
        started.unwrap().0
    }

    #[tokio::test]
    async fn a_program_begins_once_it_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, mut at_record) = (folder.path().join("begun"), None);
        let process = start(folder.path(), |pid| at_record = Some((pid, begun.exists())));
        assert_eq!(at_record, Some((process.pid(), false)));
        let exit = process.watch(|_| ()).await;
        assert!(exit.status.success() && begun.exists(), "{exit:?} {}", process.log_tail());
    }

    #[tokio::test]
    async fn a_launcher_that_is_killed_before_the_record_leaves_nobody() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            start(Path::new(&folder), |pid| {
                std::io::stdout().write_all(format!("\nchild {pid}\n").as_bytes()).unwrap();
                std::thread::park(); // here it is killed
            });
        }
        let folder = tempfile::tempdir().unwrap();
        let name = "held::tests::a_launcher_that_is_killed_before_the_record_leaves_nobody";
        let mut launcher = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(launcher.stdout.take().unwrap()).lines();
        let pid = said.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("child ")?.to_owned()));
        let child = format!("/proc/{}/stat", pid.unwrap());
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        // its remains may wait for a reaper
        let runs = || std::fs::read_to_string(&child).is_ok_and(|stat| !stat.contains(") Z "));
        let until = Instant::now() + Duration::from_secs(20);
        while runs() {
            assert!(Instant::now() < until, "nobody ended it");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(!folder.path().join("begun").exists(), "it has begun, and nobody knows of it");
    }
}
