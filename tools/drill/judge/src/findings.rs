//! What rules found, before it is written out: bounded, however much is wrong.

use std::collections::BTreeMap;

use crate::history::History;
use crate::history::lines::RecordLine;
use crate::verdict::{Anomaly, AnomalyKind};

/// Most anomalies of a verdict.
pub const KEPT_MAX: usize = 200;
/// Most lines of a slice.
pub const LINES_MAX: usize = 40;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// When it showed; 0 = only at the end.
    pub at_us: u64,
    /// In which room.
    pub room: Option<u32>,
    /// Index of the client.
    pub client: Option<u32>,
    /// One sentence.
    pub text: String,
    /// What shows it.
    pub lines: Vec<RecordLine>,
}

impl Finding {
    /// Something that shows only at the end.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { at_us: 0, room: None, client: None, text, lines: Vec::new() }
    }

    /// It shows at this time.
    #[must_use]
    pub fn at(mut self, at_us: u64) -> Self {
        self.at_us = at_us;
        self
    }

    /// It is about this room.
    #[must_use]
    pub fn room(mut self, room: u32) -> Self {
        self.room = Some(room);
        self
    }

    /// It is about this client.
    #[must_use]
    pub fn client(mut self, client: u32) -> Self {
        self.client = Some(client);
        self
    }

    /// These lines show it.
    #[must_use]
    pub fn lines(mut self, lines: impl IntoIterator<Item = RecordLine>) -> Self {
        self.lines.extend(lines);
        self
    }
}

/// All that is wrong: counted in full, kept in part.
#[derive(Debug, Default)]
pub struct Findings {
    kept: BTreeMap<AnomalyKind, Vec<Finding>>,
    total: u64,
}

impl Findings {
    /// One more. It is only made when there is space for it.
    pub fn add(&mut self, kind: AnomalyKind, make: impl FnOnce() -> Finding) {
        self.total += 1;
        let kept = self.kept.entry(kind).or_default();
        if kept.len() < KEPT_MAX {
            kept.push(make());
        }
    }

    /// Whether one more of this kind would only be counted.
    #[must_use]
    pub fn is_full(&self, kind: AnomalyKind) -> bool {
        self.kept.get(&kind).is_some_and(|kept| kept.len() >= KEPT_MAX)
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The anomalies to show: the first of each kind before the second of any, then by time.
    #[must_use]
    pub fn anomalies(self, history: &History) -> Vec<Anomaly> {
        let mut ranked: Vec<(usize, AnomalyKind, Finding)> = Vec::new();
        for (kind, mut kept) in self.kept {
            // What has no time shows only at the end: it stands behind what has one.
            kept.sort_by_key(|finding| (finding.at_us == 0, finding.at_us));
            ranked.extend(kept.into_iter().enumerate().map(|(rank, finding)| (rank, kind, finding)));
        }
        // By rank first: a thousand duplicates must not push the one lost write off the list.
        ranked.sort_by_key(|(rank, ..)| *rank);
        ranked.truncate(KEPT_MAX);
        ranked.sort_by_key(|(_, kind, finding)| (finding.at_us == 0, finding.at_us, *kind));
        ranked.into_iter().map(|(_, kind, finding)| anomaly(kind, finding, history)).collect()
    }
}

fn anomaly(kind: AnomalyKind, finding: Finding, history: &History) -> Anomaly {
    let Finding { at_us, room, client, text, mut lines } = finding;
    lines.sort_by_key(|line| (history.time_of(*line), *line));
    // Two parts of a finding may name the same line.
    lines.dedup();
    lines.truncate(LINES_MAX);
    Anomaly {
        kind,
        at_us,
        room: room.and_then(|room| history.rooms.owned(room)),
        client: client.and_then(|client| history.clients.get(client as usize)).map(|client| client.id),
        text,
        slice: lines.into_iter().map(|line| history.text_of(line)).collect(),
        logs: Vec::new(),
    }
}
