//! What was answered `ok` is in the store under that seq; a message without key is stored at most as often as it may
//! have been; nothing is answered that was not sent.

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{Fate, History, NONE, PublishAnswer, SentMessage};
use crate::verdict::AnomalyKind;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for answer in &history.answers {
        if let Fate::Ok(seq) = answer.fate {
            kept(history, findings, answer, seq);
        }
    }
    for sent in &history.sent {
        if history.messages[sent.message as usize].key == NONE {
            once(history, findings, sent);
        }
    }
    for (client, step, n) in &history.strays {
        findings.add(AnomalyKind::Phantom, || {
            let id = history.clients[*client as usize].id;
            let (line, text) = (
                RecordLine::Step(*client, *step),
                format!("client {id} was answered message {n}, which it never sent"),
            );
            Finding::new(text).at(history.time_of(line)).client(*client).lines([line])
        });
    }
}

fn kept(history: &History, findings: &mut Findings, answer: &PublishAnswer, seq: u64) {
    let sent = &history.sent[answer.sent as usize];
    let row = history.row_at(sent.room, seq);
    // By the message, not only the seq: a restored store gives the same seq to another one.
    let is_there = row.is_some_and(|(_, row)| row.message == sent.message);
    if is_there
        || !history.has_store
        || history.may_be_lost(answer.at_us)
        || history.may_be_trimmed(sent.room, seq, answer.at_us)
    {
        return;
    }
    findings.add(AnomalyKind::LostWrite, || {
        let (name, room) = (history.called(sent.message), history.rooms.name(sent.room));
        let elsewhere = history.rows_of(sent.room, sent.message).next();
        let instead = match (row, elsewhere) {
            (_, Some((_, row))) => format!("it is stored as {}", row.seq),
            (Some((_, row)), None) => format!("{} is there instead", history.called(row.message)),
            (None, None) => "it is not stored".to_owned(),
        };
        let rows = row.into_iter().chain(elsewhere).map(|(row, _)| RecordLine::Row(row));
        Finding::new(format!("{name} was answered ok with seq {seq} in {room:?}, but {instead}"))
            .at(answer.at_us)
            .room(sent.room)
            .client(sent.client)
            .lines(sendings(history, sent))
            .lines([RecordLine::Step(sent.client, answer.step)])
            .lines(rows)
    });
}

fn once(history: &History, findings: &mut Findings, sent: &SentMessage) {
    let rows = history.rows_of(sent.room, sent.message).count();
    if rows <= 1 {
        return;
    }
    let sendings = history.sendings_of(sent);
    // Without key each sending is a message of its own, unless it was answered as not stored.
    let possible = sendings.filter(|(_, sending)| !history.is_not_stored(history.fate(sending))).count();
    if rows > possible.max(1) {
        findings.add(AnomalyKind::Duplicate, || {
            let (name, room) = (history.called(sent.message), history.rooms.name(sent.room));
            let text =
                format!("{name} without key is stored {rows} times in {room:?}, sent {possible} times");
            Finding::new(text)
                .room(sent.room)
                .client(sent.client)
                .lines(self::sendings(history, sent))
                .lines(history.rows_of(sent.room, sent.message).map(|(row, _)| RecordLine::Row(row)))
        });
    }
}

/// The lines of all sendings of a message.
pub(super) fn sendings<'a>(
    history: &'a History,
    sent: &'a SentMessage,
) -> impl Iterator<Item = RecordLine> + 'a {
    history.sendings_of(sent).map(|(_, sending)| RecordLine::Step(sent.client, sending.step))
}
