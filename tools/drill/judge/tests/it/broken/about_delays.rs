//! Messages that were to be published later.

use sluice_judge::record::{CancelOutcome, DelayedRecord, StoreRow};
use sluice_judge::verdict::AnomalyKind;

use super::assert_only;
use crate::records::Records;
use crate::script::Script;

const DUE_MS: i64 = 1_000;

fn delayed(n: u64) -> DelayedRecord {
    let (room, user, key) = ("later".into(), "user-9".into(), format!("later-{n}"));
    DelayedRecord { room, user, key, hash: n, due_ms: Some(DUE_MS), late_ms: 500, cancel: None }
}

fn row(n: u64, seq: u64, at_ms: i64) -> StoreRow {
    StoreRow { room: "later".into(), seq, sender: "user-9".into(), key: format!("later-{n}"), hash: n, at_ms }
}

/// One is published at its time, the next late but in time, one is cancelled, one cancel came too late, one has no answer.
fn usual() -> Records {
    let mut records = Script::usual().done();
    let cancel = |n, cancel| DelayedRecord { cancel: Some(cancel), ..delayed(n) };
    records.delayed = vec![
        delayed(1),
        delayed(2),
        cancel(3, CancelOutcome::Cancelled),
        cancel(4, CancelOutcome::TooLate),
        cancel(5, CancelOutcome::Unknown),
        DelayedRecord { due_ms: None, ..delayed(6) },
    ];
    records.rows.extend([row(1, 1, DUE_MS), row(2, 2, DUE_MS + 500), row(4, 3, DUE_MS + 1)]);
    heads(&mut records);
    records
}

fn heads(records: &mut Records) {
    let head = records.rows.iter().filter(|row| row.room == "later").map(|row| row.seq).max().unwrap_or(0);
    records.leftovers.heads.insert("later".into(), head);
}

#[test]
fn what_is_published_in_its_time_or_cancelled_is_green() {
    usual().assert_green();
    // Whose cancel or schedule has no answer may be published or not.
    let mut records = usual();
    records.rows.extend([row(5, 4, DUE_MS), row(6, 5, 1)]);
    heads(&mut records);
    records.assert_green();
}

fn with(change: impl FnOnce(&mut Vec<StoreRow>)) -> Records {
    let mut records = usual();
    change(&mut records.rows);
    heads(&mut records);
    records
}

#[test]
fn a_delayed_message_is_early_late_lost_doubled_or_another() {
    let at = |at_ms: i64| {
        with(|rows| {
            rows.iter_mut().for_each(|row| {
                if row.key == "later-2" {
                    row.at_ms = at_ms;
                }
            })
        })
    };
    assert_only(&at(DUE_MS - 1), AnomalyKind::Early, "1 ms early, as 2");
    assert_only(&at(DUE_MS + 501), AnomalyKind::Late, "501 ms late, as 2");
    assert_only(&with(|rows| drop(rows.pop())), AnomalyKind::LostWrite, "is not published");
    assert_only(&with(|rows| rows.push(row(1, 4, DUE_MS))), AnomalyKind::Duplicate, "twice: as 1 and as 4");
    let again = StoreRow { key: "later-1/again".into(), ..row(1, 4, DUE_MS) };
    assert_only(&with(|rows| rows.push(again)), AnomalyKind::Phantom, "which nobody sent");
    let other = StoreRow { hash: 77, ..row(5, 4, DUE_MS) };
    assert_only(&with(|rows| rows.push(other)), AnomalyKind::Phantom, "with other data");
}

#[test]
fn a_cancelled_message_is_published() {
    let records = with(|rows| rows.push(row(3, 4, DUE_MS)));
    assert_only(&records, AnomalyKind::Dishonest, "was cancelled, and is published as 4");
}
