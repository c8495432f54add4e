//! Whether the file is still where the next process will look for it. SQLite goes on with one that was deleted, moved
//! or replaced, and what it commits there is gone when the process ends. It only looks.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// The file as it was when it was opened. It is known by its name alone, never by a handle: closing one would drop
/// SQLite's locks on the file.
pub(super) struct FileIdentity {
    path: PathBuf,
    /// The write-ahead log, where commits are first.
    log: PathBuf,
    /// Device and inode; the system gives the inode to no other file while SQLite has this one open.
    number: (u64, u64),
}

impl FileIdentity {
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let number = number(path).map_err(|why| StoreError::Unreachable(why.to_string()))?;
        let log = PathBuf::from_iter([format!("{}-wal", path.display())]);
        Ok(Self { path: path.to_owned(), log, number })
    }

    /// Says what happened to the file, and what can be done.
    pub(super) fn check(&self) -> Result<(), String> {
        let what = match number(&self.path) {
            Ok(number) if number == self.number => return Ok(()),
            Ok(_) => "was replaced by another file",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "was deleted or moved",
            Err(error) => return Err(format!("{} cannot be looked at: {error}", self.path.display())),
        };
        let path = self.path.display();
        Err(format!("{path} {what} while it was in use: nothing can be kept any more; stop, and start again"))
    }

    /// After a commit: the log that it was written to must be there too.
    pub(super) fn check_committed(&self) -> Result<(), String> {
        self.check()?;
        match self.log.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(format!(
                "{} was deleted while it was in use: what was committed last is lost; stop, and start again",
                self.log.display()
            )),
        }
    }
}

fn number(path: &Path) -> std::io::Result<(u64, u64)> {
    // Two system calls a batch that was just synced: a microsecond beside milliseconds, so it may block.
    let data = std::fs::metadata(path)?;
    Ok((data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_deleted_moved_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        assert!(FileIdentity::of(&path).is_err());
        std::fs::write(&path, "").unwrap();
        let held = std::fs::File::open(&path).unwrap();
        let file = FileIdentity::of(&path).unwrap();
        assert_eq!(file.check(), Ok(()));
        assert!(file.check_committed().unwrap_err().contains("store.db-wal was deleted"));
        std::fs::write(folder.path().join("store.db-wal"), "").unwrap();
        assert_eq!(file.check_committed(), Ok(()));
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(file.check().unwrap_err().contains("was deleted or moved"));
        std::fs::write(&path, "another").unwrap();
        assert!(file.check().unwrap_err().contains("was replaced"));
        drop(held);
    }
}
