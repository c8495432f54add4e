//! Everything arrives. Who ends after the run has settled has all that anybody knew of by then; who stays ten seconds
//! longer has all that the store holds, in the store's epoch. Slow readers only must not stand still.

use super::subscriptions::Reach;
use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, History, StepKind, StoredRow};
use crate::record::ClientEvent;
use crate::verdict::AnomalyKind;

/// How long it may take after settling, or after the message was first known.
const GRACE_US: u64 = 10_000_000;
/// A slow reader that is behind gets something within this.
const STILL_US: u64 = 5_000_000;

/// How long a client is there to be served.
#[derive(Clone, Copy)]
struct Stay {
    /// It ends, or the records do.
    until_us: u64,
    /// It reads, and did when the run had settled.
    reads: bool,
}

/// Says how many subscriptions were judged.
pub(super) fn judge(history: &History, reaches: &[Reach], findings: &mut Findings) -> u64 {
    if history.run.interrupted || !history.has_store {
        return 0;
    }
    let mut judged = 0;
    let stays: Vec<Stay> = history.clients.iter().map(|client| stay_of(history, client)).collect();
    for reach in reaches {
        let stay = stays[reach.client as usize];
        if stay.reads && stay.until_us >= history.run.settled_us {
            judged += 1;
            one(history, reach, stay, findings);
        }
    }
    for ((index, client), stay) in (0..).zip(&history.clients).zip(stays) {
        // Slow ones are late by their own wish.
        if stay.reads && !client.is_slow() {
            late(history, index, client, findings);
        }
    }
    judged
}

fn stay_of(history: &History, client: &ClientHistory) -> Stay {
    let mut stay = Stay { until_us: history.end_us, reads: true };
    for step in &client.steps {
        let StepKind::Other(what) = &step.act else { continue };
        match **what {
            ClientEvent::End => stay.until_us = step.at_us,
            ClientEvent::Paused { .. } => stay.reads = false,
            // One that reads again only after the run has settled has not had its time to catch up.
            ClientEvent::Unpaused { .. } => stay.reads = step.at_us <= history.run.settled_us,
            ClientEvent::Client { .. }
            | ClientEvent::Open { .. }
            | ClientEvent::Failed { .. }
            | ClientEvent::Sub { .. }
            | ClientEvent::Subscribed { .. }
            | ClientEvent::Unsubscribed { .. }
            | ClientEvent::Send { .. }
            | ClientEvent::Answer { .. }
            | ClientEvent::Got { .. }
            | ClientEvent::Skipped { .. }
            | ClientEvent::History { .. }
            | ClientEvent::Drain { .. }
            | ClientEvent::Bye { .. }
            | ClientEvent::Closed { .. }
            | ClientEvent::Error { .. }
            | ClientEvent::UserJoined { .. }
            | ClientEvent::UserLeft { .. }
            | ClientEvent::Stale { .. } => {}
        }
    }
    stay
}

fn one(history: &History, reach: &Reach, stay: Stay, findings: &mut Findings) {
    let settled_us = history.run.settled_us;
    if reach.epoch != history.last_epoch() {
        // since when nothing was broken and somebody knew of it
        let healed_us =
            history.faults.iter().filter(|fault| fault.began_us < settled_us).map(|it| it.healed_us);
        let since_us = healed_us.chain(history.epochs.last().map(|(first_us, _)| *first_us)).max();
        let is_due = since_us.unwrap_or_default().saturating_add(GRACE_US) <= stay.until_us;
        // An empty room has nothing that differs between the histories: nobody is owed the news.
        if is_due && !history.rows_in(reach.room).is_empty() {
            findings.add(AnomalyKind::Gap, || {
                let (id, room) = (history.clients[reach.client as usize].id, history.rooms.name(reach.room));
                let text = format!("client {id} was never told that {room:?} has another epoch");
                Finding::new(text).room(reach.room).client(reach.client).lines([line(reach)])
            });
        }
        return;
    }
    let client = &history.clients[reach.client as usize];
    let stands_still = |at_us: u64| at_us.saturating_add(STILL_US) < stay.until_us;
    let last_us = client.steps.get(reach.step as usize).map_or(0, |step| step.at_us);
    // It need not have everything; it must only get on.
    if client.is_slow() && !stands_still(last_us) {
        return;
    }
    let is_due = |row: &&StoredRow| {
        // Nobody has seen it: the store's own time is all there is, and only after it the grace begins.
        let known_us = if row.known_us == u64::MAX { stored_us(history, row) } else { row.known_us };
        let is_known = known_us <= settled_us && row.known_us != u64::MAX;
        is_known || known_us.max(settled_us).saturating_add(GRACE_US) <= stay.until_us
    };
    let rows = history.rows_in(reach.room);
    let missing = &rows[rows.partition_point(|row| row.seq <= reach.after)..];
    let Some(row) = missing.iter().find(is_due) else { return };
    findings.add(AnomalyKind::Gap, || {
        let (room, after, last) = (history.rooms.name(reach.room), reach.after, history.last_seq(reach.room));
        let (id, seq) = (client.id, row.seq);
        let text = format!("client {id} never got {seq} of {room:?}: it came to {after} of {last}");
        let row = history.row_at(reach.room, seq).map(|(row, _)| RecordLine::Row(row));
        Finding::new(text)
            .at(stay.until_us)
            .room(reach.room)
            .client(reach.client)
            .lines([line(reach)])
            .lines(row)
    });
}

fn line(reach: &Reach) -> RecordLine {
    RecordLine::Step(reach.client, reach.step)
}

/// When the store says that it was stored, by our clock.
fn stored_us(history: &History, row: &StoredRow) -> u64 {
    let since = u64::try_from(row.at_ms).unwrap_or_default().saturating_sub(history.run.started_ms);
    since.saturating_mul(1_000)
}

/// What came, but too late.
fn late(history: &History, index: u32, client: &ClientHistory, findings: &mut Findings) {
    let deadline_us = history.run.settled_us.saturating_add(GRACE_US);
    // Only from the deadline on: most steps lie before it, and none of them can be late.
    let first = client.steps.iter().rposition(|at| at.at_us <= deadline_us).map_or(0, |place| place + 1);
    for (step, at) in (0u32..).zip(&client.steps).skip(first) {
        let StepKind::Got { seq, room, .. } = at.act else { continue };
        let is_late = |row: &StoredRow| at.at_us > row.known_us.saturating_add(GRACE_US);
        if history.row_at(room, seq).is_some_and(|(_, row)| is_late(row)) {
            findings.add(AnomalyKind::Gap, || {
                let (name, id) = (history.rooms.name(room), client.id);
                let late_s = (at.at_us - history.run.settled_us) / 1_000_000;
                let text =
                    format!("client {id} got {seq} of {name:?} only {late_s} s after everything was healed");
                Finding::new(text)
                    .at(at.at_us)
                    .room(room)
                    .client(index)
                    .lines([RecordLine::Step(index, step)])
            });
        }
    }
}
