//! One process per file, said clearly. SQLite's own locks keep the file whole whoever opens it; this lock is why a
//! second store does not start on it at all. Readers from outside are none of its business.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Held on `<file>.lock` until it is dropped or the process ends, however it ends. The lock file stays.
///
/// It is a file of its own because closing any handle of the database file would drop SQLite's locks on it.
pub(super) struct FileLock {
    _held: File,
}

impl FileLock {
    /// Takes the lock of a database file, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let place = PathBuf::from_iter([format!("{}.lock", database.display())]);
        let wrong = |error: std::io::Error| {
            StoreError::Misconfigured(format!(
                "{} cannot be opened: {error}; make its folder writable, or use another sqlite.path",
                place.display()
            ))
        };
        // Never truncated on opening: it holds the words of whoever has the lock.
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&place);
        let mut held = options.map_err(wrong)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(database, &mut held)),
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        // For the words of whoever comes second, nothing else.
        let named = held.set_len(0).and_then(|()| write!(held, "{}", std::process::id()));
        named.map_err(wrong)?;
        Ok(Self { _held: held })
    }
}

fn in_use(database: &Path, lock: &mut File) -> StoreError {
    let mut pid = String::new();
    let by = match lock.read_to_string(&mut pid) {
        Ok(_) if !pid.is_empty() => format!("by process {pid}"),
        Ok(_) | Err(_) => "by another process".to_owned(),
    };
    StoreError::Misconfigured(format!(
        "{} is in use {by}; stop that one first, or use another sqlite.path",
        database.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store.db");
        let first = FileLock::take(&database).unwrap();
        let error = FileLock::take(&database).err().unwrap().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        assert!(FileLock::take(&database).is_ok());
    }
}
