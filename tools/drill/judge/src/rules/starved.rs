//! A `sub` is answered, or its connection ends, soon enough for somebody who waits for it: whoever asked all the while
//! nothing was broken has been starved, for example by one that asks for more than its share.

use std::collections::BTreeMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, History, StepKind};
use crate::record::ClientEvent;
use crate::verdict::AnomalyKind;

/// How long an answer may take while nothing is broken.
const PATIENCE_US: u64 = 10_000_000;

/// A `sub` without an answer: when it was sent, and the step that says so.
type Waiting = BTreeMap<(u32, u32), (u64, u32)>;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    // the library answers for its connections itself; who does not read has no answers by its own wish
    let clients = (0..).zip(&history.clients).filter(|(_, client)| !client.library && !client.is_slow());
    for (index, client) in clients {
        one(history, findings, index, client);
    }
}

fn one(history: &History, findings: &mut Findings, index: u32, client: &ClientHistory) {
    let mut waiting = Waiting::new();
    for (step, at) in (0..).zip(&client.steps) {
        match &at.act {
            StepKind::Sub(sub) => {
                // asked again after an error: the answer to that one counts
                waiting.insert((sub.conn, sub.room), (at.at_us, step));
            }
            StepKind::Subscribed(told) if told.asked => {
                let asked = waiting.remove(&(told.conn, told.room));
                tell(history, findings, (index, told.room), asked, at.at_us);
            }
            StepKind::Other(what) => match **what {
                ClientEvent::Closed { conn, .. } => {
                    end(history, findings, index, &mut waiting, Some(conn), at.at_us)
                }
                // an error does not say of which room: whoever is refused has been answered
                ClientEvent::Error { conn, .. } => waiting.retain(|(whose, _), _| *whose != conn),
                ClientEvent::End => end(history, findings, index, &mut waiting, None, at.at_us),
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
                | ClientEvent::UserJoined { .. }
                | ClientEvent::UserLeft { .. }
                | ClientEvent::Stale { .. }
                | ClientEvent::Paused { .. }
                | ClientEvent::Unpaused { .. } => {}
            },
            StepKind::Subscribed(_)
            | StepKind::Got { .. }
            | StepKind::Send(_)
            | StepKind::Answer(_)
            | StepKind::Skipped(_)
            | StepKind::Unsubscribed { .. }
            | StepKind::Page(_) => {}
        }
    }
}

/// A connection, or all, have ended.
fn end(
    history: &History,
    findings: &mut Findings,
    client: u32,
    waiting: &mut Waiting,
    conn: Option<u32>,
    at_us: u64,
) {
    let over: Vec<_> =
        waiting.extract_if(.., |(whose, _), _| conn.is_none_or(|conn| conn == *whose)).collect();
    for ((_, room), asked) in over {
        tell(history, findings, (client, room), Some(asked), at_us);
    }
}

fn tell(
    history: &History,
    findings: &mut Findings,
    (client, room): (u32, u32),
    asked: Option<(u64, u32)>,
    until_us: u64,
) {
    let Some((asked_us, step)) = asked else { return };
    let faults = history.faults.iter().filter(|fault| fault.began_us < until_us);
    // Counted anew from the end of the last fault: what waited for that one was not starved.
    let since_us = faults.map(|fault| fault.healed_us).fold(asked_us, u64::max);
    let waited_us = until_us.saturating_sub(since_us);
    if waited_us < PATIENCE_US {
        return;
    }
    findings.add(AnomalyKind::Starved, || {
        let (id, name) = (history.clients[client as usize].id, history.rooms.name(room));
        let text = format!(
            "client {id} waited {:.1} s for the answer to its sub of {name:?} while nothing was broken",
            waited_us as f64 / 1e6
        );
        Finding::new(text).at(asked_us).room(room).client(client).lines([RecordLine::Step(client, step)])
    });
}
