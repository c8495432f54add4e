//! The folder: one process at a time, and what the next one has to know. Messages are in the store beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_access::{ApiKeyEntry, new_api_key};
use sluice_proto::ids::Epoch;
use sluice_store::sqlite::{Backup, BackupProgress, SqliteStore};

use crate::error::Error;
use crate::secret;

/// Whose folder it is: each has files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sluice dev`
    Dev,
    /// `sluice serve`
    Serve,
}

impl Kind {
    /// Whose store is in a folder. Production's, where both are.
    fn of(dir: &Path) -> Option<Self> {
        [Self::Serve, Self::Dev].into_iter().find(|kind| kind.file(dir, STORE).exists())
    }

    /// One of its files.
    fn file(self, dir: &Path, end: &str) -> PathBuf {
        dir.join(self.name(end))
    }

    fn name(self, end: &str) -> String {
        let name = match self {
            Self::Dev => "sluice-dev",
            Self::Serve => "sluice",
        };
        format!("{name}{end}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "sluice dev",
            Self::Serve => "sluice serve",
        })
    }
}

/// The file with the messages.
const STORE: &str = ".db";
/// What the next process has to know.
const STATE: &str = ".json";
/// The file with the key of the HTTP API of `sluice dev`; that of `sluice serve` is configured.
const API_KEYS: &str = ".keys.toml";

/// `sluice-dev.json`, `sluice.json`: survives the process, so that addresses and anonymous users stay.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The running process; absent after an orderly stop.
    pub pid: Option<u32>,
    /// Where it answers, `http://host:port`.
    pub admin: Option<String>,
    /// Tokens of anonymous users are signed with it; of `sluice dev` alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) token_secret: String,
    /// Good for every call of the HTTP API; of `sluice dev` alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) api_key: String,
    /// By the name of who listens there.
    pub(crate) ports: BTreeMap<String, u16>,
}

impl State {
    /// What is known about the process of this kind that runs in this folder.
    ///
    /// # Errors
    /// There is no such file, or it makes no sense.
    pub fn read(kind: Kind, dir: &Path) -> Result<Self, Error> {
        let path = kind.file(dir, STATE);
        let text = std::fs::read_to_string(&path).map_err(Error::file("cannot read", &path))?;
        serde_json::from_str(&text).map_err(|error| Error::State { path, reason: error.to_string() })
    }
}

/// The folder, locked for this process.
pub(crate) struct Folder {
    kind: Kind,
    path: PathBuf,
    /// The system lets go of it when the process ends, however it does.
    _lock: File,
}

impl Folder {
    /// Makes it when missing, takes it, and reads what was left there.
    pub(crate) fn open(kind: Kind, dir: &Path) -> Result<(Self, State), Error> {
        // All that is said in its rooms: where it is made here, for its owner alone.
        let mut folder = DirBuilder::new();
        folder.recursive(true);
        if kind == Kind::Serve {
            folder.mode(0o700);
        }
        folder.create(dir).map_err(Error::file("cannot create", dir))?;
        let path = dir.canonicalize().map_err(Error::file("cannot find", dir))?;
        let lock = kind.file(&path, ".lock");
        let held = File::create(&lock).map_err(Error::file("cannot create", &lock))?;
        // A lock and not a pid: it goes with its process, however that ends.
        held.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse { kind, path: path.clone() },
            TryLockError::Error(source) => Error::File { what: "cannot lock", path: lock, source },
        })?;
        let known = kind.file(&path, STATE).exists();
        let mut state = if known { State::read(kind, &path)? } else { State::default() };
        if kind == Kind::Dev {
            // Kept, so that anonymous names stay the same over a restart.
            if state.token_secret.is_empty() {
                state.token_secret = secret::random();
            }
            if state.api_key.is_empty() {
                state.api_key = new_api_key();
            }
        }
        Ok((Self { kind, path, _lock: held }, state))
    }

    /// Takes the folder of somebody who has kept messages there and has stopped.
    fn of_stopped(dir: &Path) -> Result<Self, Error> {
        let kind = Kind::of(dir).ok_or_else(|| Error::NoStore(dir.to_owned()))?;
        Ok(Self::open(kind, dir)?.0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.kind.file(&self.path, STORE)
    }

    /// The file of keys that logic reads.
    pub(crate) fn api_keys(&self) -> PathBuf {
        self.kind.file(&self.path, API_KEYS)
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
        self.replace(&self.kind.name(API_KEYS), text.as_bytes())
    }

    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        self.replace(&self.kind.name(STATE), &serde_json::to_vec_pretty(state).unwrap_or_default())
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
    // Under the lock: beside one that runs, its publishes would go on in the old epoch.
    let folder = Folder::of_stopped(dir)?;
    Ok(SqliteStore::new_epoch(&folder.store()).await?)
}

/// Copies the messages of a folder to a file, while a process runs there or not.
///
/// # Errors
/// [`Error::NoStore`] where none ever kept messages, [`Error::Backup`]; then there is no such file.
pub async fn backup(dir: &Path, file: &Path, progress: impl FnMut(BackupProgress)) -> Result<Backup, Error> {
    let kind = Kind::of(dir).ok_or_else(|| Error::NoStore(dir.to_owned()))?;
    Ok(sluice_store::sqlite::backup(&kind.file(dir, STORE), file, progress).await?)
}

/// Puts a backup into a folder without messages, for `sluice serve`, or for `sluice dev` where that has run there, and
/// begins another epoch in it.
///
/// # Errors
/// [`Error::InUse`] while a process runs there, [`Error::Backup`] where messages are or the file is no backup.
pub async fn restore(file: &Path, dir: &Path) -> Result<(Backup, Epoch), Error> {
    let dev = Kind::Dev.file(dir, STATE).exists() && !Kind::Serve.file(dir, STATE).exists();
    let (folder, _) = Folder::open(if dev { Kind::Dev } else { Kind::Serve }, dir)?;
    Ok(sluice_store::sqlite::restore(file, &folder.store()).await?)
}

/// The store of a folder in which no process runs, and none can begin while this is held.
pub struct StoppedStore(Folder);

impl StoppedStore {
    /// # Errors
    /// [`Error::InUse`] while a process runs there, [`Error::NoStore`] where none ever kept messages.
    pub fn of(dir: &Path) -> Result<Self, Error> {
        Folder::of_stopped(dir).map(Self)
    }

    /// The file with the messages.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.0.store()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_process_and_remembers_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let (first, state) = Folder::open(Kind::Dev, &path).unwrap();
        assert_eq!(state.token_secret.len(), 64);
        first.write(&state).unwrap();
        assert!(matches!(Folder::open(Kind::Dev, &path), Err(Error::InUse { kind: Kind::Dev, .. })));
        drop(first);
        let (_second, again) = Folder::open(Kind::Dev, &path).unwrap();
        assert_eq!(again.token_secret, state.token_secret);
    }

    #[test]
    fn production_keeps_no_secret_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, state) = Folder::open(Kind::Serve, dir.path()).unwrap();
        folder.write(&state).unwrap();
        let kept = std::fs::read_to_string(Kind::Serve.file(dir.path(), STATE)).unwrap();
        assert!(!kept.contains("secret") && !kept.contains("key"), "{kept}");
        assert!(Folder::open(Kind::Dev, dir.path()).is_ok(), "files of their own");
    }

    #[test]
    fn a_state_that_makes_no_sense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(Kind::Dev.file(dir.path(), STATE), "{").unwrap();
        let error = Folder::open(Kind::Dev, dir.path()).err().unwrap();
        assert!(error.to_string().contains("sluice-dev.json") && error.exit_code() == 2, "{error}");
    }
}
