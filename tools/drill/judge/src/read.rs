//! Reads the folder of a run, line by line. It judges nothing; what it cannot read it refuses, naming file and line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::history::{History, Loading};
use crate::record::{
    DelayedRecord, FaultRecord, Leftovers, RecordEntry, RevocationRecord, RunRecord, StoreRow,
};

/// Why a folder could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; give the folder that a drill wrote, the one with run.json in it")]
    Read {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what a drill writes.
    #[error("{path} line {line}: {why}; the records are broken, run the drill again")]
    RecordLine {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a run into memory.
///
/// # Errors
/// When `run.json` is missing, a file cannot be read, or a line is not what a drill writes. A file that ends in the
/// middle of a line is read up to there, and noted.
pub fn load(dir: &Path) -> Result<History, ReadError> {
    let run: Option<RunRecord> = whole(&dir.join("run.json"))?;
    let missing = || ReadError::Read { path: dir.join("run.json"), source: io::ErrorKind::NotFound.into() };
    let mut loading = Loading::new(run.ok_or_else(missing)?);
    lines(&dir.join("faults.jsonl"), &mut loading, |loading, fault: FaultRecord| {
        loading.fault(fault);
        Ok(())
    })?;
    lines(&dir.join("delayed.jsonl"), &mut loading, |loading, delayed: DelayedRecord| {
        loading.delayed(delayed);
        Ok(())
    })?;
    lines(&dir.join("revocations.jsonl"), &mut loading, |loading, revocation: RevocationRecord| {
        loading.revocation(revocation);
        Ok(())
    })?;
    for path in client_files(dir)? {
        lines(&path, &mut loading, |loading, entry: RecordEntry| loading.entry(entry))?;
    }
    // An empty file is a store without messages; a missing one says that nobody read it.
    let store = dir.join("store.jsonl");
    if store.exists() {
        loading.store();
    }
    lines(&store, &mut loading, |loading, row: StoreRow| {
        loading.row(&row);
        Ok(())
    })?;
    if let Some(leftovers) = whole::<Leftovers>(&dir.join("leftovers.json"))? {
        loading.leftovers(leftovers);
    }
    Ok(loading.finish())
}

fn client_files(dir: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Read { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for found in dir.read_dir().map_err(failed)? {
        let path = found.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("client-") && name.ends_with(".jsonl") {
            paths.push(path);
        }
    }
    // In one order: findings are numbered as they are found.
    paths.sort();
    Ok(paths)
}

/// A file that is one value; `None` when there is no such file.
fn whole<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ReadError::Read { path: path.to_owned(), source }),
    };
    let broken = |error: serde_json::Error| {
        let line = u64::try_from(error.line()).unwrap_or_default();
        ReadError::RecordLine { path: path.to_owned(), line, why: error.to_string() }
    };
    serde_json::from_slice(&text).map(Some).map_err(broken)
}

/// A file of lines; none when there is no such file.
fn lines<T: DeserializeOwned>(
    path: &Path,
    loading: &mut Loading,
    mut take: impl FnMut(&mut Loading, T) -> Result<(), String>,
) -> Result<(), ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if reader.read_until(b'\n', &mut text).map_err(failed)? == 0 {
            break;
        }
        // A drill that was killed leaves half a line: that is no broken record.
        let is_cut = text.last() != Some(&b'\n');
        let taken = match serde_json::from_slice(&text) {
            Ok(value) => take(loading, value),
            Err(_) if is_cut => {
                loading.cut_file(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        taken.map_err(|why| ReadError::RecordLine { path: path.to_owned(), line, why })?;
    }
    Ok(())
}
