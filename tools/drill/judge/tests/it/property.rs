//! Random good histories are green, and one change makes any of them red.

use proptest::prelude::*;
use sluice_judge::record::{ClientEvent, PublishOutcome};
use sluice_judge::verdict::AnomalyKind;

use crate::records::Records;
use crate::simulation::{Rng, Simulation};

/// A way to change a run so that a promise is broken; whether there was something to change.
type Change = fn(&mut Records, &mut Rng) -> bool;

/// Each with the kinds of which one must be found.
const CHANGES: [(&str, Change, &[AnomalyKind]); 13] = [
    ("drop an acknowledged row", drop_row, &[AnomalyKind::LostWrite]),
    ("swap two rows", swap_rows, &[AnomalyKind::LostWrite, AnomalyKind::Phantom, AnomalyKind::Reordered]),
    ("store a row again", double_row, &[AnomalyKind::Duplicate]),
    ("change what is stored", change_row, &[AnomalyKind::Phantom]),
    ("drop a delivery", drop_got, &[AnomalyKind::Gap]),
    ("swap two deliveries", swap_gots, &[AnomalyKind::Reordered]),
    ("deliver again", double_got, &[AnomalyKind::Duplicate]),
    ("change what is delivered", change_got, &[AnomalyKind::Phantom]),
    ("acknowledge elsewhere", change_ok, &[AnomalyKind::LostWrite]),
    ("drop the last deliveries of a room", drop_tail, &[AnomalyKind::Gap]),
    ("resume elsewhere", resume_elsewhere, &[AnomalyKind::Dishonest]),
    ("forget the answers of a message", drop_answers, &[AnomalyKind::Unresolved]),
    ("store what was refused", store_refused, &[AnomalyKind::RefusedStored]),
];

proptest! {
    #[test]
    fn any_good_run_is_green(seed: u64, steps in 50_usize..800) {
        Simulation::run(seed, steps).assert_green();
    }

    #[test]
    fn any_good_run_with_a_restore_is_green(seed: u64, steps in 50_usize..800) {
        Simulation::restored(seed, steps).assert_green();
    }

    #[test]
    fn any_good_run_with_one_change_is_red(seed: u64, steps in 200_usize..800, which in 0..CHANGES.len()) {
        let (name, change, kinds) = CHANGES[which];
        let mut records = Simulation::run(seed, steps);
        if change(&mut records, &mut Rng::new(seed)) {
            let found = records.kinds();
            prop_assert!(kinds.iter().any(|kind| found.contains(kind)), "{}: only {:?}", name, found);
        }
    }
}

/// Changes that seldom find anything to change would prove nothing.
#[test]
fn every_change_happens() {
    for (name, change, _) in CHANGES {
        let changed =
            (0..20).filter(|seed| change(&mut Simulation::run(*seed, 500), &mut Rng::new(*seed))).count();
        assert!(changed >= 15, "{name}: {changed} of 20");
    }
}

fn drop_row(records: &mut Records, rng: &mut Rng) -> bool {
    let acked =
        records.places(|what| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Ok(_), .. }));
    let Some((client, index)) = rng.pick(&acked) else { return false };
    let ClientEvent::Answer { n, outcome: PublishOutcome::Ok(seq), .. } = *records.line((client, index))
    else {
        return false;
    };
    let room = records.clients[&client].iter().find_map(|(_, what)| {
        if let ClientEvent::Send { n: sent, room, .. } = what {
            (*sent == n).then(|| room.clone())
        } else {
            None
        }
    });
    records.rows.retain(|row| (Some(&row.room), row.seq) != (room.as_ref(), seq));
    true
}

fn swap_rows(records: &mut Records, rng: &mut Rng) -> bool {
    let pairs: Vec<usize> =
        (1..records.rows.len()).filter(|at| records.rows[at - 1].room == records.rows[*at].room).collect();
    let Some(at) = rng.pick(&pairs) else { return false };
    records.rows.swap(at - 1, at);
    (records.rows[at - 1].seq, records.rows[at].seq) = (records.rows[at].seq, records.rows[at - 1].seq);
    true
}

fn double_row(records: &mut Records, rng: &mut Rng) -> bool {
    let Some(mut row) = rng.pick(&records.rows) else { return false };
    let head = records.leftovers.heads.get_mut(&row.room).unwrap();
    *head += 1;
    row.seq = *head;
    if row.key.starts_with('~') {
        row.key.push_str("/again");
    }
    records.rows.push(row);
    true
}

fn change_row(records: &mut Records, rng: &mut Rng) -> bool {
    let rows = records.rows.len();
    if rows > 0 {
        records.rows[rng.below(rows)].hash ^= 1;
    }
    rows > 0
}

/// Deliveries that are followed by one on the same connection and in the same room: its place, and that of the next.
fn followed(records: &Records) -> Vec<(u32, usize, usize)> {
    let mut found = Vec::new();
    for (client, lines) in &records.clients {
        for (index, (_, what)) in lines.iter().enumerate() {
            let ClientEvent::Got { conn, room, seq, .. } = what else { continue };
            let later = lines[index + 1..].iter().position(|(_, what)| {
                matches!(what, ClientEvent::Got { conn: c, room: r, .. }
                    | ClientEvent::Subscribed { conn: c, room: r, .. }
                    | ClientEvent::Skipped { conn: c, room: r, .. } if (c, r) == (conn, room))
            });
            let Some(next) = later.map(|later| index + 1 + later) else { continue };
            if matches!(&lines[next].1, ClientEvent::Got { seq: s, .. } if *s == seq + 1) {
                found.push((*client, index, next));
            }
        }
    }
    found
}

fn drop_got(records: &mut Records, rng: &mut Rng) -> bool {
    let Some((client, index, _)) = rng.pick(&followed(records)) else { return false };
    records.remove((client, index));
    true
}

fn swap_gots(records: &mut Records, rng: &mut Rng) -> bool {
    let Some((client, index, next)) = rng.pick(&followed(records)) else { return false };
    let lines = records.clients.get_mut(&client).unwrap();
    let (first, second) = (lines[index].1.clone(), lines[next].1.clone());
    (lines[index].1, lines[next].1) = (second, first);
    true
}

fn double_got(records: &mut Records, rng: &mut Rng) -> bool {
    let gots = records.places(|what| matches!(what, ClientEvent::Got { .. }));
    let Some((client, index)) = rng.pick(&gots) else { return false };
    let lines = records.clients.get_mut(&client).unwrap();
    lines.insert(index + 1, lines[index].clone());
    true
}

fn change_got(records: &mut Records, rng: &mut Rng) -> bool {
    let gots = records.places(|what| matches!(what, ClientEvent::Got { .. }));
    let Some(place) = rng.pick(&gots) else { return false };
    let which = rng.below(3);
    if let ClientEvent::Got { hash, from, key, .. } = records.line(place) {
        match which {
            0 => *hash ^= 1,
            1 => from.push('?'),
            _ => *key = key.take().is_none().then(|| "made up".to_owned()),
        }
    }
    true
}

fn change_ok(records: &mut Records, rng: &mut Rng) -> bool {
    let acked =
        records.places(|what| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Ok(_), .. }));
    let Some(place) = rng.pick(&acked) else { return false };
    if let ClientEvent::Answer { outcome: PublishOutcome::Ok(seq), .. } = records.line(place) {
        *seq = if *seq > 1 { *seq - 1 } else { *seq + 1 };
    }
    true
}

/// Who stays to the end lacks the last message of a room.
fn drop_tail(records: &mut Records, rng: &mut Rng) -> bool {
    let Some(last) = rng
        .pick(&records.rows)
        .and_then(|row| records.rows.iter().rfind(|other| other.room == row.room).cloned())
    else {
        return false;
    };
    let is_it = |what: &ClientEvent| matches!(what, ClientEvent::Got { room, seq, .. } if (room, *seq) == (&last.room, last.seq));
    let mut readers: Vec<u32> = records.places(is_it).into_iter().map(|(client, _)| client).collect();
    // the slow are not owed it, and others may have asked for it again
    readers.retain(|client| matches!(client, 1..=6));
    let Some(client) = rng.pick(&readers) else { return false };
    records.clients.get_mut(&client).unwrap().retain(|(_, what)| !is_it(what));
    true
}

fn resume_elsewhere(records: &mut Records, rng: &mut Rng) -> bool {
    let resumed = records.places(|what| {
        matches!(what, ClientEvent::Subscribed { recovered: true, after, head, conn: 2.., .. } if after < head)
    });
    let resumed: Vec<(u32, usize)> = resumed.into_iter().filter(|(client, _)| *client != 8).collect();
    let Some(place) = rng.pick(&resumed) else { return false };
    if let ClientEvent::Subscribed { after, .. } = records.line(place) {
        *after += 1;
    }
    true
}

fn drop_answers(records: &mut Records, rng: &mut Rng) -> bool {
    let acked =
        records.places(|what| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Ok(_), .. }));
    let Some(place) = rng.pick(&acked) else { return false };
    let ClientEvent::Answer { n: forgotten, .. } = *records.line(place) else { return false };
    let lines = records.clients.get_mut(&place.0).unwrap();
    lines.retain(|(_, what)| !matches!(what, ClientEvent::Answer { n, .. } if *n == forgotten));
    lines.retain(|(_, what)| !matches!(what, ClientEvent::Closed { .. }));
    lines.pop(); // it goes on asking
    true
}

fn store_refused(records: &mut Records, rng: &mut Rng) -> bool {
    let refused = records.places(
        |what| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Refused(code), .. } if code == "too_large"),
    );
    let Some((client, index)) = rng.pick(&refused) else { return false };
    let ClientEvent::Answer { n: refused, .. } = *records.line((client, index)) else { return false };
    let lines = &records.clients[&client];
    let ClientEvent::Client { user, .. } = &lines[0].1 else { return false };
    let sent: Vec<&ClientEvent> = lines
        .iter()
        .map(|(_, what)| what)
        .filter(|what| matches!(what, ClientEvent::Send { n, .. } if *n == refused))
        .collect();
    let ClientEvent::Send { room, key, hash, .. } = sent[0] else { return false };
    if sent.len() > 1 {
        return false; // an earlier sending may have stored it
    }
    let mut row = records.rows[0].clone();
    let head = records.leftovers.heads.get_mut(room).unwrap();
    *head += 1;
    (row.room, row.seq, row.sender, row.hash) = (room.clone(), *head, user.clone(), *hash);
    row.key = key.clone().unwrap_or("~late/1".to_owned());
    records.rows.push(row);
    true
}
