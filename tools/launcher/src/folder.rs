//! The cluster's folder: temporary or given, locked for one cluster, and a place in it that PostgreSQL may own.

use std::fs::{DirBuilder, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{User, chown, geteuid};
use tempfile::TempDir;

use crate::error::Error;

/// Where data and logs are.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// `None` for a folder the user gave.
    temporary: Mutex<Option<TempDir>>,
    is_temporary: bool,
    _lock: Flock<File>,
}

impl Folder {
    /// Opens the given folder (made when missing) or a new temporary one.
    pub(crate) fn open(given: Option<&Path>) -> Result<Self, Error> {
        let (path, temporary) = match given {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(Error::file("cannot create", path))?;
                (path.canonicalize().map_err(Error::file("cannot find", path))?, None)
            }
            None => {
                let folder = tempfile::Builder::new().prefix("sluice-").tempdir();
                let folder =
                    folder.map_err(Error::file("cannot create a folder in", std::env::temp_dir()))?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let lock = path.join("lock");
        let file = File::create(&lock).map_err(Error::file("cannot create", &lock))?;
        // The system lets go of it when the process ends, however it does: no file to be removed by hand.
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::FolderInUse(path.clone()))?;
        Ok(Self { path, is_temporary: temporary.is_some(), temporary: Mutex::new(temporary), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the data need not survive this cluster.
    pub(crate) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Removes a temporary folder now, whoever still holds this value.
    pub(crate) fn discard(&self) {
        drop(self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// A folder for a server's data, made when missing.
    pub(crate) fn data(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("cannot create", &path))?;
        Ok(path)
    }

    /// A folder that `owner` owns. Where the cluster's folder lies behind one that `owner` may not pass, the data
    /// lies in /var/tmp and a link leads there.
    pub(crate) fn data_of(&self, name: &str, owner: Option<&Owner>) -> Result<PathBuf, Error> {
        let Some(owner) = owner else { return self.data(name) };
        let path = self.path.join(name);
        let mode =
            self.path.metadata().map_err(Error::file("cannot look at", &self.path))?.permissions().mode();
        if mode & 0o001 == 0 {
            // search for others, nothing more: they may pass, not list
            let passable = std::fs::set_permissions(&self.path, Permissions::from_mode(mode | 0o001));
            passable.map_err(Error::file("cannot make passable", &self.path))?;
        }
        if owner.can_pass(&self.path) {
            return owner.own(path);
        }
        // By the path: the same folder finds its data again, and two folders never share one.
        let mut hasher = DefaultHasher::new();
        self.path.hash(&mut hasher);
        let elsewhere =
            owner.own(PathBuf::from(format!("/var/tmp/sluice-{name}-{:016x}", hasher.finish())))?;
        if std::fs::read_link(&path).ok().as_deref() != Some(&*elsewhere) {
            std::os::unix::fs::symlink(&elsewhere, &path).map_err(Error::file("cannot create", &path))?;
        }
        Ok(elsewhere)
    }
}

/// The user that PostgreSQL runs as when we are root, which it refuses to be.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// The user `postgres` when we are root, else nobody but ourselves.
    pub(crate) fn of_postgres() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let user = User::from_name("postgres").map_err(|error| Error::System(error.to_string()))?;
        let user = user.ok_or_else(|| {
            Error::System(
                "PostgreSQL refuses to run as root and there is no user `postgres`: create it".into(),
            )
        })?;
        Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    fn can_pass(&self, path: &Path) -> bool {
        path.ancestors().all(|folder| {
            folder.metadata().is_ok_and(|data| {
                // The first class that fits decides, also where a later one would allow more.
                let shift = if data.uid() == self.uid {
                    6
                } else if data.gid() == self.gid {
                    3
                } else {
                    0
                };
                data.mode() >> shift & 0o1 != 0
            })
        })
    }

    /// Makes the folder and gives it away. One that exists must not belong to a third party.
    fn own(&self, path: PathBuf) -> Result<PathBuf, Error> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::file("cannot create", &path))?,
        }
        let data = path.symlink_metadata().map_err(Error::file("cannot look at", &path))?;
        // In a folder that anybody may write to somebody may have laid a trap under this name.
        if !data.is_dir() || (data.uid() != 0 && data.uid() != self.uid) {
            return Err(Error::System(format!("{} belongs to somebody else", path.display())));
        }
        self.give(&path)?;
        Ok(path)
    }

    /// Gives a file or folder away.
    pub(crate) fn give(&self, path: &Path) -> Result<(), Error> {
        let given = chown(path, Some(self.uid.into()), Some(self.gid.into()));
        given.map_err(|error| Error::System(format!("cannot give {} away: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_cluster() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = Folder::open(Some(&path)).unwrap();
        assert!(matches!(Folder::open(Some(&path)), Err(Error::FolderInUse(_))));
        drop(first);
        assert!(Folder::open(Some(&path)).is_ok(), "and used again after it");
    }

    #[test]
    fn a_temporary_folder_vanishes() {
        let folder = Folder::open(None).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
