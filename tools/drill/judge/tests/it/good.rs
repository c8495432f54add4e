//! Good histories are green, whatever happened in them.

use sluice_judge::record::ClientEvent;

use crate::simulation::Simulation;

#[test]
fn a_good_run_is_green_and_counted() {
    let records = Simulation::run(7, 2_000);
    records.assert_green();
    let counts = records.judged().counts;
    assert_eq!(counts.clients, 8);
    assert_eq!(counts.stored, records.rows.len() as u64);
    assert_eq!(counts.delivered, records.places(|what| matches!(what, ClientEvent::Got { .. })).len() as u64);
    assert!(counts.sent > 100 && counts.acked > 100 && counts.delivered > 500, "{counts:?}");
    assert!(counts.refused > 0 && counts.unknown > 0 && counts.honest_gaps > 0, "{counts:?}");
}

#[test]
fn a_run_with_a_restore_is_green() {
    let records = Simulation::restored(3, 2_000);
    records.assert_green();
    assert!(records.judged().counts.honest_gaps > 10);
}
