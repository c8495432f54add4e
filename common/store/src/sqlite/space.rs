//! Whether there is space beside the file, asked after a commit found none: the next message may need more than is left for
//! one that is small. It leaves nothing behind.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// A full batch of publishes, with what their pages take in the log.
const WANTED: usize = 1 << 20;
/// The code that SQLite has for it.
const FULL: &str = "13";

/// Takes the space and gives it back.
pub(super) async fn probe(path: &Path) -> Result<(), StoreError> {
    let beside = PathBuf::from_iter([format!("{}-space", path.display())]);
    let asked = tokio::task::spawn_blocking(move || {
        let written = write(&beside);
        // Also what came of half of it, or of a probe that was killed.
        let removed = std::fs::remove_file(&beside);
        written.and(removed).map_err(|error| refusal(&error, &beside))
    });
    asked.await.unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string())))
}

fn write(path: &Path) -> std::io::Result<()> {
    // Written, not only reserved: a file system without fallocate would say yes to anything.
    File::create(path)?.write_all(&vec![0; WANTED])
}

fn refusal(error: &std::io::Error, path: &Path) -> StoreError {
    let message = format!("no {WANTED} bytes could be written to {}: {error}", path.display());
    let is_full =
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    if is_full {
        StoreError::RolledBack { sqlstate: FULL.to_owned(), message }
    } else {
        StoreError::Unreachable(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trouble;

    #[tokio::test]
    async fn nothing_is_left_of_it_and_a_full_disk_is_called_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(probe(&dir.path().join("store.db")).await.is_ok());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let elsewhere = probe(&dir.path().join("none/store.db")).await.unwrap_err();
        assert_eq!(elsewhere.trouble(), Trouble::Unreachable, "{elsewhere}");
        let full = Path::new("/dev/full");
        let error = refusal(&write(full).unwrap_err(), full);
        assert_eq!(error.trouble(), Trouble::Full, "{error}");
    }
}
