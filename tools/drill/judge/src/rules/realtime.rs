//! Real time: what was known to be stored (answered, or delivered to anybody) before another message was first sent
//! stands before it; and no answer knows of a message that was sent only later.

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, StepKind, SubAnswered};
use crate::verdict::AnomalyKind;

/// Rows of one room by the time of their first sending: that time, and the lowest seq from there on with its row.
type Future = Vec<(u64, u64, u32)>;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    let mut futures: Vec<Future> = Vec::with_capacity(history.by_room.len());
    for (room, range) in (0..).zip(&history.by_room) {
        futures.push(one(history, findings, room, range.start));
    }
    for (client, it) in (0..).zip(&history.clients) {
        for (step, at) in (0..).zip(&it.steps) {
            if let StepKind::Subscribed(told) = &at.act
                && told.epoch == history.last_epoch()
            {
                foreseen(history, findings, told, at.at_us, &futures, (client, step));
            }
        }
    }
}

fn one(history: &History, findings: &mut Findings, room: u32, start: usize) -> Future {
    let mut known: Vec<(u64, u64, u32)> = Vec::new();
    let mut future: Future = Vec::new();
    let start = u32::try_from(start).unwrap_or(u32::MAX);
    for (index, row) in (start..).zip(history.rows_in(room)) {
        // What a restored store forgot and got anew stands rightly behind.
        if row.known_us != u64::MAX && !history.may_be_lost(row.known_us) {
            known.push((row.known_us, row.seq, index));
        }
        let sent = history.sent_as(room, row.message).map(|(_, sent)| sent.first_us);
        if let Some(first_us) = sent.min() {
            future.push((first_us, row.seq, index));
        }
    }
    known.sort_unstable();
    future.sort_unstable();
    let (mut next, mut highest) = (0, None);
    for (first_us, seq, row) in &future {
        // Two sorted lists side by side: each row is looked at once, however long the run.
        while let Some((_, seq, row)) = known.get(next).filter(|(known_us, ..)| known_us < first_us) {
            highest = highest.max(Some((*seq, *row)));
            next += 1;
        }
        if let Some((other, earlier)) = highest.filter(|(highest, _)| highest > seq) {
            findings.add(AnomalyKind::Reordered, || tell(history, (earlier, other), (*row, *seq), *first_us));
        }
    }
    let mut lowest = (u64::MAX, u32::MAX);
    // From each time on the lowest seq of all that come later: one look-up answers `foreseen`.
    for (_, seq, row) in future.iter_mut().rev() {
        lowest = lowest.min((*seq, *row));
        (*seq, *row) = lowest;
    }
    future
}

fn tell(history: &History, earlier: (u32, u64), later: (u32, u64), at_us: u64) -> Finding {
    let row = |index: u32| &history.rows[index as usize];
    let (first, second) = (row(earlier.0), row(later.0));
    let text = format!(
        "{} ({}) was known before {} was sent, which is stored as {}",
        history.called(first.message),
        earlier.1,
        history.called(second.message),
        later.1
    );
    let lines = |message: u32| {
        history.sent_as(first.room, message).flat_map(|(_, sent)| super::acked::sendings(history, sent))
    };
    let known = history.answers.iter().find(|answer| {
        answer.at_us == first.known_us && history.sent[answer.sent as usize].message == first.message
    });
    let known = known.map(|answer| RecordLine::Step(history.sent[answer.sent as usize].client, answer.step));
    Finding::new(text)
        .at(at_us)
        .room(first.room)
        .lines(lines(first.message))
        .lines(lines(second.message))
        .lines(known)
        .lines([RecordLine::Row(earlier.0), RecordLine::Row(later.0)])
}

/// A position or head that names a message of the future.
fn foreseen(
    history: &History,
    findings: &mut Findings,
    told: &SubAnswered,
    at_us: u64,
    futures: &[Future],
    (client, step): (u32, u32),
) {
    let Some(future) = futures.get(told.room as usize) else { return };
    let next = future.partition_point(|(first_us, ..)| *first_us <= at_us);
    let Some((_, seq, row)) = future.get(next).filter(|(_, seq, _)| *seq <= told.head.max(told.after)) else {
        return;
    };
    findings.add(AnomalyKind::Dishonest, || {
        let (room, message) = (history.rooms.name(told.room), history.rows[*row as usize].message);
        let (after, head, what) = (told.after, told.head, history.called(message));
        let text = format!(
            "{room:?} was said to stand at {after} of {head}, but {what} was sent later and is {seq}"
        );
        let sent =
            history.sent_as(told.room, message).flat_map(|(_, sent)| super::acked::sendings(history, sent));
        Finding::new(text)
            .at(at_us)
            .room(told.room)
            .client(client)
            .lines([RecordLine::Step(client, step), RecordLine::Row(*row)])
            .lines(sent)
    });
}
