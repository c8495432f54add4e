//! The files of what clients saw: appended to in memory, written by a thread of their own, so that a slow disk does
//! not stop the runtime that it reports on. All lines of a client are in one file, in order. It judges nothing.

mod line;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use sluice_judge::record::ClientEvent;

use crate::clock::Clock;
pub use line::Delivery;

/// Between two writes to the files: what a killed drill loses.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// Bytes in memory above which whoever appends writes them itself: a disk that does not keep up slows the load.
const UNWRITTEN_MAX: usize = 16 * 1024 * 1024;

/// All files of a run's clients.
#[derive(Debug)]
pub struct Records {
    clock: Clock,
    record_files: Vec<Arc<RecordFile>>,
    /// Dropped to end the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One file: what is not written yet, and where it goes.
#[derive(Debug)]
struct RecordFile {
    unwritten: Mutex<Vec<u8>>,
    file: Mutex<FileState>,
}

#[derive(Debug)]
struct FileState {
    file: File,
    /// Used in turn with `unwritten`, so that neither is allocated again.
    spare: Vec<u8>,
    failed: Option<io::Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    /// Begins `client-1.jsonl` … in `dir`, as many as `files`.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub fn create(dir: &Path, files: usize, clock: Clock) -> anyhow::Result<Self> {
        let mut record_files = Vec::new();
        for number in 1..=files.max(1) {
            let path = dir.join(format!("client-{number}.jsonl"));
            let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
            let state = FileState { file, spare: Vec::new(), failed: None };
            record_files.push(Arc::new(RecordFile { unwritten: Mutex::default(), file: Mutex::new(state) }));
        }
        // Ended by its drop, also when the drill returns early.
        let (stop, stopped) = sync_channel(1);
        let written = record_files.clone();
        let thread =
            std::thread::Builder::new().name("records".into()).spawn(move || write(&written, &stopped))?;
        Ok(Self { clock, record_files, stop: Some(stop), thread: Some(thread) })
    }

    /// Who writes for this client.
    #[must_use]
    pub fn writer(&self, client: u32) -> RecordWriter {
        let record_file = &self.record_files[client as usize % self.record_files.len()];
        RecordWriter { client, clock: self.clock, record_file: Arc::clone(record_file) }
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// When anything could not be written: the records are not whole.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.end();
        for record_file in &self.record_files {
            if let Some(error) = lock(&record_file.file).failed.take() {
                return Err(error).context("the records are not whole: is the disk full?");
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Before the last write: two writers would mix their parts.
            thread.join().ok(); // it has nothing to panic about
        }
        for record_file in &self.record_files {
            record_file.write_out(); // what was appended after the thread's last look
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread.
fn write(record_files: &[Arc<RecordFile>], stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(WRITE_EVERY) {
        record_files.iter().for_each(|record_file| record_file.write_out());
    }
}

impl RecordFile {
    fn append(&self, line: impl FnOnce(&mut Vec<u8>) -> u64) -> u64 {
        let mut unwritten = lock(&self.unwritten);
        let at = line(&mut unwritten);
        unwritten.push(b'\n');
        let much = unwritten.len() > UNWRITTEN_MAX;
        drop(unwritten);
        // After the lock is gone: others append while this one writes.
        if much {
            self.write_out();
        }
        at
    }

    fn write_out(&self) {
        let mut state = lock(&self.file); // held over both, so that parts stay in order
        let mut part = std::mem::take(&mut state.spare);
        std::mem::swap(&mut part, &mut lock(&self.unwritten));
        if let Err(error) = state.file.write_all(&part) {
            state.failed.get_or_insert(error);
        }
        part.clear();
        state.spare = part;
    }
}

/// Writes down what happens to one client. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct RecordWriter {
    client: u32,
    clock: Clock,
    record_file: Arc<RecordFile>,
}

impl RecordWriter {
    /// Whose life this is.
    #[must_use]
    pub fn client(&self) -> u32 {
        self.client
    }

    /// Writes down that this happens now; returns when that is. Two notes that must keep an order are written in it.
    pub fn note(&self, what: &ClientEvent) -> u64 {
        self.record_file.append(|bytes| {
            let at = self.clock.now_us();
            line::entry(bytes, at, self.client, what);
            at
        })
    }

    /// [`ClientEvent::Got`], by hand: most lines of a run are this one.
    pub fn got(&self, delivery: &Delivery<'_>) -> u64 {
        self.record_file.append(|bytes| {
            let at = self.clock.now_us();
            line::got(bytes, at, self.client, delivery);
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use sluice_judge::record::{RecordEntry, hash_of};

    use super::*;

    #[test]
    fn what_is_written_is_what_the_judge_reads() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::create(folder.path(), 2, Clock::start()).unwrap();
        let writers = [1, 2, 3].map(|client| records.writer(client));
        let mut noted = Vec::new();
        for n in 1..=3_000 {
            let writer = &writers[n as usize % 3];
            let key = (n % 2 == 0).then(|| format!("k\"{n}\u{e9}\\"));
            let (room, from) = (format!("r-{}", n % 7), format!("u{n}"));
            let hash = hash_of(key.as_deref().unwrap_or_default().as_bytes());
            let delivery = Delivery { conn: 1, room: &room, seq: n, from: &from, key: key.as_deref(), hash };
            let at = writer.got(&delivery);
            let what = ClientEvent::Got {
                conn: 1,
                room: room.clone(),
                seq: n,
                from: from.clone(),
                key: key.clone(),
                hash,
            };
            noted.push(RecordEntry(at, writer.client(), what));
            let what =
                ClientEvent::Answer { conn: 1, n, outcome: sluice_judge::record::PublishOutcome::Ok(n) };
            noted.push(RecordEntry(writer.note(&what), writer.client(), what));
        }
        records.close().unwrap();
        for client in 1..=3_u32 {
            let path = folder.path().join(format!("client-{}.jsonl", client % 2 + 1));
            let text = std::fs::read_to_string(path).unwrap();
            let read: Vec<RecordEntry> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of = |entries: &[RecordEntry]| -> Vec<RecordEntry> {
                entries.iter().filter(|RecordEntry(_, whose, _)| *whose == client).cloned().collect()
            };
            assert_eq!(of(&read), of(&noted), "client {client}");
            assert!(of(&read).is_sorted_by_key(|RecordEntry(at, ..)| *at), "client {client}");
        }
    }
}
