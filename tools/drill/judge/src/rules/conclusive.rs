//! Whether the run says anything: it was not interrupted, its load was real, its faults hit.

use std::collections::BTreeMap;

use crate::history::{History, StepKind};
use crate::record::ClientEvent;
use crate::verdict::Counts;

/// Part of the rate asked for that must have been sent.
const RATE_PERCENT: u64 = 80;

pub(super) fn doubts(history: &History, counts: &Counts, judged: u64) -> Vec<String> {
    let (run, mut doubts) = (&history.run, Vec::new());
    if run.interrupted {
        doubts.push("the run was interrupted".to_owned());
    }
    // Said once: an interrupted run has cut files of course.
    if !run.interrupted && !history.cut_files.is_empty() {
        doubts.push(format!("{} ends in the middle of a line", history.cut_files.join(", ")));
    }
    if !history.has_store {
        doubts.push("store.jsonl is missing: what is stored is not known".to_owned());
    }
    // Without them a room whose last messages are gone looks whole.
    if history.heads.is_empty() && !history.rows.is_empty() {
        doubts.push("leftovers.json has no heads: they were not compared with the store".to_owned());
    }
    // A load that was not there breaks nothing and proves nothing.
    let asked = u64::from(run.rate_per_s).saturating_mul(run.load_us) / 1_000_000;
    if counts.sent.saturating_mul(100) < asked.saturating_mul(RATE_PERCENT) {
        doubts.push(format!("only {} messages were sent of {asked} asked for", counts.sent));
    }
    if counts.delivered == 0 {
        doubts.push("nothing was delivered".to_owned());
    }
    let is_open = |what: &ClientEvent| matches!(what, ClientEvent::Open { .. });
    let opened = history.clients.iter().filter(|client| {
        client.steps.iter().any(|step| matches!(&step.act, StepKind::Other(what) if is_open(what)))
    });
    let opened = opened.count() as u64;
    if opened < u64::from(run.clients) {
        doubts.push(format!("only {opened} of {} clients were connected", run.clients));
    }
    if judged == 0 && !run.interrupted && history.has_store {
        doubts.push(
            "no subscriber stayed until the run had settled: nobody knows whether everything arrived"
                .to_owned(),
        );
    }
    faults(history, &mut doubts);
    doubts
}

fn faults(history: &History, doubts: &mut Vec<String>) {
    let mut missed: BTreeMap<&str, u64> = BTreeMap::new();
    for fault in history.faults.iter().filter(|fault| !fault.hit) {
        *missed.entry(&fault.kind).or_default() += 1;
    }
    for (kind, times) in missed {
        doubts.push(format!("`{kind}` hit nothing, {times} times"));
    }
    // round 0 is what the drill itself stops at its end
    if history.run.scenario != "calm" && !history.faults.iter().any(|fault| fault.round > 0) {
        doubts.push(format!("no fault was done, though the scenario is `{}`", history.run.scenario));
    }
}
