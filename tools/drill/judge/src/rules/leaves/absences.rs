//! When users were in no connection subscribed to a room, as their clients saw it.

use std::collections::{BTreeMap, BTreeSet};

use super::ends;
use crate::history::lines::RecordLine;
use crate::history::{ClientHistory, History, StepKind};
use crate::record::ClientEvent;

/// What the drill writes as the reason of a goodbye by a client's own wish; a move has another one.
const GOODBYE: &str = "goodbye";

/// From the end of the last subscription to the next one, if any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    pub from_us: u64,
    /// `u64::MAX` = for good.
    pub to_us: u64,
    /// It began with a goodbye.
    pub goodbye: bool,
    /// What it began with.
    pub line: RecordLine,
}

/// All absences of a user from a room, in order.
pub(super) type Absences = Vec<Absence>;

/// A subscription from its confirmation to its end.
struct Stay {
    from_us: u64,
    to_us: u64,
    goodbye: bool,
    line: RecordLine,
}

/// By room and user.
pub(super) fn of(history: &History, rooms: &BTreeSet<u32>) -> BTreeMap<(u32, u32), Absences> {
    let mut stays: BTreeMap<(u32, u32), Vec<Stay>> = BTreeMap::new();
    for (index, client) in (0..).zip(&history.clients) {
        for (room, stay) in stays_of(index, client, rooms) {
            stays.entry((room, client.user)).or_default().push(stay);
        }
    }
    stays.into_iter().map(|(name, stays)| (name, between(stays))).collect()
}

/// Whether a connection is over with this.
pub(super) fn closes(what: &ClientEvent, conn: u32) -> bool {
    *what == ClientEvent::End || matches!(what, ClientEvent::Closed { conn: closed, .. } if *closed == conn)
}

fn stays_of(index: u32, client: &ClientHistory, rooms: &BTreeSet<u32>) -> Vec<(u32, Stay)> {
    let mut stays = Vec::new();
    let mut open: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (step, at) in (0..).zip(&client.steps) {
        if let StepKind::Subscribed(told) = &at.act
            && rooms.contains(&told.room)
        {
            open.entry((told.conn, told.room)).or_insert(at.at_us);
            continue;
        }
        for ((_, room), from_us) in open.extract_if(.., |name, _| ends(&at.act, *name)) {
            let (goodbye, line) = (is_goodbye(&at.act), RecordLine::Step(index, step));
            stays.push((room, Stay { from_us, to_us: at.at_us, goodbye, line }));
        }
    }
    // Without its last line nothing is known of its end.
    let line = RecordLine::Step(index, 0);
    stays.extend(
        open.into_iter()
            .map(|((_, room), from_us)| (room, Stay { from_us, to_us: u64::MAX, goodbye: false, line })),
    );
    stays
}

fn is_goodbye(act: &StepKind) -> bool {
    let StepKind::Other(what) = act else { return false };
    **what == ClientEvent::End
        || matches!(&**what, ClientEvent::Closed { code: Some(1000), reason, .. } if reason == GOODBYE)
}

fn between(mut stays: Vec<Stay>) -> Absences {
    stays.sort_by_key(|stay| stay.from_us);
    let mut absences = Absences::new();
    let mut stays = stays.into_iter();
    let Some(mut last) = stays.next() else { return absences };
    let absence =
        |last: &Stay, to_us| Absence { from_us: last.to_us, to_us, goodbye: last.goodbye, line: last.line };
    for stay in stays {
        if stay.from_us > last.to_us {
            absences.push(absence(&last, stay.from_us));
        }
        // The former connection may end after the one that took its place.
        if stay.to_us >= last.to_us {
            last = stay;
        }
    }
    if last.to_us < u64::MAX {
        absences.push(absence(&last, u64::MAX));
    }
    absences
}
