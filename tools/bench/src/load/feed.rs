//! What publishers send: rooms in turn, keys chosen by the client as the libraries do, the time in the data. It
//! keeps no record of what was sent.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Digits of the time at the start of the data.
const STAMP_DIGITS: usize = 20;
/// Comes before the time in every message.
pub(super) const STAMP_AFTER: &[u8] = b"\"data\":\"";

/// Makes publishes.
pub(super) struct Feed {
    rooms: Vec<String>,
    filler: String,
    /// First half of the keys: the time of the start in nanoseconds, so that runs on one store never share a key.
    run: u64,
    next: u64,
    frame: Vec<u8>,
}

impl Feed {
    pub(super) fn new(tag: &str, rooms: usize, data_bytes: usize) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            rooms: (0..rooms.max(1)).map(|n| format!("{tag}.{n}")).collect(),
            filler: "x".repeat(data_bytes.saturating_sub(STAMP_DIGITS + 2)),
            run: since.as_nanos() as u64,
            next: 0,
            frame: Vec::new(),
        }
    }

    /// The room of client `n`.
    pub(super) fn room(&self, n: usize) -> &str {
        &self.rooms[n % self.rooms.len()]
    }

    /// The next publish as a call of the API.
    pub(super) fn call(&mut self, at_ns: u64) -> &[u8] {
        let room = &self.rooms[(self.next % self.rooms.len() as u64) as usize];
        let Self { filler, run, next, frame, .. } = self;
        frame.clear();
        let written = write!(
            frame,
            r#"{{"room":"{room}","data":"{at_ns:020}{filler}","key":"{run:016x}{next:016x}"}}"#
        );
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
        *next += 1;
        frame
    }

    /// The next publish, to be answered with this id.
    pub(super) fn publish(&mut self, id: usize, at_ns: u64) -> &[u8] {
        let room = &self.rooms[(self.next % self.rooms.len() as u64) as usize];
        let Self { filler, run, next, frame, .. } = self;
        frame.clear();
        let written = write!(
            frame,
            r#"{{"pub":"{room}","data":"{at_ns:020}{filler}","key":"{run:016x}{next:016x}","id":{id}}}"#
        );
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
        *next += 1;
        frame
    }
}
