//! Nobody sees what nobody sent, or what the store does not hold; and no two see different messages under one seq. What
//! a restored store forgot is judged by epoch: who saw it in the same epoch must have seen the same. What a bad
//! neighbour publishes to a room of its own is in no record of a client; anywhere else it is nobody's either. What was to
//! be published later is judged in `delayed`, and belongs to nobody under another key.

use std::collections::HashMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, NONE, StepKind, StoredRow};
use crate::verdict::AnomalyKind;

/// A message under a seq, as seen by somebody.
#[derive(Clone, Copy)]
struct Sight {
    room: u32,
    seq: u64,
    message: u32,
    at_us: u64,
    line: RecordLine,
    client: u32,
}

pub(super) fn judge(history: &History, findings: &mut Findings) {
    if history.has_store {
        rows(history, findings);
    }
    let mut gone = Gone::default();
    for (client, it) in (0..).zip(&history.clients) {
        let mut epochs: HashMap<(u32, u32), u32> = HashMap::new();
        // The library moves subscriptions from connection to connection by itself; others have one for each.
        let lane = |conn: u32| if it.library { 0 } else { conn };
        for (step, at) in (0..).zip(&it.steps) {
            let line = RecordLine::Step(client, step);
            let sight = |room, seq, message| Sight { room, seq, message, at_us: at.at_us, line, client };
            match &at.act {
                StepKind::Subscribed(told) => {
                    epochs.insert((lane(told.conn), told.room), told.epoch);
                }
                StepKind::Got { seq, room, message, conn } => {
                    let epoch = || epochs.get(&(lane(*conn), *room)).copied().unwrap_or(NONE);
                    look(history, findings, &mut gone, sight(*room, *seq, *message), Some(&epoch));
                }
                StepKind::Page(page) => {
                    for (seq, message) in &page.messages {
                        look(history, findings, &mut gone, sight(page.room, *seq, *message), None);
                    }
                }
                StepKind::Send(_)
                | StepKind::Answer(_)
                | StepKind::Sub(_)
                | StepKind::Skipped(_)
                | StepKind::Unsubscribed { .. }
                | StepKind::Other(_) => {}
            }
        }
    }
}

fn rows(history: &History, findings: &mut Findings) {
    for (index, row) in (0..).zip(&history.rows) {
        let is_delayed = history.delayed.contains_key(&history.name_of(row));
        let is_sent = is_delayed || history.sent_as(row.room, row.message).next().is_some();
        if !is_sent && !is_a_neighbours(history, row) {
            findings.add(AnomalyKind::Phantom, || {
                let (room, what) = (history.rooms.name(row.room), history.called(row.message));
                let text = format!("{room:?} holds {what} as {}, which nobody sent there like this", row.seq);
                Finding::new(text).room(row.room).lines([RecordLine::Row(index)])
            });
        }
    }
}

/// Whether the same neighbour has the room and sent the message.
fn is_a_neighbours(history: &History, row: &StoredRow) -> bool {
    let sender = history.users.name(history.messages[row.message as usize].user);
    let room = history.rooms.name(row.room);
    history.run.neighbours.iter().any(|name| sender.starts_with(&**name) && room.starts_with(&**name))
}

/// Sights of what the store does not hold any more, by epoch, room and seq.
type Gone = HashMap<(u32, u32, u64), Sight>;

fn look(
    history: &History,
    findings: &mut Findings,
    gone: &mut Gone,
    sight: Sight,
    epoch: Option<&dyn Fn() -> u32>,
) {
    let row = history.row_at(sight.room, sight.seq);
    // Nearly always: the rest costs look-ups in several tables.
    if row.is_some_and(|(_, row)| row.message == sight.message) {
        return;
    }
    let epoch = epoch.map(|epoch| epoch());
    let is_sent = history.sent_as(sight.room, sight.message).next().is_some();
    // A page of history names no epoch: it is given the benefit of the doubt.
    let is_former = epoch.is_none_or(|epoch| epoch != history.last_epoch());
    // Seen before the copy was made, it is in the copy too and must be there.
    let was_copied = history.restores.iter().all(|restore| sight.at_us <= restore.copied_us);
    let may_be_gone = !history.has_store
        || history.may_be_trimmed(sight.room, sight.seq, sight.at_us)
        || (is_former && !was_copied);
    let other = match epoch {
        Some(epoch) if is_sent && may_be_gone => {
            Some(*gone.entry((epoch, sight.room, sight.seq)).or_insert(sight))
        }
        Some(_) | None => None,
    };
    if is_sent && may_be_gone && other.is_none_or(|other| other.message == sight.message) {
        return;
    }
    findings.add(AnomalyKind::Phantom, || {
        let (room, seq, what) = (history.rooms.name(sight.room), sight.seq, history.called(sight.message));
        let who = history.clients[sight.client as usize].id;
        let why = match (is_sent, other, row) {
            (false, ..) => "nobody sent it there like this".to_owned(),
            (true, Some(other), _) => {
                let id = history.clients[other.client as usize].id;
                format!("client {id} saw {}", history.called(other.message))
            }
            (true, None, Some((_, row))) => format!("the store holds {}", history.called(row.message)),
            (true, None, None) => "the store holds nothing there".to_owned(),
        };
        let sent = history
            .sent_as(sight.room, sight.message)
            .flat_map(|(_, sent)| super::acked::sendings(history, sent));
        Finding::new(format!("client {who} saw {what} as seq {seq} of {room:?}, but {why}"))
            .at(sight.at_us)
            .room(sight.room)
            .client(sight.client)
            .lines(sent)
            .lines([sight.line])
            .lines(other.map(|other| other.line))
            .lines(row.map(|(row, _)| RecordLine::Row(row)))
    });
}
