//! The store's epoch changes only when the store was put back, emptied or promoted; and who gets a message of the new
//! history was told of its epoch before.

use std::collections::{HashMap, HashSet};

use super::acked::sendings;
use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, StepKind};
use crate::record::FaultRecord;
use crate::verdict::AnomalyKind;

/// Words of faults after which the store's history is another one. A server that was killed is promoted anew by the Patroni
/// that starts it again.
const CAUSES: [&str; 6] = ["restore", "wipe postgres", "promote", "failover", "epoch", "kill server"];

pub(super) fn judge(history: &History, findings: &mut Findings) {
    let causes: Vec<&FaultRecord> = history.faults.iter().filter(|fault| is_cause(fault)).collect();
    let mut left = causes.iter().peekable();
    for pair in history.epochs.windows(2) {
        let ((_, before), (at_us, after)) = (pair[0], pair[1]);
        if left.next_if(|cause| cause.began_us <= at_us).is_some() {
            continue; // one change each
        }
        findings.add(AnomalyKind::Dishonest, || {
            let (before, after) = (history.words.name(before), history.words.name(after));
            let text =
                format!("the store's epoch became {after} after {before}, though the store was not replaced");
            let faults = (0..).zip(&history.faults).filter(|(_, fault)| fault.began_us <= at_us);
            Finding::new(text).at(at_us).lines(faults.last().map(|(index, _)| RecordLine::Fault(index)))
        });
    }
    // Only if they match one to one it is known which cause has ended which epoch.
    if causes.len() + 1 == history.epochs.len() {
        let ends =
            history.epochs.iter().map(|(_, epoch)| *epoch).zip(causes.iter().map(|cause| cause.healed_us));
        old_labels(history, findings, &ends.collect());
    }
}

fn is_cause(fault: &FaultRecord) -> bool {
    fault.copied_us.is_some() || CAUSES.iter().any(|cause| fault.kind.contains(cause))
}

/// Messages that were sent when an epoch was over, delivered to subscriptions that still stand in it: what differs
/// between the histories was silently passed over. `ends`: when which epoch was over.
fn old_labels(history: &History, findings: &mut Findings, ends: &HashMap<u32, u64>) {
    for (client, it) in (0..).zip(&history.clients) {
        let mut epochs: HashMap<(u32, u32), (u32, u32)> = HashMap::new();
        let mut found: HashSet<u32> = HashSet::new();
        let lane = |conn: u32| if it.library { 0 } else { conn };
        for (step, at) in (0..).zip(&it.steps) {
            if let StepKind::Subscribed(told) = &at.act {
                epochs.insert((lane(told.conn), told.room), (told.epoch, step));
            }
            let StepKind::Got { seq, room, message, conn } = at.act else { continue };
            let Some((epoch, told)) = epochs.get(&(lane(conn), room)) else { continue };
            let Some(over_us) = ends.get(epoch) else { continue };
            let first_us = history.sent_as(room, message).map(|(_, sent)| sent.first_us).min();
            // Sent before: it may stand in both histories, and its label says nothing.
            if first_us.is_none_or(|first_us| first_us <= *over_us) || !found.insert(room) {
                continue;
            }
            findings.add(AnomalyKind::Gap, || {
                let (name, epoch) = (history.rooms.name(room), history.words.name(*epoch));
                let text = format!(
                    "client {} got {seq} of {name:?}, which is of the new history, and was not told that epoch {epoch} is over",
                    it.id
                );
                let sent = history.sent_as(room, message).flat_map(|(_, sent)| sendings(history, sent));
                Finding::new(text)
                    .at(at.at_us)
                    .room(room)
                    .client(client)
                    .lines([RecordLine::Step(client, *told), RecordLine::Step(client, step)])
                    .lines(sent)
            });
        }
    }
}
