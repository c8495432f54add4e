//! What survives the roll itself: who was replaced, and who was being replaced. Written before each step, removed when
//! everybody has been replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The state of a roll and its file.
#[derive(Debug)]
pub(super) struct State {
    file: PathBuf,
    known: Known,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// What is rolled, so that the state of one deployment is not taken for another's.
    of: String,
    done: Vec<String>,
    now: Option<Step>,
    /// Pids of processes that the roll started.
    pids: BTreeMap<String, u32>,
}

/// Somebody who is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) name: String,
    /// Which process it was when the step began; `None`: none ran.
    pub(super) was: Option<String>,
}

impl State {
    /// Reads what an interrupted roll of the same deployment left, or begins anew.
    pub(super) fn open(file: &Path, of: &str) -> anyhow::Result<Self> {
        let shown = file.display();
        let known = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{shown} is no state of a roll: give another --state"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Known { of: of.to_owned(), ..Known::default() }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        if known.of != of {
            bail!(
                "{shown} is about a roll of {}: finish that one, remove the file, or give another --state",
                known.of
            );
        }
        Ok(Self { file: file.to_owned(), known })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.known.done.is_empty() && self.known.now.is_none()
    }

    pub(super) fn is_done(&self, name: &str) -> bool {
        self.known.done.iter().any(|done| done == name)
    }

    pub(super) fn done(&self) -> usize {
        self.known.done.len()
    }

    pub(super) fn now(&self) -> Option<&Step> {
        self.known.now.as_ref()
    }

    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.known.pids.get(name).copied()
    }

    pub(super) fn begin(&mut self, name: &str, was: Option<String>) -> anyhow::Result<()> {
        self.known.now = Some(Step { name: name.to_owned(), was });
        self.write()
    }

    pub(super) fn started(&mut self, name: &str, pid: u32) -> anyhow::Result<()> {
        self.known.pids.insert(name.to_owned(), pid);
        self.write()
    }

    pub(super) fn finish(&mut self, name: &str) -> anyhow::Result<()> {
        self.known.now = None;
        self.known.done.push(name.to_owned());
        self.write()
    }

    /// The roll is over.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whole or not at all.
    fn write(&self) -> anyhow::Result<()> {
        let new = self.file.with_extension("new");
        let bytes = serde_json::to_vec_pretty(&self.known)?;
        std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, &self.file).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roll_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("roll.json");
        let mut state = State::open(&file, "a").unwrap();
        assert!(state.is_fresh() && !file.exists(), "looking leaves nothing behind");
        state.begin("gateway-1", Some("x@1".into())).unwrap();
        state.started("gateway-1", 7).unwrap();
        state.finish("gateway-1").unwrap();
        state.begin("gateway-2", None).unwrap();
        let again = State::open(&file, "a").unwrap();
        assert!(again.is_done("gateway-1") && !again.is_done("gateway-2") && !again.is_fresh());
        assert_eq!(again.now(), Some(&Step { name: "gateway-2".into(), was: None }));
        assert_eq!((again.pid("gateway-1"), again.done()), (Some(7), 1));
        again.remove().unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn the_state_of_another_roll_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("roll.json");
        State::open(&file, "a").unwrap().begin("gateway-1", None).unwrap();
        assert!(State::open(&file, "b").unwrap_err().to_string().contains("roll of a"));
        std::fs::write(&file, "{").unwrap();
        assert!(State::open(&file, "a").unwrap_err().to_string().contains("no state of a roll"));
    }
}
