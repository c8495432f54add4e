//! `sluice roll --pid` that is interrupted, with shell scripts in place of services: whether it can go on is decided by
//! pids, signals and its file, and by nothing that a service says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::{sluice, text};
use crate::sink::{Sink, into};

const NAMES: [&str; 3] = ["gateway-1", "gateway-2", "logic-1"];
const LOOK: Duration = Duration::from_millis(10);

/// A folder with services that say who they are, and do not end before the file `hold` is gone.
struct Fleet {
    dir: tempfile::TempDir,
    first: Vec<Child>,
}

fn script(name: &str) -> String {
    format!(
        r#"trap "while [ -e hold ]; do sleep 0.02; done; exit 0" TERM; echo $$ >> {name}.pids; while :; do sleep 0.02; done"#
    )
}

impl Fleet {
    fn start() -> Self {
        let mut fleet = Self { dir: tempfile::tempdir().unwrap(), first: Vec::new() };
        for name in NAMES {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script(name)]).current_dir(fleet.dir.path()).stdin(Stdio::null());
            fleet.first.push(shell.spawn().unwrap());
            fleet.have_been(name, 1);
        }
        fleet
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everybody who ever was this one, in order.
    fn pids(&self, name: &str) -> Vec<i32> {
        let said = std::fs::read_to_string(self.path(&format!("{name}.pids"))).unwrap_or_default();
        said.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Waits until as many were this one; who has said its pid has its trap.
    #[expect(
        clippy::disallowed_methods,
        reason = "a look at a file that scripts write, in a test without a runtime"
    )]
    fn have_been(&self, name: &str, count: usize) {
        while self.pids(name).len() < count {
            sleep(LOOK);
        }
    }

    fn hold(&self) {
        std::fs::write(self.path("hold"), "").unwrap();
    }

    fn let_go(&self) {
        std::fs::remove_file(self.path("hold")).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = sluice();
        command.args(["roll", "--pause-ms", "0"]).current_dir(self.dir.path());
        for (name, child) in NAMES.iter().zip(&self.first) {
            command.args(["--pid", &format!("{name}={}", child.id())]);
            command.args(["--start", &format!("{name}={}", script(name))]);
        }
        command
    }

    fn roll(&self) -> Rolling {
        let mut child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Rolling { child, output }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for pid in NAMES.iter().flat_map(|name| self.pids(name)).filter(|pid| lives(*pid)) {
            signal("-KILL", pid);
        }
        self.first.iter_mut().for_each(|child| drop(child.wait()));
    }
}

struct Rolling {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Rolling {
    /// Reads until a line says this.
    fn says(&mut self, words: &str) {
        let mut all = String::new();
        while !all.lines().next_back().is_some_and(|line| line.contains(words)) {
            assert_ne!(self.output.read_line(&mut all).unwrap(), 0, "it does not say {words:?}: {all}");
        }
    }

    fn interrupt(&self) {
        signal("-INT", self.child.id().try_into().unwrap());
    }

    /// Its exit code and last words.
    fn ended(self) -> (Option<i32>, String) {
        drop(self.output);
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stderr))
    }
}

fn signal(name: &str, pid: i32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Whether it runs: a child of ours that has ended stays until it is waited for.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

#[test]
fn a_roll_of_processes_that_is_interrupted_says_what_it_left_and_goes_on() {
    let fleet = Fleet::start();
    fleet.hold();
    let mut first = fleet.roll();
    first.says("rolls processes gateway-1 gateway-2 logic-1");
    first.says("gateway-1    stopping");
    first.interrupt();
    first.says("ends after the instance that is being replaced");
    fleet.let_go();
    let (code, said) = first.ended();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1 replaced. The same command goes on from here; sluice-roll.json"), "{said}");
    fleet.have_been("gateway-1", 2);
    assert_eq!(NAMES.map(|name| fleet.pids(name).len()), [2, 1, 1], "the first was replaced, nobody else");

    fleet.hold();
    let mut second = fleet.roll();
    second.says("goes on with");
    second.says("gateway-2    stopping");
    second.interrupt();
    second.says("once more to leave at once");
    second.interrupt();
    let (code, said) = second.ended();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1 replaced, gateway-2 was being replaced and may be down."), "{said}");
    assert!(lives(fleet.pids("gateway-2")[0]), "nothing ended it before its time");
    fleet.let_go();

    let mut third = fleet.roll();
    third.says("gateway-1    replaced earlier");
    third.says("all replaced");
    let (code, said) = third.ended();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!fleet.path("sluice-roll.json").exists(), "nothing is left to go on with");
    for name in NAMES {
        fleet.have_been(name, 2);
        let pids = fleet.pids(name);
        assert_eq!(pids.len(), 2, "{name} was replaced once: {pids:?}");
        assert!(!lives(pids[0]) && lives(pids[1]), "{name}: {pids:?}");
    }
}

#[test]
fn a_roll_goes_on_whether_or_not_somebody_reads_it() {
    for sink in Sink::ALL {
        let fleet = Fleet::start();
        let (code, said) = into(sink, &mut fleet.command());
        let wanted = match sink {
            Sink::Closed => (Some(0), 0),
            Sink::Full => (Some(1), 1),
        };
        assert_eq!((code, said.lines().count()), wanted, "{sink:?}: {said}");
        assert!(
            sink == Sink::Closed
                || said.contains("all replaced, but: cannot write to standard output: No space")
        );
        for name in NAMES {
            fleet.have_been(name, 2);
        }
        assert!(!fleet.path("sluice-roll.json").exists(), "nothing is left to go on with");
    }
}
