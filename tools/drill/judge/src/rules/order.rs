//! The order of one sender: what one client sent to one room is stored in the order sent.
//!
//! Publishes of one connection are stored in the order sent, and after a `retry:true` nothing later of it; a client
//! sends again what is unanswered, in order, before anything new. So of the sendings of a stored message one must be
//! such that everything sent before it *on the same connection* is stored before it, unless refused for good. A client
//! that deliberately sends an older message on another connection later makes its own order: that sending explains it.
//! The library counts as one connection; what it was no longer asked for when another message was sent binds nothing. A
//! backend that awaits each answer counts as one too; one that does not has a connection for each message, and no order.

use std::collections::HashMap;

use super::acked::sendings;
use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, Fate, History, NONE, SentMessage, StepKind};
use crate::verdict::AnomalyKind;

/// What is known of a message of the client that is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OrderPlace {
    /// Some sending explains where it is stored.
    Explained,
    /// So far each sending came after this one, which is stored later.
    Behind(u32),
}

/// What was sent before, over one connection to one room: seq and sending.
struct Before {
    /// The last one stored of those that were never given up.
    highest: (u64, u32),
    /// Those that were, and when.
    given_up: Vec<(u64, u64, u32)>,
}

impl Before {
    /// The last one stored of those that bind what is sent now.
    fn binding(&mut self, now_us: u64) -> (u64, u32) {
        self.given_up.retain(|(until_us, ..)| *until_us > now_us);
        let given_up = self.given_up.iter().map(|(_, seq, sending)| (*seq, *sending));
        given_up.max().map_or(self.highest, |highest| highest.max(self.highest))
    }

    fn add(&mut self, seq: u64, sending: u32, gives_up_us: Option<u64>) {
        match gives_up_us {
            Some(until_us) => self.given_up.push((until_us, seq, sending)),
            None => self.highest = self.highest.max((seq, sending)),
        }
    }
}

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for client in &history.clients {
        one(history, findings, client);
    }
}

fn one(history: &History, findings: &mut Findings, client: &ClientHistory) {
    let mut before: HashMap<(u32, u32), Before> = HashMap::new();
    let mut places: HashMap<u32, (u64, OrderPlace)> = HashMap::new();
    for step in &client.steps {
        let StepKind::Send(index) = step.act else { continue };
        let sending = &history.sendings[index as usize];
        let sent = &history.sent[sending.sent as usize];
        let fate = history.fate(sending);
        // Not stored, or sent by two clients: its place says nothing about this one's order.
        let Some(seq) = seq_of(history, sent) else { continue };
        // This sending stored nothing and binds nothing: another one explains the row.
        if matches!(fate, Some(Fate::Refused(_))) {
            continue;
        }
        let new = || Before { highest: (0, NONE), given_up: Vec::new() };
        let before = before.entry((sending.conn, sent.room)).or_insert_with(new);
        if !history.is_not_stored(fate) {
            let (highest, earlier) = before.binding(step.at_us);
            let place = if highest <= seq { OrderPlace::Explained } else { OrderPlace::Behind(earlier) };
            let known = places.entry(sending.sent).or_insert((seq, place));
            // One sending that explains the place is enough, whichever it was.
            if place == OrderPlace::Explained {
                known.1 = place;
            }
        }
        // Stored once before and once after a restore, its row is the later one: it binds nobody.
        if !may_be_stored_anew(history, sent) {
            let gives_up = client.library && sent.gave_up_us != 0;
            before.add(seq, index, gives_up.then_some(sent.gave_up_us));
        }
    }
    let broken = places.into_iter().filter_map(|(sent, (seq, place))| match place {
        OrderPlace::Behind(before) => Some((sent, seq, before)),
        OrderPlace::Explained => None,
    });
    let mut broken: Vec<(u32, u64, u32)> = broken.collect();
    // The map has no order, and two judgements of one run must be equal.
    broken.sort_unstable();
    for (sent, seq, before) in broken {
        findings.add(AnomalyKind::Reordered, || tell(history, &history.sent[sent as usize], seq, before));
    }
}

/// Where it is stored, when that says something about the order of this client.
fn seq_of(history: &History, sent: &SentMessage) -> Option<u64> {
    let is_shared = history.sent_as(sent.room, sent.message).nth(1).is_some();
    let first = history.rows_of(sent.room, sent.message).map(|(_, row)| row.seq).min();
    first.filter(|_| !is_shared)
}

/// It may have been stored once before, in a store that was put back since.
fn may_be_stored_anew(history: &History, sent: &SentMessage) -> bool {
    let known_us = history.rows_of(sent.room, sent.message).map(|(_, row)| row.known_us).min();
    let known_us = known_us.unwrap_or(u64::MAX);
    history.restores.iter().any(|it| sent.first_us <= it.healed_us && known_us > it.copied_us)
}

fn tell(history: &History, sent: &SentMessage, seq: u64, before: u32) -> Finding {
    let first = &history.sent[history.sendings[before as usize].sent as usize];
    let (what, other, first_seq) = (history.called(sent.message), first.n, seq_of(history, first));
    let row = |sent: &SentMessage| {
        history.rows_of(sent.room, sent.message).map(|(row, _)| RecordLine::Row(row)).next()
    };
    let (over, first_seq) =
        ("which was sent before it over the same connection", first_seq.unwrap_or_default());
    Finding::new(format!("{what} is stored as {seq}, before message {other} ({first_seq}), {over}"))
        .at(sent.first_us)
        .room(sent.room)
        .client(sent.client)
        .lines(sendings(history, first))
        .lines(sendings(history, sent))
        .lines(row(first))
        .lines(row(sent))
}
