//! The store by itself: positions without holes from the first, heads that are the last, each key once.

use crate::findings::{Finding, Findings};
use crate::history::lines::RecordLine;
use crate::history::{History, KEPT_US, StoredRow};
use crate::verdict::AnomalyKind;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    for (room, range) in history.by_room.iter().enumerate() {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        contiguous(history, findings, room, range.start);
        keys(history, findings, room, range.start);
        if history.leftovers.as_ref().is_some_and(|leftovers| !leftovers.heads.is_empty()) {
            head(history, findings, room);
        }
    }
}

fn line(index: usize) -> RecordLine {
    RecordLine::Row(u32::try_from(index).unwrap_or(u32::MAX))
}

fn contiguous(history: &History, findings: &mut Findings, room: u32, start: usize) {
    let rows = history.rows_in(room);
    let name = || history.rooms.name(room);
    if let Some(first) = rows.first()
        && first.seq != 1
        // Retention removes nothing younger than an hour: a shorter run must begin with 1.
        && (first.seq == 0 || history.end_us < KEPT_US)
    {
        findings.add(AnomalyKind::StoreHole, || {
            let text = format!(
                "{:?} begins with seq {}: what was before it cannot be old enough",
                name(),
                first.seq
            );
            Finding::new(text).room(room).lines([line(start)])
        });
    }
    for (index, pair) in rows.windows(2).enumerate() {
        let (before, after) = (pair[0].seq, pair[1].seq);
        if after != before + 1 {
            findings.add(AnomalyKind::StoreHole, || {
                let text = match after == before {
                    true => format!("{:?} has two rows under seq {after}", name()),
                    false => format!("{:?} has nothing between seq {before} and {after}", name()),
                };
                Finding::new(text).room(room).lines([line(start + index), line(start + index + 1)])
            });
        }
    }
}

fn keys(history: &History, findings: &mut Findings, room: u32, start: usize) {
    let rows = history.rows_in(room);
    let owner = |row: &StoredRow| (row.key, history.messages[row.message as usize].user);
    // Sorted places in place of a table: a room may have millions of rows.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|index| (owner(&rows[*index]), *index));
    for pair in order.windows(2) {
        let (first, second) = (&rows[pair[0]], &rows[pair[1]]);
        if owner(first) == owner(second) {
            findings.add(AnomalyKind::Duplicate, || {
                let (key, user) = owner(first);
                let (key, user) = (history.keys.name(key), history.users.name(user));
                let (first, second) = (first.seq, second.seq);
                let room_name = history.rooms.name(room);
                let text =
                    format!("{room_name:?} holds key {key:?} of {user} twice: as {first} and as {second}");
                Finding::new(text).room(room).lines([line(start + pair[0]), line(start + pair[1])])
            });
        }
    }
}

fn head(history: &History, findings: &mut Findings, room: u32) {
    let last = history.last_seq(room);
    let head = history.heads.get(&room).copied();
    // All of it was removed: the head stays, as positions go on where they were.
    let is_trimmed = last == 0 && history.end_us >= KEPT_US;
    if head.unwrap_or_default() == last || is_trimmed {
        return;
    }
    findings.add(AnomalyKind::StoreHole, || {
        let name = history.rooms.name(room);
        let head = head.map_or("no head".to_owned(), |head| format!("the head {head}"));
        Finding::new(format!("{name:?} has {head}, but its last message is {last}")).room(room)
    });
}
