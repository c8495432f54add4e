//! Silences of hand-made clients are exactly the gaps that were made.

use super::*;

/// One fault at 10..=20 s, quiet windows before and after it.
fn plan() -> MeasureWindows {
    let window = |from: u64, to: u64| TimeWindow { from: from * 1_000_000, to: to * 1_000_000 };
    MeasureWindows {
        beacon_room: "beacon".into(),
        faults: vec![window(10, 20)],
        quiet: vec![window(0, 10), window(20, 30)],
        end: 30_000_000,
    }
}

/// Beacons every 100 ms over 0..=30 s, but for what `skip` names; `see` may add events at a time.
fn listen(skip: impl Fn(u64) -> bool, events: &[(u64, ClientEvent)]) -> Silences {
    let plan = plan();
    let mut listener = SilenceMeter::default();
    let mut events = events.iter().peekable();
    for at in (0..=30_000_000).step_by(100_000) {
        while let Some((when, what)) = events.next_if(|(when, _)| *when <= at) {
            listener.see(&plan, *when, what);
        }
        if !skip(at) {
            listener.beacon(&plan, at);
        }
    }
    listener.finish(&plan, 30_000_000)
}

fn between(from: u64, to: u64) -> impl Fn(u64) -> bool {
    move |at| from < at && at < to
}

#[test]
fn a_known_gap_is_the_silence() {
    let silences = listen(between(12_000_000, 13_500_000), &[]);
    assert_eq!(silences.faults, [(0, 1_500_000)]);
    assert_eq!(silences.quiet, [100_000, 100_000]);
}

#[test]
fn a_gap_that_began_before_the_fault_counts_whole_and_only_there() {
    let silences = listen(between(9_000_000, 11_000_000), &[]);
    assert_eq!(silences.faults, [(0, 2_000_000)]);
    assert_eq!(silences.quiet, [100_000, 100_000]);
}

#[test]
fn a_gap_that_meets_two_faults_is_the_one_s_it_lies_in_most() {
    let window = |from: u64, to: u64| TimeWindow { from: from * 1_000_000, to: to * 1_000_000 };
    for (from, to, expected) in [(9, 19, vec![(0, 10)]), (19, 29, vec![(1, 10)]), (15, 25, vec![(1, 10)])] {
        let plan = MeasureWindows { faults: vec![window(10, 20), window(20, 30)], quiet: vec![], ..plan() };
        let mut listener = SilenceMeter::default();
        listener.beacon(&plan, from * 1_000_000);
        listener.beacon(&plan, to * 1_000_000);
        let silences = listener.finish(&plan, to * 1_000_000);
        let whole: Vec<_> =
            silences.faults.iter().map(|(i, us)| (*i, us / 1_000_000)).filter(|(_, s)| *s > 0).collect();
        assert_eq!(whole, expected, "{from} to {to}");
    }
}

#[test]
fn a_gap_in_quiet_times_is_steady() {
    let silences = listen(between(25_000_000, 26_000_000), &[]);
    assert_eq!((silences.faults, silences.quiet), (vec![(0, 100_000)], vec![100_000, 1_000_000]));
}

#[test]
fn who_never_hears_again_is_silent_to_the_end() {
    let silences = listen(|at| at > 15_000_000, &[]);
    assert_eq!(silences.faults, [(0, 15_000_000)]);
}

fn subscribed(conn: u32) -> ClientEvent {
    ClientEvent::Subscribed {
        conn,
        room: "beacon".into(),
        after: 0,
        head: 0,
        epoch: "e".into(),
        recovered: true,
        asked: true,
    }
}

fn closed(conn: u32, code: Option<u16>) -> ClientEvent {
    ClientEvent::Closed { conn, code, reason: String::new() }
}

fn open(conn: u32) -> ClientEvent {
    ClientEvent::Open { conn, url: String::new(), instance: String::new(), epoch: String::new() }
}

#[test]
fn who_subscribed_and_hears_nothing_is_silent_since_then() {
    let silences = listen(|at| at < 14_000_000, &[(11_000_000, subscribed(1))]);
    assert_eq!(silences.faults, [(0, 3_000_000)]);
}

#[test]
fn chosen_silence_is_none() {
    let left = [(0, subscribed(1)), (12_050_000, closed(1, Some(1000))), (13_000_000, open(2))];
    let silences = listen(between(12_000_000, 15_000_000), &left);
    assert_eq!(silences.faults, [(0, 100_000)]);
    let silences = listen(|at| at > 12_000_000, &[(12_000_001, ClientEvent::End)]);
    assert_eq!(silences.faults, [(0, 100_000)]);
}

#[test]
fn what_is_not_heard_after_the_load_is_no_silence() {
    let plan = MeasureWindows { end: 13_000_000, ..plan() };
    let mut listener = SilenceMeter::default();
    listener.see(&plan, 11_000_000, &subscribed(1));
    listener.beacon(&plan, 12_000_000);
    listener.see(&plan, 19_000_000, &closed(1, Some(1000)));
    listener.see(&plan, 19_000_001, &ClientEvent::End);
    assert_eq!(listener.finish(&plan, 12_000_000).faults, [(0, 1_000_000)]);
}

#[test]
fn who_moves_closes_the_old_connection_and_listens_on() {
    let moved = [(0, subscribed(1)), (12_050_000, closed(1, Some(1000))), (12_050_009, open(2))];
    let silences = listen(between(12_000_000, 15_000_000), &moved);
    assert_eq!(silences.faults, [(0, 3_000_000)]);
}

#[test]
fn a_second_connection_says_nothing_of_the_first() {
    let bye = ClientEvent::Bye { conn: 2, code: 1012, reconnect: true, reconnect_ms: Some(400) };
    let ends = |code| {
        [(0, subscribed(1)), (12_020_000, open(2)), (12_030_000, bye.clone()), (12_050_000, closed(2, code))]
    };
    for code in [None, Some(1000)] {
        let silences = listen(between(12_000_000, 15_000_000), &ends(code));
        assert_eq!(
            (silences.faults, silences.told, silences.noticed),
            (vec![(0, 3_000_000)], vec![], vec![])
        );
    }
}

#[test]
fn who_paused_in_a_window_says_nothing_of_it() {
    let pause =
        [(15_000_000, ClientEvent::Paused { conn: 1 }), (17_000_000, ClientEvent::Unpaused { conn: 1 })];
    let silences = listen(between(15_000_000, 17_000_000), &pause);
    assert_eq!((silences.faults, silences.quiet), (vec![], vec![100_000, 100_000]));
}

#[test]
fn what_was_told_and_noticed_belongs_to_the_fault() {
    let drain = ClientEvent::Drain { conn: 1, within_ms: 6_000, reconnect_ms: 250 };
    let bye = ClientEvent::Bye { conn: 1, code: 1012, reconnect: true, reconnect_ms: Some(400) };
    let events = [(0, subscribed(1)), (11_000_000, drain), (12_010_000, bye), (12_030_000, closed(1, None))];
    let silences = listen(between(12_000_000, 12_700_000), &events);
    assert_eq!(silences.faults, [(0, 700_000)]);
    assert_eq!(silences.told, [(0, 400_000)]);
    assert_eq!(silences.noticed, [(0, 670_000)]);
}
