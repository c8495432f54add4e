//! Brings the runs together: each is read once and added; percentiles are taken at the end, over all of them.

use std::collections::{BTreeMap, HashMap};

use super::{
    client::MeasuredClient,
    comeback::Absence,
    deliveries::Deliveries,
    folder::{self, EntryBody, RunFolder},
    measures::{Broken, ExitTimes, KindMeasure, MeasureError, Measures, RunFacts, Totals},
    silence::{MeasureWindows, Silences},
    spread::{Counted, Spread},
    targets,
    timeline::{self, Timeline},
    windows,
};
use sluice_judge::{
    record::{ClientEvent, FaultRecord},
    verdict::{AnomalyKind, Verdict},
};

/// All that was added so far.
pub(super) struct MeasureSums {
    measures: Measures,
    kinds: BTreeMap<String, KindSums>,
    exits: BTreeMap<String, (Vec<u64>, u64)>,
    quiet: Vec<u64>,
    publish: Counted,
    delivery: Counted,
    timeline: Timeline,
    added: usize,
}

#[derive(Default)]
struct KindSums {
    faults: u64,
    hit: u64,
    broken: Broken,
    exits: Vec<u64>,
    silences: Vec<u64>,
    beyond_told: Vec<u64>,
    after_notice: Vec<u64>,
    away: Vec<u64>,
    away_beyond_told: Vec<u64>,
}

/// A run while its clients are read.
struct RunReader {
    plan: MeasureWindows,
    clients: HashMap<u32, MeasuredClient>,
    deliveries: Deliveries,
    /// When the last beacon was sent: who heard none after it need not have.
    last_beacon: u64,
}

impl MeasureSums {
    /// An empty one for these runs, which are laid one after another on a common axis.
    pub(super) fn new(parts: &[RunFolder]) -> Self {
        let mut length_us = 0;
        let mut offsets = Vec::new();
        for part in parts {
            offsets.push(length_us);
            length_us += part.length_us;
        }
        let facts = parts.iter().zip(&offsets).map(|(part, offset)| facts(part, *offset)).collect();
        let timeline = Timeline::new(length_us);
        let measures = Measures {
            parts: facts,
            connections: timeline::connections(parts, &offsets),
            step_us: timeline.step_us(),
            delivery_one_in: 1,
            ..Measures::default()
        };
        Self {
            measures,
            kinds: BTreeMap::new(),
            exits: BTreeMap::new(),
            quiet: Vec::new(),
            publish: Counted::default(),
            delivery: Counted::default(),
            timeline,
            added: 0,
        }
    }

    /// Adds the next run.
    pub(super) fn add(&mut self, part: &RunFolder, verdict: &Verdict) -> Result<(), MeasureError> {
        let offset = self.measures.parts.get(self.added).map_or(0, |facts| facts.offset_us);
        self.added += 1;
        self.add_faults(&part.faults, offset);
        self.add_anomalies(&part.faults, verdict);
        let totals = &mut self.measures.totals;
        totals.runs += 1;
        if !totals.seeds.contains(&part.run.seed) {
            totals.seeds.push(part.run.seed);
        }
        totals.faults += under_load(part).len() as u64;
        totals.hit += under_load(part).iter().filter(|fault| fault.hit).count() as u64;
        totals.anomalies += verdict.anomalies_total;
        self.add_clients(part, offset)
    }

    fn add_faults(&mut self, faults: &[FaultRecord], offset: u64) {
        for fault in faults {
            let kind = self.kinds.entry(fault.kind.clone()).or_default();
            kind.faults += 1;
            kind.hit += u64::from(fault.hit);
            if let Some(exit) = &fault.exit {
                kind.exits.push(exit.took_ms * 1_000);
                if exit.budget_ms > 0 {
                    let (took, budget) = self.exits.entry(service(&fault.target)).or_default();
                    took.push(exit.took_ms * 1_000);
                    *budget = exit.budget_ms.max(*budget);
                }
            }
            let mut fault = fault.clone();
            fault.began_us += offset;
            fault.healed_us += offset;
            self.measures.faults.push(fault);
        }
    }

    /// An anomaly is put down to the last fault that had begun when it showed.
    fn add_anomalies(&mut self, faults: &[FaultRecord], verdict: &Verdict) {
        for anomaly in &verdict.anomalies {
            let before = faults.iter().rfind(|fault| anomaly.at_us > 0 && fault.began_us <= anomaly.at_us);
            let broken = match before {
                Some(fault) => &mut self.kinds.entry(fault.kind.clone()).or_default().broken,
                None => &mut self.measures.elsewhere,
            };
            *match anomaly.kind {
                AnomalyKind::LostWrite | AnomalyKind::Gap => &mut broken.lost,
                AnomalyKind::Duplicate => &mut broken.duplicated,
                AnomalyKind::Reordered => &mut broken.reordered,
                AnomalyKind::Phantom
                | AnomalyKind::RefusedStored
                | AnomalyKind::StoreHole
                | AnomalyKind::Dishonest
                | AnomalyKind::Unresolved
                | AnomalyKind::Starved
                | AnomalyKind::Early
                | AnomalyKind::Late
                | AnomalyKind::Unrevoked
                | AnomalyKind::BadExit
                | AnomalyKind::Untold
                | AnomalyKind::PresenceWrong
                | AnomalyKind::FalseLeave
                | AnomalyKind::Leak => &mut broken.other,
            } += 1;
        }
        self.measures.unlisted += verdict.anomalies_total.saturating_sub(verdict.anomalies.len() as u64);
    }

    fn add_clients(&mut self, part: &RunFolder, offset: u64) -> Result<(), MeasureError> {
        let felt = windows::of_faults(under_load(part));
        let faults: Vec<_> = felt.iter().map(|felt| felt.window).collect();
        let quiet = windows::quiet(&faults, part.length_us);
        let felt: Vec<_> = felt.iter().filter_map(|felt| part.faults.get(felt.fault)).collect();
        let end = if part.run.sent_until_us == 0 { settled_us(part) } else { part.run.sent_until_us };
        let mut reader = RunReader {
            plan: MeasureWindows { beacon_room: part.run.beacon_room.clone(), faults, quiet, end },
            clients: HashMap::new(),
            deliveries: Deliveries::default(),
            last_beacon: 0,
        };
        for path in &part.clients {
            let unread = folder::each_entry(path, |at, id, said| {
                if let Some((sent, took)) = reader.take(at, id, said) {
                    self.publish.add(took);
                    self.timeline.add(offset + sent, took);
                }
            })?;
            self.measures.unread_lines += unread;
        }
        let settled = settled_us(part).min(part.length_us);
        for mut client in reader.clients.into_values() {
            self.add_absences(&felt, client.absences(&reader.plan, settled));
            self.measures.totals.publishes += client.published;
            self.measures.totals.deliveries += client.got;
            self.add_heard(&felt, client.finish(&reader.plan, reader.last_beacon));
        }
        let one_in = reader.deliveries.finish(&mut self.delivery);
        self.measures.delivery_one_in = one_in.max(self.measures.delivery_one_in);
        Ok(())
    }

    /// `faults`: the one of each window.
    fn add_heard(&mut self, faults: &[&FaultRecord], silences: Silences) {
        self.quiet.extend(silences.quiet);
        let told: HashMap<usize, u64> = silences.told.into_iter().collect();
        for (i, silence) in silences.faults {
            let Some(kind) = self.kind_that_hit(faults, i) else { continue };
            kind.silences.push(silence);
            if let Some(told) = told.get(&i) {
                kind.beyond_told.push(silence.saturating_sub(*told));
            }
        }
        for (i, took) in silences.noticed {
            if let Some(kind) = self.kind_that_hit(faults, i) {
                kind.after_notice.push(took);
            }
        }
    }

    fn add_absences(&mut self, faults: &[&FaultRecord], absences: Vec<(usize, Absence)>) {
        for (i, absence) in absences {
            let Some(kind) = self.kind_that_hit(faults, i) else { continue };
            kind.away.push(absence.took);
            kind.away_beyond_told.extend(absence.told.map(|told| absence.took.saturating_sub(told)));
        }
    }

    fn kind_that_hit(&mut self, faults: &[&FaultRecord], i: usize) -> Option<&mut KindSums> {
        let fault = faults.get(i).filter(|fault| fault.hit)?;
        self.kinds.get_mut(&fault.kind)
    }

    /// Percentiles of everything that was added.
    pub(super) fn finish(self) -> Measures {
        let kinds: Vec<_> = self.kinds.into_iter().map(|(kind, sums)| sums.finish(kind)).collect();
        let exits = self.exits.into_iter().filter_map(|(service, (took, budget_ms))| {
            Some(ExitTimes { service, took: Spread::of(took)?, budget_us: budget_ms * 1_000 })
        });
        let steady = Spread::of(self.quiet);
        Measures {
            totals: Totals { acked: self.publish.n(), ..self.measures.totals },
            targets: targets::judge(&kinds, steady.as_ref()),
            kinds,
            steady,
            publish: self.publish.spread(),
            delivery: self.delivery.spread(),
            over_time: self.timeline.finish(),
            exits: exits.collect(),
            ..self.measures
        }
    }
}

impl KindSums {
    fn finish(self, kind: String) -> KindMeasure {
        let only = |name: &str, values: Vec<u64>| (kind == name).then(|| Spread::of(values)).flatten();
        KindMeasure {
            faults: self.faults,
            hit: self.hit,
            broken: self.broken,
            exit: Spread::of(self.exits),
            silence: Spread::of(self.silences),
            beyond_told: only("term gateway", self.beyond_told),
            after_notice: only("kill gateway", self.after_notice),
            away: Spread::of(self.away),
            away_beyond_told: Spread::of(self.away_beyond_told),
            kind,
        }
    }
}

impl RunReader {
    /// One entry; answers when a publish that was accepted by it was first sent, and how long it took.
    fn take(&mut self, at: u64, id: u32, said: EntryBody<'_>) -> Option<(u64, u64)> {
        let client = self.clients.entry(id).or_insert_with(|| MeasuredClient::new(id));
        match said {
            EntryBody::Got(got) => {
                client.got(&self.plan, &mut self.deliveries, at, &got);
                None
            }
            EntryBody::ClientEvent(what) => {
                if let ClientEvent::Send { room, .. } = &*what
                    && *room == self.plan.beacon_room
                {
                    self.last_beacon = self.last_beacon.max(at);
                }
                let acked = client.see(&self.plan, &mut self.deliveries, at, &what)?;
                Some((acked.at, acked.took))
            }
        }
    }
}

/// The faults of a run without the stops of its end, when nobody listens any more.
fn under_load(part: &RunFolder) -> &[FaultRecord] {
    let settled_us = settled_us(part);
    let (faults, _) = part.faults.split_at(part.faults.partition_point(|fault| fault.began_us <= settled_us));
    faults
}

/// When the load was over and everything whole; a run without such a moment has no end.
fn settled_us(part: &RunFolder) -> u64 {
    if part.run.settled_us == 0 { u64::MAX } else { part.run.settled_us }
}

fn facts(part: &RunFolder, offset_us: u64) -> RunFacts {
    RunFacts {
        command: part.run.command.clone(),
        scenario: part.run.scenario.clone(),
        seed: part.run.seed,
        build: part.run.build.clone(),
        started_ms: part.run.started_ms,
        clients: part.run.clients,
        rate_per_s: part.run.rate_per_s,
        offset_us,
        length_us: part.length_us,
        interrupted: part.run.interrupted,
    }
}

/// `gateway-1` is a `gateway`.
fn service(target: &str) -> String {
    let name = target.trim_end_matches(|c: char| c.is_ascii_digit());
    name.strip_suffix('-').unwrap_or(target).to_owned()
}
