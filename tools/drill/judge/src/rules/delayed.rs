//! What was to be published later is in the store once, with its data, neither early nor late; what was cancelled is not.

use std::collections::HashMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, StoredRow};
use crate::record::{CancelOutcome, DelayedRecord};
use crate::verdict::AnomalyKind;

/// Room, user and key of a message.
type Name = (u32, u32, u32);

pub(super) fn judge(history: &History, findings: &mut Findings) {
    if history.delayed.is_empty() || !history.has_store {
        return;
    }
    // Of one that is stored twice the first: that there are two is judged with the store.
    let mut rows: HashMap<Name, (u32, &StoredRow)> = HashMap::new();
    for (index, row) in (0..).zip(&history.rows) {
        rows.entry(history.name_of(row)).or_insert((index, row));
    }
    for (name, delayed) in &history.delayed {
        let row = rows.get(name).copied();
        if let Some((kind, why)) = wrong(history, delayed, row.map(|(_, row)| row)) {
            findings.add(kind, || {
                let DelayedRecord { room, user, key, .. } = delayed;
                Finding::new(format!("the delayed message {key:?} of {user} in {room:?} {why}"))
                    .room(name.0)
                    .lines(row.map(|(index, _)| RecordLine::Row(index)))
            });
        }
    }
}

/// What is wrong with it, if anything is.
fn wrong(
    history: &History,
    delayed: &DelayedRecord,
    row: Option<&StoredRow>,
) -> Option<(AnomalyKind, String)> {
    let Some(row) = row else {
        // A restored store forgets; without an answer it may never have been kept.
        let is_owed = delayed.due_ms.is_some() && history.restores.is_empty();
        return match delayed.cancel {
            None | Some(CancelOutcome::TooLate) if is_owed => {
                Some((AnomalyKind::LostWrite, "was accepted, and is not published".to_owned()))
            }
            Some(CancelOutcome::Cancelled | CancelOutcome::Unknown | CancelOutcome::TooLate) | None => None,
        };
    };
    let seq = row.seq;
    if history.messages[row.message as usize].hash != delayed.hash {
        return Some((AnomalyKind::Phantom, format!("is published as {seq} with other data")));
    }
    if delayed.cancel == Some(CancelOutcome::Cancelled) {
        return Some((AnomalyKind::Dishonest, format!("was cancelled, and is published as {seq}")));
    }
    let after_ms = row.at_ms - delayed.due_ms?;
    if after_ms < 0 {
        return Some((AnomalyKind::Early, format!("is published {} ms early, as {seq}", -after_ms)));
    }
    if after_ms > delayed.late_ms {
        return Some((AnomalyKind::Late, format!("is published {after_ms} ms late, as {seq}")));
    }
    None
}
