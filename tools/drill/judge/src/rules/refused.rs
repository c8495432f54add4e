//! What was refused, or certainly not sent, each time it was sent, is not stored; and a conflict has a reason.

use std::collections::{HashMap, HashSet};

use super::acked::sendings;
use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{Fate, History, NONE, Sending};
use crate::verdict::AnomalyKind;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for (index, row) in (0..).zip(&history.rows) {
        let mut sent = history.sent_as(row.room, row.message).peekable();
        // Nobody sent it: `phantom` tells.
        let Some((_, first)) = sent.peek().copied() else { continue };
        let mut all = sent.flat_map(|(_, sent)| history.sendings_of(sent));
        if !all.all(|(_, sending)| is_not_stored(history, sending)) {
            continue;
        }
        findings.add(AnomalyKind::RefusedStored, || {
            let (what, room, seq) = (history.called(row.message), history.rooms.name(row.room), row.seq);
            let answers =
                history.sendings_of(first).filter_map(|(_, it)| history.answers.get(it.answer as usize));
            Finding::new(format!(
                "{what} is seq {seq} of {room:?}, but every sending was answered as not stored"
            ))
            .room(row.room)
            .client(first.client)
            .lines(sendings(history, first))
            .lines(answers.map(|answer| RecordLine::Step(first.client, answer.step)))
            .lines([RecordLine::Row(index)])
        });
    }
    conflicts(history, findings);
}

/// A conflict that the library tells speaks for all its sendings, but only until the store is put back.
fn is_not_stored(history: &History, sending: &Sending) -> bool {
    let Some(answer) = history.answers.get(sending.answer as usize) else { return false };
    let is_conflict = matches!(answer.fate, Fate::Refused(code) if history.words.name(code) == "conflict");
    let was_restored = history.restores.iter().any(|restore| answer.at_us <= restore.healed_us);
    history.is_not_stored(Some(answer.fate)) && !(is_conflict && sending.conn == 0 && was_restored)
}

/// A conflict says that the key had been used with other data.
fn conflicts(history: &History, findings: &mut Findings) {
    let is_conflict = |fate| matches!(fate, Fate::Refused(code) if history.words.name(code) == "conflict");
    let told: Vec<_> = history.answers.iter().filter(|answer| is_conflict(answer.fate)).collect();
    let of = |sent: u32| {
        let sent = &history.sent[sent as usize];
        let message = &history.messages[sent.message as usize];
        (sent.room, message.user, message.key)
    };
    // Only keys of which a conflict was told: to remember the data of all would cost the whole run.
    let used: HashSet<_> = told.iter().map(|answer| of(answer.sent)).collect();
    let mut data: HashMap<_, HashSet<u64>> = HashMap::new();
    for (index, sent) in (0..).zip(&history.sent) {
        if used.contains(&of(index)) {
            data.entry(of(index)).or_default().insert(history.messages[sent.message as usize].hash);
        }
    }
    for answer in told {
        let sent = &history.sent[answer.sent as usize];
        let (room, _, key) = of(answer.sent);
        let is_real = key != NONE && data.get(&of(answer.sent)).is_some_and(|hashes| hashes.len() > 1);
        if !is_real {
            findings.add(AnomalyKind::Dishonest, || {
                let text = "was told of a conflict, but its key was never used with other data";
                Finding::new(format!("{} {text}", history.called(sent.message)))
                    .at(answer.at_us)
                    .room(room)
                    .client(sent.client)
                    .lines(sendings(history, sent))
                    .lines([RecordLine::Step(sent.client, answer.step)])
            });
        }
    }
}
