//! The files of one run, as far as they are measured. Small ones are read whole, those of clients line by line.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    str,
};

use serde::{Deserialize, de::DeserializeOwned};
use std::borrow::Cow;

use super::measures::MeasureError;
use sluice_judge::record::{ClientEvent, FaultRecord, RunRecord, Sample};

/// One large read instead of many: records are long.
const READ_BYTES: usize = 1 << 20;

/// A run's folder, opened.
pub(super) struct RunFolder {
    pub(super) run: RunRecord,
    /// In order of `began_us`.
    pub(super) faults: Vec<FaultRecord>,
    pub(super) samples: Vec<Sample>,
    pub(super) clients: Vec<PathBuf>,
    /// How long the run was: the latest time in the files above.
    pub(super) length_us: u64,
}

/// What a line of a client's file says. Deliveries are by far the most, and little of them is needed.
pub(super) enum EntryBody<'a> {
    Got(DeliveryEntry<'a>),
    ClientEvent(Box<ClientEvent>),
}

/// A delivery.
#[derive(Deserialize)]
pub(super) struct DeliveryEntry<'a> {
    pub(super) conn: u32,
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) room: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) from: Cow<'a, str>,
    pub(super) hash: u64,
}

#[derive(Deserialize)]
struct GotLine<'a> {
    #[serde(borrow)]
    got: DeliveryEntry<'a>,
}

/// Opens the folder of a run; `unread` counts lines that are not what they should be.
pub(super) fn open(dir: &Path, unread: &mut u64) -> Result<RunFolder, MeasureError> {
    let run = run(&dir.join("run.json"))?;
    let mut faults: Vec<FaultRecord> = all(&dir.join("faults.jsonl"), unread)?;
    faults.sort_by_key(|fault| fault.began_us);
    let samples: Vec<Sample> = all(&dir.join("samples.jsonl"), unread)?;
    let clients = clients(dir)?;
    let healed = faults.iter().map(|fault| fault.healed_us.max(fault.began_us)).max();
    let sampled = samples.last().map(|sample| sample.at_us);
    let length_us = [Some(run.load_us), Some(run.settled_us), healed, sampled].into_iter().flatten().max();
    Ok(RunFolder { run, faults, samples, clients, length_us: length_us.unwrap_or(0) })
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> MeasureError {
    let path = path.to_owned();
    move |source| MeasureError::Read { path, source }
}

fn run(path: &Path) -> Result<RunRecord, MeasureError> {
    let bytes = std::fs::read(path).map_err(read_error(path))?;
    serde_json::from_slice(&bytes).map_err(|source| MeasureError::Json { path: path.to_owned(), source })
}

/// All lines of a small file; a file that is not there has none.
fn all<T: DeserializeOwned>(path: &Path, unread: &mut u64) -> Result<Vec<T>, MeasureError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    *unread += each_line(path, |line| serde_json::from_str(line).map(|line| lines.push(line)).is_ok())?;
    Ok(lines)
}

fn clients(dir: &Path) -> Result<Vec<PathBuf>, MeasureError> {
    let mut clients = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read_error(dir))? {
        let path = entry.map_err(read_error(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("client-") && name.ends_with(".jsonl") {
            clients.push(path);
        }
    }
    clients.sort();
    Ok(clients)
}

/// Shows each entry of a client file to `take`: when, who, what. Answers how many lines could not be read.
pub(super) fn each_entry(
    path: &Path,
    mut take: impl FnMut(u64, u32, EntryBody<'_>),
) -> Result<u64, MeasureError> {
    each_line(path, |line| entry(line).map(|(at, client, said)| take(at, client, said)).is_some())
}

fn entry(line: &str) -> Option<(u64, u32, EntryBody<'_>)> {
    let (at, rest) = line.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
    let (client, what) = rest.split_once(',')?;
    let what = what.trim_start();
    let said = if what.starts_with(r#"{"got""#) {
        EntryBody::Got(serde_json::from_str::<GotLine<'_>>(what).ok()?.got)
    } else {
        EntryBody::ClientEvent(Box::new(serde_json::from_str(what).ok()?))
    };
    Some((at.trim().parse().ok()?, client.trim().parse().ok()?, said))
}

/// Shows each line that is not empty to `take`, which says whether it could read it; answers how many it could not.
fn each_line(path: &Path, mut take: impl FnMut(&str) -> bool) -> Result<u64, MeasureError> {
    let mut file = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(read_error(path))?);
    let mut bytes = Vec::new();
    let mut unread = 0;
    while file.read_until(b'\n', &mut bytes).map_err(read_error(path))? > 0 {
        let line = str::from_utf8(&bytes).map(str::trim);
        if !line.is_ok_and(|line| line.is_empty() || take(line)) {
            unread += 1;
        }
        bytes.clear();
    }
    Ok(unread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_judge::record::RecordEntry;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let got = ClientEvent::Got {
            conn: 1,
            room: "caf\u{e9} \"x\"".into(),
            seq: 3,
            from: "ann".into(),
            key: None,
            hash: u64::MAX,
        };
        let line = serde_json::to_string(&RecordEntry(12, 7, got)).unwrap();
        let Some((12, 7, EntryBody::Got(got))) = entry(&line) else { panic!("{line}") };
        assert_eq!((&*got.room, &*got.from, got.hash), ("caf\u{e9} \"x\"", "ann", u64::MAX));
        let line = serde_json::to_string(&RecordEntry(13, 8, ClientEvent::End)).unwrap();
        let Some((13, 8, EntryBody::ClientEvent(what))) = entry(&line) else { panic!("{line}") };
        assert_eq!(*what, ClientEvent::End);
        assert!(entry(r#"[1,2,{"got":{"conn":1,"ro"#).is_none());
    }
}
