//! The level of the log as people write it, in each of the places where it can stand: what a process makes of it.

use std::process::{Command, Stdio};

use serde_json::Value;
use sluice_testing::{eventually, free_port};

use super::config;
use super::process::Process;
use crate::rig::SOON;

/// Where a level can stand.
#[derive(Debug, Clone, Copy)]
enum Place {
    Flag,
    File,
    Variable,
    RustLog,
}

impl Place {
    const ALL: [Self; 4] = [Self::Flag, Self::File, Self::Variable, Self::RustLog];

    /// The key under which an error names it.
    fn key(self) -> &'static str {
        match self {
            Self::Flag | Self::File | Self::Variable => "log.level",
            Self::RustLog => "RUST_LOG",
        }
    }

    /// A task without servers, and with this level.
    fn task(self, level: &str, folder: &tempfile::TempDir) -> Command {
        let mut command = Process::command(&config(free_port(), free_port(), free_port()));
        command.env_remove("RUST_LOG").env_remove("SLUICE_LOG__LEVEL");
        match self {
            Self::Flag => command.args(["--set", &format!("log.level={level}")]),
            Self::File => {
                let file = folder.path().join("task.toml");
                std::fs::write(&file, format!("[log]\nlevel = {level:?}\n")).unwrap();
                command.arg("--config").arg(file)
            }
            Self::Variable => command.env("SLUICE_LOG__LEVEL", level),
            Self::RustLog => command.env("RUST_LOG", level),
        };
        command
    }
}

/// The levels of the lines so far.
fn levels(log: &tempfile::NamedTempFile) -> Vec<String> {
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["level"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn other_names_of_levels_are_taken_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    for place in Place::ALL {
        for (level, passes) in [("warning", ["WARN"].as_slice()), ("verbose", &["WARN", "INFO", "DEBUG"])] {
            let checked = place.task(level, &folder).arg("--check").output().unwrap();
            assert_eq!(checked.status.code(), Some(0), "{place:?} {level}: {checked:?}");
            assert!(checked.stderr.is_empty(), "{place:?} {level}: {checked:?}");
            let log = tempfile::NamedTempFile::new().unwrap();
            let mut command = place.task(level, &folder);
            let process = Process(command.stderr(log.reopen().unwrap()).spawn().unwrap());
            eventually("each level that passes has a line", SOON, async || {
                passes.iter().all(|level| levels(&log).iter().any(|line| line == level))
            })
            .await;
            drop(process);
            let all = levels(&log);
            assert!(all.iter().all(|line| passes.contains(&line.as_str())), "{place:?} {level}: {all:?}");
        }
    }
}

#[test]
fn a_word_that_is_no_level_is_refused_with_the_near_match_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    for place in Place::ALL {
        for arguments in [&["--check"][..], &[]] {
            let refused = place.task("debgu", &folder).args(arguments).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{place:?} {arguments:?}: {said}");
            assert!(refused.stdout.is_empty(), "{place:?} {arguments:?}: nothing was started");
            let named = said.contains(&format!("{} is \"debgu\"", place.key()));
            assert!(named && said.contains("did you mean `debug`?"), "{place:?} {arguments:?}: {said}");
        }
    }
    // One that is not in force now will be, when the variable is taken away.
    let mut hidden = Place::Flag.task("debgu", &folder);
    let hidden = hidden.env("RUST_LOG", "info").arg("--check").stdout(Stdio::null()).output().unwrap();
    assert_eq!(hidden.status.code(), Some(2), "{hidden:?}");
}
