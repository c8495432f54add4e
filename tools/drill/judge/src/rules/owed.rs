//! Before an ordered stop says `bye`, every publish that it has read has its outcome. A server reads a connection in
//! order: what was sent before something that it has answered, it has read; and what is stored without having been sent
//! in another way, too.

use std::collections::HashMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, History, Sending, StepKind};
use crate::record::ClientEvent;
use crate::verdict::AnomalyKind;

/// The close code of an ordered stop.
const RESTART: u16 = 1012;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    // the library minds connections itself: nobody sees over which one it sends
    for (index, client) in (0..).zip(&history.clients).filter(|(_, client)| !client.library) {
        one(history, findings, index, client);
    }
}

fn one(history: &History, findings: &mut Findings, index: u32, client: &ClientHistory) {
    let mut sent: HashMap<u32, Vec<&Sending>> = HashMap::new();
    for (step, at) in (0..).zip(&client.steps) {
        if let StepKind::Send(sending) = at.act {
            let sending = &history.sendings[sending as usize];
            sent.entry(sending.conn).or_default().push(sending);
        } else if let StepKind::Other(what) = &at.act
            && let ClientEvent::Bye { conn, code: RESTART, .. } = **what
        {
            // Taken: after `bye` nothing more is owed on this connection.
            let sendings = sent.remove(&conn).unwrap_or_default();
            let answer = |sending: &Sending| history.answers.get(sending.answer as usize);
            let answered = |sending: &&Sending| answer(sending).is_some_and(|answer| answer.step < step);
            let last = sendings.iter().rposition(answered);
            let mut times: HashMap<u32, u32> = HashMap::new();
            for sending in &sendings {
                *times.entry(sending.sent).or_default() += 1;
            }
            for (place, owed) in sendings.iter().enumerate().filter(|(_, sending)| !answered(sending)) {
                // of two sendings of the same nobody can say which one an answer is for
                let is_single = times.get(&owed.sent) == Some(&1);
                let later = last.filter(|last| is_single && *last > place).map(|last| sendings[last]);
                // Without proof that it was read it may have been on its way: a socket has two buffers.
                if later.is_some() || is_stored_by(history, client, owed) {
                    tell(history, findings, (index, client), conn, (owed, later), step);
                }
            }
        }
    }
}

/// Whether its message was seen before it was sent in any other way.
fn is_stored_by(history: &History, client: &ClientHistory, sending: &Sending) -> bool {
    let sent = &history.sent[sending.sent as usize];
    let known_us = history.rows_of(sent.room, sent.message).map(|(_, row)| row.known_us).min();
    let known_us = known_us.unwrap_or(u64::MAX);
    let mut others = history.sendings_of(sent).filter(|(_, other)| other.step != sending.step);
    known_us < u64::MAX
        && others.all(|(_, other)| client.steps[other.step as usize].at_us > known_us)
        && history.sent_as(sent.room, sent.message).count() == 1
}

fn tell(
    history: &History,
    findings: &mut Findings,
    (index, client): (u32, &ClientHistory),
    conn: u32,
    (owed, later): (&Sending, Option<&Sending>),
    bye: u32,
) {
    findings.add(AnomalyKind::Unresolved, || {
        let sent = &history.sent[owed.sent as usize];
        let what = history.called(sent.message);
        let proof = match later {
            Some(later) => format!("message {}, sent after it, had one", history.sent[later.sent as usize].n),
            None => "it was stored".to_owned(),
        };
        let answer = later.and_then(|later| history.answers.get(later.answer as usize));
        let steps =
            [Some(owed.step), later.map(|later| later.step), Some(bye), answer.map(|answer| answer.step)];
        let rows = history.rows_of(sent.room, sent.message).map(|(row, _)| RecordLine::Row(row));
        Finding::new(format!("{what} had no outcome when connection {conn} said bye, though {proof}"))
            .at(client.steps[bye as usize].at_us)
            .room(sent.room)
            .client(index)
            .lines(steps.into_iter().flatten().map(|step| RecordLine::Step(index, step)))
            .lines(rows)
    });
}
