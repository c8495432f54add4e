//! Whoever watches a room is told that somebody left who was away for the whole grace, once, and of nobody else. Lenient
//! where events come at most once: who was told `stale` or was away itself may have missed some, and so may everybody
//! while what carries them is broken.

mod absences;
mod watchers;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, StepKind};
use crate::verdict::AnomalyKind;
use absences::{Absence, Absences};
use watchers::{ToldLeave, Watcher};

/// After a goodbye whoever is away for less never left.
const GOODBYE_GRACE_US: u64 = 1_000_000;
/// From what a client sees until everybody knows it, and back, on a busy machine.
const LAG_US: u64 = 3_000_000;
/// A leave is told this long after the grace at the latest: a kill of a gateway is known after 13 s, another task does the
/// work of one that was killed after a lease of ten, and what a busy machine needs.
const BOUND_US: u64 = 30_000_000;
/// Whoever begins to watch, or was told `stale`, hears everything after this: it asks within two seconds. For ten nobody
/// is told anything after Redis has started.
const HEARS_AFTER_US: u64 = 10_000_000;
/// Faults in which no event is lost, and nothing stands still.
const HARMLESS: [&str; 8] = [
    "term gateway",
    "term logic",
    "term task",
    "term every gateway",
    "roll gateway",
    "kill gateway",
    "kill task",
    "revoke",
];

pub(super) fn judge(history: &History, findings: &mut Findings) {
    if history.run.leave_grace_ms == 0 {
        return;
    }
    let watchers = watchers::of(history);
    let absences = absences::of(history, &watchers.iter().map(|watcher| watcher.room).collect());
    for watcher in &watchers {
        for told in &watcher.leaves {
            if let Some(absences) = absences.get(&(watcher.room, told.user)) {
                allowed(history, findings, watcher, told, absences);
            }
        }
        for ((room, user), absences) in &absences {
            // One's own leave is told to others.
            if *room == watcher.room && *user != history.clients[watcher.client as usize].user {
                absences.iter().for_each(|absence| owed(history, findings, watcher, *user, absence));
            }
        }
    }
}

/// How long this one may last without a leave.
fn grace_us(history: &History, absence: &Absence) -> u64 {
    let grace_us = history.run.leave_grace_ms * 1_000;
    if absence.goodbye { grace_us.min(GOODBYE_GRACE_US) } else { grace_us }
}

/// A leave that was told has to be of somebody who was away for long enough by then.
fn allowed(
    history: &History,
    findings: &mut Findings,
    watcher: &Watcher,
    told: &ToldLeave,
    absences: &Absences,
) {
    let fits = |absence: &&Absence| {
        let (from_us, to_us, grace_us) = (absence.from_us, absence.to_us, grace_us(history, absence));
        // Later by what a busy machine needs, and by as long as what carries events was broken.
        let lag_us = LAG_US + broken_us(history, from_us, told.at_us);
        told.at_us + lag_us >= from_us + grace_us
            && told.at_us <= to_us.saturating_add(lag_us)
            && (to_us - from_us).saturating_add(lag_us) >= grace_us
    };
    if absences.iter().any(|absence| fits(&absence)) {
        return;
    }
    findings.add(AnomalyKind::FalseLeave, || {
        let (user, room) = (history.users.name(told.user), history.rooms.name(watcher.room));
        let before = absences.iter().rfind(|absence| absence.from_us <= told.at_us + LAG_US);
        let why = match before {
            None => "never away before".to_owned(),
            Some(absence) => {
                let until_us = absence.to_us.min(told.at_us.max(absence.from_us));
                format!("away for {} ms", (until_us - absence.from_us) / 1_000)
            }
        };
        let id = history.clients[watcher.client as usize].id;
        Finding::new(format!("client {id} was told that {user} left {room:?}, who was {why}"))
            .at(told.at_us)
            .room(watcher.room)
            .client(watcher.client)
            .lines([RecordLine::Step(watcher.client, told.step)])
            .lines(before.map(|absence| absence.line))
    });
}

/// Who was away for the grace and longer has left, once, for whoever listened all the time.
fn owed(history: &History, findings: &mut Findings, watcher: &Watcher, user: u32, absence: &Absence) {
    let by_us = absence.from_us.saturating_add(grace_us(history, absence) + BOUND_US);
    if absence.to_us < by_us
        || !watcher.hears(absence.from_us, by_us)
        || is_broken(history, absence.from_us, by_us)
    {
        return;
    }
    let told: Vec<&ToldLeave> = watcher
        .leaves
        .iter()
        .filter(|told| told.user == user && told.at_us + LAG_US >= absence.from_us)
        .filter(|told| told.at_us <= absence.to_us)
        .collect();
    let mut times: Vec<i64> =
        told.iter().filter(|told| told.at_us >= absence.from_us).map(|told| told.at_ms).collect();
    // Pushed again after a push without an answer it is the same event.
    times.dedup();
    let (kind, what) = match told.first() {
        Some(_) if times.len() > 1 => (AnomalyKind::FalseLeave, format!("{} times", times.len())),
        Some(first) if first.at_us <= by_us => return,
        Some(_) | None => {
            let within_s = (by_us - absence.from_us) as f64 / 1e6;
            (AnomalyKind::PresenceWrong, format!("not within {within_s:.0} s"))
        }
    };
    findings.add(kind, || {
        let (name, room) = (history.users.name(user), history.rooms.name(watcher.room));
        let id = history.clients[watcher.client as usize].id;
        Finding::new(format!("client {id} was told {what} that {name} left {room:?}"))
            .at(absence.from_us)
            .room(watcher.room)
            .client(watcher.client)
            .lines(told.iter().map(|told| RecordLine::Step(watcher.client, told.step)))
            .lines([absence.line])
    });
}

/// Faults of any other kind in this time.
fn faults(history: &History, from_us: u64, to_us: u64) -> impl Iterator<Item = (u64, u64)> {
    let faults = history.faults.iter().filter(|fault| !HARMLESS.contains(&fault.kind.as_str()));
    let times = faults.map(|fault| (fault.began_us, fault.healed_us));
    times.filter(move |(began_us, healed_us)| *began_us <= to_us && *healed_us >= from_us)
}

fn is_broken(history: &History, from_us: u64, to_us: u64) -> bool {
    faults(history, from_us, to_us).next().is_some()
}

/// How long something was broken around this time.
fn broken_us(history: &History, from_us: u64, to_us: u64) -> u64 {
    faults(history, from_us.saturating_sub(LAG_US), to_us)
        .map(|(began_us, healed_us)| healed_us - began_us)
        .sum()
}

/// Whether it is the end of a subscription to this room, over this connection or any.
fn ends(act: &StepKind, ended: (u32, u32)) -> bool {
    match act {
        StepKind::Unsubscribed { conn, room } => (*conn, *room) == ended,
        StepKind::Other(what) => absences::closes(what, ended.0),
        StepKind::Got { .. }
        | StepKind::Send(_)
        | StepKind::Answer(_)
        | StepKind::Sub(_)
        | StepKind::Subscribed(_)
        | StepKind::Skipped(_)
        | StepKind::Page(_) => false,
    }
}
