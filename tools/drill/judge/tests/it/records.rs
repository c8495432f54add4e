//! The records of a run in memory: as lines, so that tests can change any of them before they are judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use sluice_judge::history::Loading;
use sluice_judge::record::{
    ClientEvent, DelayedRecord, FaultRecord, Leftovers, RecordEntry, RevocationRecord, RunRecord, StoreRow,
};
use sluice_judge::verdict::{AnomalyKind, Verdict};
use sluice_judge::{History, judge};

/// All files of a run.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub run: RunRecord,
    pub clients: BTreeMap<u32, Vec<(u64, ClientEvent)>>,
    pub faults: Vec<FaultRecord>,
    pub delayed: Vec<DelayedRecord>,
    pub revocations: Vec<RevocationRecord>,
    pub rows: Vec<StoreRow>,
    pub leftovers: Leftovers,
}

impl Records {
    pub fn history(&self) -> History {
        let mut loading = Loading::new(self.run.clone());
        for (client, lines) in &self.clients {
            for (at_us, what) in lines {
                loading.entry(RecordEntry(*at_us, *client, what.clone())).unwrap();
            }
        }
        self.faults.iter().for_each(|fault| loading.fault(fault.clone()));
        self.delayed.iter().for_each(|delayed| loading.delayed(delayed.clone()));
        self.revocations.iter().for_each(|revocation| loading.revocation(revocation.clone()));
        loading.store();
        self.rows.iter().for_each(|row| loading.row(row));
        loading.leftovers(self.leftovers.clone());
        loading.finish()
    }

    pub fn judged(&self) -> Verdict {
        judge(&self.history())
    }

    /// What is wrong, by name, once each.
    pub fn kinds(&self) -> Vec<AnomalyKind> {
        let mut kinds: Vec<AnomalyKind> =
            self.judged().anomalies.iter().map(|anomaly| anomaly.kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    pub fn assert_green(&self) {
        let verdict = self.judged();
        assert!(verdict.is_green(), "{:#?} {:?}", verdict.anomalies, verdict.inconclusive);
    }

    pub fn write(&self, dir: &Path) {
        let lines = |name: &str, lines: Vec<String>| {
            let mut text = String::new();
            lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
            std::fs::write(dir.join(name), text).unwrap();
        };

        lines("run.json", vec![json(&self.run)]);
        lines("leftovers.json", vec![json(&self.leftovers)]);
        lines("faults.jsonl", self.faults.iter().map(json).collect());
        lines("delayed.jsonl", self.delayed.iter().map(json).collect());
        lines("revocations.jsonl", self.revocations.iter().map(json).collect());
        lines("store.jsonl", self.rows.iter().map(json).collect());
        for (client, entries) in &self.clients {
            let entries =
                entries.iter().map(|(at_us, what)| json(&RecordEntry(*at_us, *client, what.clone())));
            lines(&format!("client-{client}.jsonl"), entries.collect());
        }
    }

    /// All lines that fit, as places to change.
    pub fn places(&self, fits: impl Fn(&ClientEvent) -> bool) -> Vec<(u32, usize)> {
        let all = self.clients.iter().flat_map(|(client, lines)| {
            lines.iter().enumerate().map(move |(index, (_, what))| (*client, index, what))
        });
        all.filter(|(.., what)| fits(what)).map(|(client, index, _)| (client, index)).collect()
    }

    pub fn line(&mut self, (client, index): (u32, usize)) -> &mut ClientEvent {
        &mut self.clients.get_mut(&client).unwrap()[index].1
    }

    pub fn remove(&mut self, (client, index): (u32, usize)) {
        self.clients.get_mut(&client).unwrap().remove(index);
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
