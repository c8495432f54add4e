//! The folder: one process at a time, and what the next one has to know. Messages are in the store beside it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_access::{ApiKeyEntry, new_api_key};
use sluice_proto::ids::Epoch;
use sluice_store::sqlite::SqliteStore;

use crate::error::Error;

/// The file with the messages.
const STORE: &str = "sluice-dev.db";
/// What the next process has to know.
const STATE: &str = "sluice-dev.json";
/// The file with the key of the HTTP API.
const API_KEYS: &str = "sluice-dev.keys.toml";
/// Random bytes of a token secret.
const SECRET_BYTES: usize = 32;

/// `sluice-dev.json`: survives the process, so that addresses and anonymous users stay.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The running process; absent after an orderly stop.
    pub pid: Option<u32>,
    /// Where it answers, `http://host:port`.
    pub admin: Option<String>,
    /// Tokens of anonymous users are signed with it.
    pub(crate) token_secret: String,
    /// Good for every call of the HTTP API.
    pub(crate) api_key: String,
    /// By the name of who listens there.
    pub(crate) ports: BTreeMap<String, u16>,
}

impl State {
    /// What is known about the process that runs in this folder.
    ///
    /// # Errors
    /// There is no such file, or it makes no sense.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = file(dir);
        let text = std::fs::read_to_string(&path).map_err(Error::file("cannot read", &path))?;
        serde_json::from_str(&text).map_err(|error| Error::State { path, reason: error.to_string() })
    }
}

/// The folder, locked for this process.
pub(crate) struct Folder {
    path: PathBuf,
    /// The system lets go of it when the process ends, however it does.
    _lock: File,
}

fn file(dir: &Path) -> PathBuf {
    dir.join(STATE)
}

impl Folder {
    /// Makes it when missing, takes it, and reads what was left there.
    pub(crate) fn open(dir: &Path) -> Result<(Self, State), Error> {
        std::fs::create_dir_all(dir).map_err(Error::file("cannot create", dir))?;
        let path = dir.canonicalize().map_err(Error::file("cannot find", dir))?;
        let lock = path.join("sluice-dev.lock");
        let held = File::create(&lock).map_err(Error::file("cannot create", &lock))?;
        // A lock and not a pid: it goes with its process, however that ends.
        held.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse(path.clone()),
            TryLockError::Error(source) => Error::File { what: "cannot lock", path: lock, source },
        })?;
        let mut state = if file(&path).exists() { State::read(&path)? } else { State::default() };
        // Kept, so that anonymous names stay the same over a restart.
        if state.token_secret.is_empty() {
            let bytes: [u8; SECRET_BYTES] = rand::random();
            state.token_secret = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        if state.api_key.is_empty() {
            state.api_key = new_api_key();
        }
        Ok((Self { path, _lock: held }, state))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The file of keys that logic reads.
    pub(crate) fn api_keys(&self) -> PathBuf {
        self.path.join(API_KEYS)
    }

    /// Writes it: one key that may do everything.
    pub(crate) fn write_api_keys(&self, state: &State) -> Result<(), Error> {
        let all = || vec!["*".to_owned(), "@*".to_owned()];
        let entry = ApiKeyEntry {
            sub: all(),
            publish: all(),
            disconnect: all(),
            ..ApiKeyEntry::of("dev", &state.api_key)
        };
        let text = entry.to_toml().map_err(|reason| Error::State { path: self.api_keys(), reason })?;
        self.replace(API_KEYS, text.as_bytes())
    }

    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        self.replace(STATE, &serde_json::to_vec_pretty(state).unwrap_or_default())
    }

    /// Whole or not at all: a kill in between leaves the former file.
    fn replace(&self, name: &str, text: &[u8]) -> Result<(), Error> {
        let new = self.path.join(format!("{name}.new"));
        // The secret is nobody else's business.
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        });
        written.map_err(Error::file("cannot write", &new))?;
        // Written aside and renamed: a crash in between leaves the old one whole.
        std::fs::rename(&new, self.path.join(name)).map_err(Error::file("cannot rename", &new))
    }
}

/// After an older copy of the messages was put back into the folder: begins another epoch, so that clients are told.
///
/// # Errors
/// [`Error::InUse`] while a process runs there, [`Error::NoStore`] where none ever kept messages. After [`Error::Store`] the epoch
/// may have been begun; do it again.
pub async fn new_epoch(dir: &Path) -> Result<Epoch, Error> {
    if !dir.join(STORE).exists() {
        return Err(Error::NoStore(dir.to_owned()));
    }
    // Under the lock: beside one that runs, its publishes would go on in the old epoch.
    let (folder, _) = Folder::open(dir)?;
    Ok(SqliteStore::new_epoch(&folder.store()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_process_and_remembers_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let (first, state) = Folder::open(&path).unwrap();
        assert_eq!(state.token_secret.len(), 2 * SECRET_BYTES);
        first.write(&state).unwrap();
        assert!(matches!(Folder::open(&path), Err(Error::InUse(_))));
        drop(first);
        let (_second, again) = Folder::open(&path).unwrap();
        assert_eq!(again.token_secret, state.token_secret);
    }

    #[test]
    fn a_state_that_makes_no_sense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(file(dir.path()), "{").unwrap();
        let error = Folder::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("sluice-dev.json") && error.exit_code() == 2, "{error}");
    }
}
