//! Every publish comes to an end: answered, or given up because something was broken all the while. Whoever asked for
//! half a minute while nothing was broken, without an answer, was let down.

use std::collections::HashSet;

use super::acked::sendings;
use crate::findings::{Finding, Findings};
use crate::history::{ClientHistory, Fate, History, NONE, Sending, SentMessage, StepKind};
use crate::record::ClientEvent;
use crate::verdict::AnomalyKind;

/// How long a client asks while nothing is broken before it is owed an answer.
const PATIENCE_US: u64 = 30_000_000;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    if history.run.interrupted {
        return;
    }
    let mut is_final = vec![false; history.sent.len()];
    for answer in &history.answers {
        is_final[answer.sent as usize] |= matches!(answer.fate, Fate::Ok(_) | Fate::Refused(_));
    }
    let closed = closed(history);
    let ends: Vec<Option<u64>> = history.clients.iter().map(end_of).collect();
    for (sent, is_final) in history.sent.iter().zip(is_final) {
        // Answered, or one of those that nobody can send again.
        if is_final || (sent.gave_up_us == 0 && is_lost(history, sent, &closed)) {
            continue;
        }
        let gave_up_us =
            if sent.gave_up_us == 0 { ends[sent.client as usize] } else { Some(sent.gave_up_us) };
        let asked_us =
            gave_up_us.map(|until_us| until_us.saturating_sub(whole_since(history, sent, until_us)));
        // Broken nearly all the while: to give up was right.
        if asked_us.is_some_and(|asked_us| asked_us < PATIENCE_US) {
            continue;
        }
        findings.add(AnomalyKind::Unresolved, || {
            let what = history.called(sent.message);
            let text = match asked_us {
                Some(asked_us) => {
                    format!("{what} had no answer for {} s while nothing was broken", asked_us / 1_000_000)
                }
                None => format!("{what} never had an answer, and its client went on asking"),
            };
            Finding::new(text)
                .at(gave_up_us.unwrap_or(sent.first_us))
                .room(sent.room)
                .client(sent.client)
                .lines(sendings(history, sent))
        });
    }
}

fn end_of(client: &ClientHistory) -> Option<u64> {
    let last = client.steps.last()?;
    matches!(&last.act, StepKind::Other(what) if **what == ClientEvent::End).then_some(last.at_us)
}

/// Since when it was asked for and nothing was broken.
fn whole_since(history: &History, sent: &SentMessage, until_us: u64) -> u64 {
    let faults = history.faults.iter().filter(|fault| fault.began_us < until_us);
    faults.map(|fault| fault.healed_us).fold(sent.first_us, u64::max)
}

/// Connections that ended, by index of the client.
fn closed(history: &History) -> HashSet<(u32, u32)> {
    let mut closed = HashSet::new();
    for (index, client) in (0..).zip(&history.clients) {
        for step in &client.steps {
            if let StepKind::Other(what) = &step.act
                && let ClientEvent::Closed { conn, .. } = **what
            {
                closed.insert((index, conn));
            }
        }
    }
    closed
}

/// Without key it is not sent again: a lost connection, or a `retry:true`, leaves it unknown.
fn is_lost(history: &History, sent: &SentMessage, closed: &HashSet<(u32, u32)>) -> bool {
    let is_keyless = history.messages[sent.message as usize].key == NONE;
    let is_over =
        |sending: &Sending| history.fate(sending).is_some() || closed.contains(&(sent.client, sending.conn));
    is_keyless && history.sendings_of(sent).all(|(_, sending)| is_over(sending))
}
