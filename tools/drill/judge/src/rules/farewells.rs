//! An ordered stop tells every client: `drain` or `bye` before the connection ends. Which gateway a fault hit is seen
//! by its clients: an instance that says `drain` or `bye` meanwhile, or of which all connections end then.

use std::collections::BTreeMap;

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, History, StepKind};
use crate::record::{ClientEvent, FaultRecord};
use crate::verdict::AnomalyKind;

/// After a process has ended its clients have noticed.
const SLACK_US: u64 = 1_000_000;
/// Some notice later than most of them.
const LATE_US: u64 = 10_000_000;

/// A connection, from its beginning to its end.
struct ClientConnection<'a> {
    client: u32,
    conn: u32,
    instance: &'a str,
    opened: (u64, u32),
    /// The first `drain` or `bye`.
    told_us: Option<u64>,
    closed: Option<(u64, u32)>,
    /// It ended by the client's own wish.
    own_wish: bool,
    /// When the client did not read.
    pauses: Vec<(u64, u64)>,
}

pub(super) fn judge(history: &History, findings: &mut Findings) {
    let stops: Vec<(u32, &FaultRecord)> =
        (0..).zip(&history.faults).filter(|(_, fault)| is_ordered(fault)).collect();
    if stops.is_empty() {
        return;
    }
    let connections: Vec<ClientConnection<'_>> =
        (0..).zip(&history.clients).flat_map(|(index, client)| connections(index, client)).collect();
    for (index, fault) in stops {
        // What else was broken then may have kept the words from a client: nothing is said about this stop.
        if !history.faults.iter().any(|other| disturbs(other, fault)) {
            one(history, findings, (index, fault), &connections);
        }
    }
}

/// A gateway was asked to stop, and was not killed.
fn is_ordered(fault: &FaultRecord) -> bool {
    let is_gateway = fault.target.starts_with("gateway") || fault.target.starts_with("dev");
    let is_asked = fault.exit.as_ref().is_some_and(|exit| exit.budget_ms > 0 && exit.code.is_some());
    let is_called_so =
        fault.exit.is_none() && (fault.kind.starts_with("term") || fault.kind.starts_with("roll"));
    is_gateway && fault.hit && (is_asked || is_called_so)
}

fn end_us(fault: &FaultRecord) -> u64 {
    let ended =
        fault.exit.as_ref().map(|exit| fault.began_us.saturating_add(exit.took_ms.saturating_mul(1_000)));
    ended.unwrap_or(fault.healed_us).saturating_add(SLACK_US)
}

/// Whether another fault may have kept words from clients at the same time: of a gateway that was not asked, or of
/// the way to clients.
fn disturbs(other: &FaultRecord, fault: &FaultRecord) -> bool {
    let overlaps = other.began_us <= end_us(fault) && fault.began_us <= other.healed_us;
    let is_near = other.target.contains("gateway") || other.target.contains("client");
    other != fault && overlaps && is_near && !is_ordered(other)
}

fn connections(index: u32, client: &ClientHistory) -> Vec<ClientConnection<'_>> {
    let mut all: BTreeMap<u32, ClientConnection<'_>> = BTreeMap::new();
    for (step, at) in (0..).zip(&client.steps) {
        let StepKind::Other(what) = &at.act else { continue };
        if let ClientEvent::Open { conn, instance, .. } = &**what {
            let opened = (at.at_us, step);
            let (told_us, closed, own_wish, pauses) = (None, None, false, Vec::new());
            all.insert(
                *conn,
                ClientConnection {
                    client: index,
                    conn: *conn,
                    instance,
                    opened,
                    told_us,
                    closed,
                    own_wish,
                    pauses,
                },
            );
        } else if let ClientEvent::Drain { conn, .. } | ClientEvent::Bye { conn, .. } = &**what
            && let Some(it) = all.get_mut(conn)
        {
            // The first counts: whoever was told by `drain` need not hear `bye`.
            it.told_us.get_or_insert(at.at_us);
        } else if let ClientEvent::Closed { conn, code, .. } = &**what
            && let Some(it) = all.get_mut(conn)
        {
            it.closed = Some((at.at_us, step));
            // It left by itself, and is told nothing by anybody.
            it.own_wish = *code == Some(1000);
        } else if let ClientEvent::Paused { conn } = &**what
            && let Some(it) = all.get_mut(conn)
        {
            it.pauses.push((at.at_us, u64::MAX));
        } else if let ClientEvent::Unpaused { conn } = &**what
            && let Some(pause) = all.get_mut(conn).and_then(|it| it.pauses.last_mut())
        {
            pause.1 = at.at_us;
        }
    }
    all.into_values().collect()
}

fn one(
    history: &History,
    findings: &mut Findings,
    (index, fault): (u32, &FaultRecord),
    all: &[ClientConnection<'_>],
) {
    let (began_us, end_us) = (fault.began_us, end_us(fault));
    let during = |at_us: u64| (began_us..=end_us).contains(&at_us);
    let stood = |it: &&ClientConnection<'_>| {
        it.opened.0 <= began_us && it.closed.is_none_or(|(closed_us, _)| closed_us > began_us)
    };
    let mut instances: BTreeMap<&str, Vec<&ClientConnection<'_>>> = BTreeMap::new();
    for connection in all.iter().filter(stood) {
        instances.entry(connection.instance).or_default().push(connection);
    }
    for (instance, connections) in instances {
        let ended = |it: &ClientConnection<'_>| it.closed.is_some_and(|(closed_us, _)| during(closed_us));
        let has_told = connections.iter().any(|it| it.told_us.is_some_and(during));
        let readers: Vec<&ClientConnection<'_>> =
            connections.into_iter().filter(|it| reads(history, it, (began_us, end_us))).collect();
        let has_left =
            |it: &ClientConnection<'_>| it.closed.is_some_and(|(at_us, _)| at_us <= end_us + LATE_US);
        let in_time = readers.iter().filter(|it| ended(it)).count();
        // Most of them in time: one or two that end meanwhile do so for other reasons.
        let is_gone = readers.iter().all(|it| has_left(it))
            && in_time * 2 > readers.len()
            && readers.iter().any(|it| !it.own_wish);
        let is_seen_later = all.iter().any(|it| it.instance == instance && it.opened.0 > end_us);
        // It serves on: the fault hit another gateway.
        if is_seen_later || !(is_gone || has_told) {
            continue;
        }
        for it in readers.into_iter().filter(|it| ended(it) && !it.own_wish && it.told_us.is_none()) {
            untold(history, findings, (index, fault), it);
        }
    }
}

/// Whether its client was there to read what was said meanwhile.
fn reads(history: &History, it: &ClientConnection<'_>, (began_us, end_us): (u64, u64)) -> bool {
    let is_paused = it.pauses.iter().any(|(from, to)| *from <= end_us && began_us <= *to);
    !is_paused && !history.clients[it.client as usize].is_slow()
}

fn untold(
    history: &History,
    findings: &mut Findings,
    (index, fault): (u32, &FaultRecord),
    it: &ClientConnection<'_>,
) {
    let Some((closed_us, closed)) = it.closed else { return };
    findings.add(AnomalyKind::Untold, || {
        let (id, conn, target) = (history.clients[it.client as usize].id, it.conn, &fault.target);
        let text =
            format!("connection {conn} of client {id} ended while {target} was stopped, and nobody said why");
        Finding::new(text).at(closed_us).client(it.client).lines([
            RecordLine::Fault(index),
            RecordLine::Step(it.client, it.opened.1),
            RecordLine::Step(it.client, closed),
        ])
    });
}
