//! Folders of runs that never were: a beacon every 100 ms, listeners that hear it but for known gaps. For tests.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Serialize;

use sluice_judge::record::{
    ClientEvent, FaultRecord, ProcessExit, PublishOutcome, RecordEntry, RunRecord, Sample, hash_of,
};

pub(crate) const SECOND: u64 = 1_000_000;
const BEACON_EVERY: u64 = 100_000;

/// Beacon to listener, and publish to ok.
pub(crate) const DELIVERED_AFTER: u64 = 3_000;
pub(crate) const ACKED_AFTER: u64 = 2_000;

/// A listener: its role, what it does not hear (both ends excluded), and what else befalls it.
pub(crate) struct SyntheticClient {
    pub(crate) role: &'static str,
    pub(crate) deaf: (u64, u64),
    pub(crate) events: Vec<(u64, ClientEvent)>,
}

impl SyntheticClient {
    pub(crate) fn deaf(from: u64, to: u64) -> Self {
        Self { role: "observer", deaf: (from, to), events: Vec::new() }
    }
}

/// A run of 40 s.
pub(crate) struct Synthetic {
    pub(crate) run: RunRecord,
    pub(crate) faults: Vec<FaultRecord>,
    pub(crate) listeners: Vec<SyntheticClient>,
}

impl Synthetic {
    pub(crate) fn new(faults: Vec<FaultRecord>, listeners: Vec<SyntheticClient>) -> Self {
        let run = RunRecord {
            command: "sluice drill --seed 7".into(),
            scenario: "rolling".into(),
            seed: 7,
            build: "0.1.0 (abc1234)".into(),
            started_ms: 1_795_285_861_000,
            load_us: 40 * SECOND,
            settled_us: 40 * SECOND,
            clients: 3,
            rate_per_s: 10,
            beacon_room: "beacon".into(),
            beacon_per_s: 10,
            ..RunRecord::default()
        };
        Self { run, faults, listeners }
    }

    pub(crate) fn write(&self, dir: &Path) {
        fs::write(dir.join("run.json"), serde_json::to_vec(&self.run).unwrap()).unwrap();
        write_lines(&dir.join("faults.jsonl"), &self.faults);
        write_lines(&dir.join("samples.jsonl"), &self.samples());
        write_lines(&dir.join("client-0.jsonl"), &self.beacon());
        for (id, listener) in (1..).zip(&self.listeners) {
            write_lines(&dir.join(format!("client-{id}.jsonl")), &self.listener(id, listener));
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let connections = |at| {
            let gone = self.faults.iter().any(|fault| fault.began_us <= at && at < fault.healed_us);
            BTreeMap::from([("gateway-0".into(), 100), ("gateway-1".into(), if gone { 0 } else { 100 })])
        };
        let times = (0..self.run.load_us).step_by(250_000);
        times.map(|at_us| Sample { at_us, connections: connections(at_us), ..Sample::default() }).collect()
    }

    fn beacons(&self) -> impl Iterator<Item = (u64, u64)> {
        (1..).zip((0..self.run.load_us).step_by(BEACON_EVERY as usize))
    }

    fn beacon(&self) -> Vec<RecordEntry> {
        let mut lines = vec![client(0, "beacon")];
        for (n, at) in self.beacons() {
            let (room, hash) = (self.run.beacon_room.clone(), hash_of(&n.to_le_bytes()));
            let send = ClientEvent::Send { conn: 0, n, room, key: Some(n.to_string()), hash, bytes: 8 };
            let answer = ClientEvent::Answer { conn: 0, n, outcome: PublishOutcome::Ok(n) };
            lines.extend([RecordEntry(at, 0, send), RecordEntry(at + ACKED_AFTER, 0, answer)]);
        }
        lines
    }

    fn listener(&self, id: u32, listener: &SyntheticClient) -> Vec<RecordEntry> {
        let room = self.run.beacon_room.clone();
        let subscribed = ClientEvent::Subscribed {
            conn: 1,
            room: room.clone(),
            after: 0,
            head: 0,
            epoch: "e".into(),
            recovered: true,
            asked: true,
        };
        let mut lines = vec![client(id, listener.role), RecordEntry(0, id, subscribed)];
        let (from, to) = listener.deaf;
        for (n, at) in self.beacons().filter(|(_, at)| *at <= from || *at >= to) {
            let (room, hash) = (room.clone(), hash_of(&n.to_le_bytes()));
            let got = ClientEvent::Got { conn: 1, room, seq: n, from: "user-0".into(), key: None, hash };
            lines.push(RecordEntry(at + DELIVERED_AFTER, id, got));
        }
        lines.extend(listener.events.iter().map(|(at, what)| RecordEntry(*at, id, what.clone())));
        lines.sort_by_key(|RecordEntry(at, ..)| *at);
        lines
    }
}

fn client(id: u32, role: &str) -> RecordEntry {
    RecordEntry(
        0,
        id,
        ClientEvent::Client { user: format!("user-{id}"), role: role.into(), kind: "plain".into() },
    )
}

fn write_lines<T: Serialize>(path: &Path, lines: &[T]) {
    let lines: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// A fault that hit, healed after 2 s, of the given kind at `gateway-1` or the like.
pub(crate) fn fault(kind: &str, began_us: u64) -> FaultRecord {
    let target = format!("{}-1", kind.split_whitespace().last().unwrap());
    let exit = ProcessExit {
        code: Some(0),
        took_ms: 1_200,
        budget_ms: if kind.starts_with("term") { 8_000 } else { 0 },
    };
    FaultRecord {
        round: 1,
        kind: kind.into(),
        target,
        began_us,
        healed_us: began_us + 2 * SECOND,
        hit: true,
        exit: Some(exit),
        copied_us: None,
        note: String::new(),
    }
}
