//! Whole folders, read and measured.

use std::fs;

use super::{
    synthetic::{ACKED_AFTER, DELIVERED_AFTER, SECOND, Synthetic, SyntheticClient, fault},
    *,
};
use sluice_judge::{
    record::ClientEvent,
    verdict::{Anomaly, AnomalyKind},
};

fn measured(run: &Synthetic, verdict: Verdict) -> Measures {
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    measure(&[dir.path()], &[verdict]).unwrap()
}

fn anomaly(kind: AnomalyKind, at_us: u64) -> Anomaly {
    Anomaly { kind, at_us, room: None, client: None, text: String::new(), slice: vec![], logs: vec![] }
}

#[test]
fn a_known_gap_is_exactly_the_silence() {
    let deaf = SyntheticClient::deaf(12 * SECOND, 13 * SECOND + 400_000);
    let run = Synthetic::new(vec![fault("kill task", 12 * SECOND)], vec![deaf, SyntheticClient::deaf(0, 0)]);
    let measures = measured(&run, Verdict::default());
    let [kind] = measures.kinds.as_slice() else { panic!("{:?}", measures.kinds) };
    let silence = kind.silence.as_ref().unwrap();
    assert_eq!(
        (silence.n, silence.p50_us, silence.p99_us, silence.max_us),
        (2, 100_000, 1_400_000, 1_400_000)
    );
    let steady = measures.steady.as_ref().unwrap();
    assert_eq!((steady.p50_us, steady.max_us), (100_000, 100_000));
    let missed: Vec<_> = measures.targets.iter().filter(|target| target.met() == Some(false)).collect();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].seen_us, Some(1_400_000));
}

#[test]
fn who_is_away_on_purpose_and_faults_that_hit_nothing_say_nothing() {
    let mut missed = fault("kill logic", 25 * SECOND);
    missed.hit = false;
    let away = |role| SyntheticClient { role, ..SyntheticClient::deaf(11 * SECOND, 15 * SECOND) };
    let listeners = vec![away("slow"), away("stopped"), away("churn"), SyntheticClient::deaf(0, 0)];
    let run = Synthetic::new(vec![fault("kill task", 10 * SECOND), missed], listeners);
    let measures = measured(&run, Verdict::default());
    let [logic, task] = measures.kinds.as_slice() else { panic!("{:?}", measures.kinds) };
    assert_eq!((logic.faults, logic.hit, &logic.silence), (1, 0, &None));
    assert_eq!(task.silence.as_ref().map(|silence| (silence.n, silence.max_us)), Some((1, 100_000)));
}

#[test]
fn what_clients_were_told_is_taken_off() {
    let mut moved = SyntheticClient::deaf(10 * SECOND, 11 * SECOND);
    moved.events =
        vec![(10 * SECOND + 5_000, ClientEvent::Drain { conn: 1, within_ms: 6_000, reconnect_ms: 830 })];
    let mut broke = SyntheticClient::deaf(30 * SECOND, 32 * SECOND);
    broke.events =
        vec![(30 * SECOND + 50_000, ClientEvent::Closed { conn: 1, code: None, reason: "reset".into() })];
    let faults = vec![fault("term gateway", 10 * SECOND), fault("kill gateway", 30 * SECOND)];
    let measures = measured(&Synthetic::new(faults, vec![moved, broke]), Verdict::default());
    let [kill, term] = measures.kinds.as_slice() else { panic!("{:?}", measures.kinds) };
    assert_eq!(term.beyond_told.as_ref().map(|one| (one.n, one.max_us)), Some((1, 170_000)));
    assert_eq!(term.silence.as_ref().map(|one| (one.n, one.max_us)), Some((2, 1_000_000)));
    assert_eq!(kill.after_notice.as_ref().map(|one| (one.n, one.max_us)), Some((1, 1_953_000)));
    assert_eq!((&kill.beyond_told, &term.after_notice), (&None, &None));
    let [exits] = measures.exits.as_slice() else { panic!("{:?}", measures.exits) };
    assert_eq!((exits.service.as_str(), exits.took.n, exits.budget_us), ("gateway", 1, 8 * SECOND));
}

#[test]
fn nobody_is_silent_because_sending_has_ended() {
    let mut listener = SyntheticClient::deaf(0, 0);
    listener.events = vec![(40 * SECOND, ClientEvent::End)];
    let mut run = Synthetic::new(vec![fault("kill logic", 29 * SECOND)], vec![listener]);
    run.run.load_us = 30 * SECOND; // and 10 s until somebody had his last answer
    run.run.sent_until_us = 30 * SECOND;
    let longest =
        |run: &Synthetic| measured(run, Verdict::default()).kinds[0].silence.as_ref().unwrap().max_us;
    assert_eq!(longest(&run), 100_000);
    run.run.sent_until_us = 0;
    assert!(longest(&run) > 5 * SECOND, "an older record does not say when");
}

#[test]
fn the_stops_of_the_end_are_no_faults_under_load() {
    let mut stop = fault("final stop logic", 41 * SECOND);
    stop.exit.as_mut().unwrap().budget_ms = 8_000;
    let run = Synthetic::new(vec![fault("kill task", 10 * SECOND), stop], vec![SyntheticClient::deaf(0, 0)]);
    let measures = measured(&run, Verdict::default());
    assert_eq!((measures.totals.faults, measures.totals.hit), (1, 1));
    let stop = measures.kinds.iter().find(|kind| kind.kind == "final stop logic").unwrap();
    assert_eq!((stop.faults, &stop.silence), (1, &None));
    assert_eq!(measures.exits.iter().map(|exits| exits.service.as_str()).collect::<Vec<_>>(), ["logic"]);
}

#[test]
fn faults_done_as_one_are_one_silence() {
    let faults = vec![fault("kill task", 12 * SECOND), fault("kill task", 12 * SECOND + 1_000)];
    let run = Synthetic::new(faults, vec![SyntheticClient::deaf(13 * SECOND, 15 * SECOND)]);
    let measures = measured(&run, Verdict::default());
    let [kind] = measures.kinds.as_slice() else { panic!("{:?}", measures.kinds) };
    let silence = kind.silence.as_ref().unwrap();
    assert_eq!((kind.faults, silence.n, silence.max_us), (2, 1, 2 * SECOND));
}

#[test]
fn anomalies_belong_to_the_last_fault_before_them() {
    let faults = vec![fault("kill task", 10 * SECOND), fault("kill logic", 20 * SECOND)];
    let anomalies = vec![
        anomaly(AnomalyKind::LostWrite, 10 * SECOND),
        anomaly(AnomalyKind::Gap, 19 * SECOND),
        anomaly(AnomalyKind::Duplicate, 20 * SECOND),
        anomaly(AnomalyKind::Reordered, 39 * SECOND),
        anomaly(AnomalyKind::Leak, 0),
        anomaly(AnomalyKind::Untold, 9 * SECOND),
    ];
    let verdict = Verdict { anomalies, anomalies_total: 10, ..Verdict::default() };
    let measures = measured(&Synthetic::new(faults, vec![]), verdict);
    let [logic, task] = measures.kinds.as_slice() else { panic!("{:?}", measures.kinds) };
    assert_eq!(task.broken, Broken { lost: 2, ..Broken::default() });
    assert_eq!(logic.broken, Broken { duplicated: 1, reordered: 1, ..Broken::default() });
    assert_eq!(measures.elsewhere, Broken { other: 2, ..Broken::default() });
    assert_eq!((measures.unlisted, measures.totals.anomalies), (4, 10));
}

#[test]
fn latencies_and_totals_are_those_of_the_records() {
    let measures = measured(&Synthetic::new(vec![], vec![SyntheticClient::deaf(0, 0)]), Verdict::default());
    let totals = &measures.totals;
    assert_eq!((totals.publishes, totals.acked, totals.deliveries), (400, 400, 400));
    let near = |seen: u64, truth: u64| assert!(seen.abs_diff(truth) <= truth / 100, "{seen} for {truth}");
    let publish = measures.publish.unwrap();
    near(publish.p50_us, ACKED_AFTER);
    assert_eq!(publish.max_us, ACKED_AFTER);
    assert_eq!(measures.delivery.map(|delivery| (delivery.n, delivery.max_us)), Some((400, DELIVERED_AFTER)));
    assert_eq!((measures.over_time.len(), measures.step_us), (40, SECOND));
    assert!(measures.over_time.iter().all(|one| one.n == 10));
    assert_eq!(measures.connections.len(), 2);
}

#[test]
fn two_parts_are_their_sum() {
    let deaf = |length: u64| {
        let listener = SyntheticClient::deaf(12 * SECOND, 12 * SECOND + length);
        Synthetic::new(vec![fault("kill task", 12 * SECOND)], vec![listener])
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut first, second) = (deaf(SECOND), deaf(3 * SECOND));
    first.run.seed = 6;
    first.write(dirs[0].path());
    second.write(dirs[1].path());
    let verdict = |n| Verdict {
        anomalies: vec![anomaly(AnomalyKind::Gap, 13 * SECOND); n],
        anomalies_total: n as u64,
        ..Verdict::default()
    };
    let both = measure(&[dirs[0].path(), dirs[1].path()], &[verdict(1), verdict(2)]).unwrap();
    let alone: Vec<_> = [(0, 1), (1, 2)]
        .map(|(i, n): (usize, usize)| measure(&[dirs[i].path()], &[verdict(n)]).unwrap())
        .into_iter()
        .collect();
    let sum = |of: fn(&Measures) -> u64| alone.iter().map(of).sum::<u64>();
    for of in [
        |one: &Measures| one.totals.publishes,
        |one: &Measures| one.totals.acked,
        |one: &Measures| one.totals.deliveries,
        |one: &Measures| one.totals.anomalies,
        |one: &Measures| one.kinds[0].broken.lost,
        |one: &Measures| one.kinds[0].silence.as_ref().map_or(0, |silence| silence.n),
        |one: &Measures| one.steady.as_ref().map_or(0, |steady| steady.n),
    ] {
        assert!(of(&both) > 0);
        assert_eq!(of(&both), sum(of));
    }
    let silence = both.kinds[0].silence.as_ref().unwrap();
    assert_eq!((silence.p50_us, silence.max_us), (SECOND, 3 * SECOND));
    assert_eq!(both.totals.seeds, [6, 7]);
    assert_eq!(both.faults[1].began_us, 52 * SECOND);
    assert_eq!(both.over_time.len(), 80);
}

#[test]
fn a_torn_line_is_counted_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    Synthetic::new(vec![], vec![SyntheticClient::deaf(0, 0)]).write(dir.path());
    let path = dir.path().join("client-1.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    fs::write(&path, &lines[..lines.len() - 20]).unwrap();
    let measures = measure(&[dir.path()], &[Verdict::default()]).unwrap();
    assert_eq!((measures.unread_lines, measures.totals.deliveries), (1, 399));
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = measure(&[dir.path()], &[Verdict::default()]).unwrap_err();
    assert!(matches!(&error, MeasureError::Read { path, .. } if path.ends_with("run.json")), "{error}");
    let error = measure(&[dir.path()], &[]).unwrap_err();
    assert!(matches!(error, MeasureError::Unpaired { folders: 1, verdicts: 0 }));
}
