//! What the cases need of a store under test.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sluice_store::Store;

/// A store that can be opened several times, broken, and looked into past its own code.
#[async_trait]
pub trait Rig: Send + Sync + Sized {
    /// A store with nothing in it.
    async fn start() -> Self;
    /// Another handle on the same data, as another caller or process would have.
    async fn open(&self) -> Arc<dyn Store>;
    /// Breaks some calls in the middle of whatever they do.
    async fn cut(&self);
    /// Ends the store at once, without a goodbye, and starts it again. Handles are good for calls after that, or
    /// another can be opened.
    async fn crash(&mut self);
    /// All that is stored.
    async fn table(&self) -> Table;
    /// Runs plain SQL past the store.
    async fn run(&self, sql: &str);
    /// Makes those messages so much older.
    async fn age_those(&self, which: &str, seconds: i64);
    /// Makes all messages of a room, and what is owed of it, so much older.
    async fn age(&self, room: &str, seconds: i64);
    /// From now on the tables refuse the data `poison`.
    async fn refuse_poison(&self);
    /// Holds what every publish needs until it is dropped.
    async fn hold(&self) -> Box<dyn Send>;
    /// Transactions that somebody left open.
    async fn open_transactions(&self) -> usize;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    pub room: String,
    pub seq: u64,
    pub sender: String,
    pub key: String,
    pub hash: Vec<u8>,
    pub at_ms: i64,
}

/// Everything a store holds, as told by the tables themselves.
#[derive(Debug, Default)]
pub struct Table {
    pub heads: BTreeMap<String, u64>,
    pub rows: Vec<TableRow>,
    /// `(room, first, last)` of all outbox rows.
    pub owed: Vec<(String, u64, u64)>,
    pub deadlocks: i64,
}

impl Table {
    /// The rules every table keeps while nothing was trimmed: rooms are 1…head without a hole, keys
    /// are there once, times do not run backwards, every seq is owed in exactly one outbox row.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut by_room: BTreeMap<&str, Vec<&TableRow>> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        for row in &self.rows {
            by_room.entry(&row.room).or_default().push(row);
            if !keys.insert((&row.room, &row.sender, &row.key)) {
                faults.push(format!("key twice: {row:?}"));
            }
        }
        let mut owed: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (room, first, last) in &self.owed {
            owed.entry(room).or_default().extend(*first..=*last);
        }
        for (room, &head) in &self.heads {
            let rows = by_room.remove(room.as_str()).unwrap_or_default();
            let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
            if seqs != (1..=head).collect::<Vec<_>>() {
                faults.push(format!("{room}: head {head}, but seqs {}", brief(&seqs)));
            }
            if !rows.is_sorted_by_key(|row| row.at_ms) {
                faults.push(format!("{room}: times run backwards"));
            }
            let mut owed = owed.remove(room.as_str()).unwrap_or_default();
            owed.sort_unstable();
            if owed != seqs {
                faults.push(format!("{room}: seqs {}, but owed {}", brief(&seqs), brief(&owed)));
            }
        }
        faults.extend(by_room.keys().map(|room| format!("messages without a room row: {room}")));
        if self.deadlocks > 0 {
            faults.push(format!("{} deadlocks", self.deadlocks));
        }
        faults
    }
}

/// The seqs up to the first break, and what follows it.
fn brief(seqs: &[u64]) -> String {
    let run = seqs.iter().zip(1..).take_while(|&(&seq, n)| seq == n).count();
    format!("1…{run} then {:?} ({} in all)", &seqs[run..seqs.len().min(run + 3)], seqs.len())
}
