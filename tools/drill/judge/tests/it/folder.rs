//! Folders of runs: read in full, refused where broken, with the log lines around what is wrong.

use std::fs;

use sluice_judge::record::ClientEvent;
use sluice_judge::verdict::AnomalyKind;
use sluice_judge::{ReadError, check};
use tempfile::TempDir;

use crate::records::Records;
use crate::script::Script;
use crate::simulation::Simulation;

fn folder(records: &Records) -> TempDir {
    let dir = TempDir::new().unwrap();
    records.write(dir.path());
    dir
}

#[test]
fn a_folder_is_judged_like_its_records() {
    let mut records = Simulation::run(5, 600);
    let dir = folder(&records);
    let verdict = check(dir.path()).unwrap();
    assert!(verdict.is_green(), "{verdict:#?}");
    assert_eq!(verdict, records.judged());
    records.rows.remove(3);
    let dir = folder(&records);
    let verdict = check(dir.path()).unwrap();
    assert_eq!(verdict, records.judged());
    assert!(!verdict.is_green());
}

#[test]
fn slices_are_the_lines_as_written() {
    let mut records = Script::usual().done();
    records.rows.pop();
    let dir = folder(&records);
    let verdict = check(dir.path()).unwrap();
    let lost = verdict.anomalies.iter().find(|it| it.kind == AnomalyKind::LostWrite).unwrap();
    let text = fs::read_to_string(dir.path().join("client-1.jsonl")).unwrap();
    assert_eq!(lost.slice.len(), 2, "{:?}", lost.slice);
    assert!(lost.slice.iter().all(|line| text.lines().any(|written| written == line)), "{:?}", lost.slice);
    assert_eq!((lost.client, lost.room.as_deref()), (Some(1), Some("r")));
}

#[test]
fn log_lines_around_it_are_shown() {
    let mut records = Script::usual().done();
    records.run.started_ms = 1_763_749_384_000; // 2025-11-21T18:23:04Z
    let place = records.places(|what| matches!(what, ClientEvent::Got { seq: 2, .. }))[0];
    records.remove(place);
    let dir = folder(&records);
    let logs = dir.path().join("logs").join("deep");
    fs::create_dir_all(&logs).unwrap();
    let text = "2025-11-21T18:23:04.010000Z  INFO near\n2025-11-21T18:23:09.000000Z  INFO far\nno time\n";
    fs::write(logs.join("gateway-0.log"), text).unwrap();
    let many: String =
        (0..60).map(|n| format!("{{\"timestamp\":\"2025-11-21T18:23:05.{n:02}Z\"}}\n")).collect();
    fs::write(logs.join("task-0.log"), many).unwrap();
    let verdict = check(dir.path()).unwrap();
    let logs = &verdict.anomalies[0].logs;
    assert_eq!(logs.len(), 40, "the nearest");
    assert_eq!(logs[0], "gateway-0: 2025-11-21T18:23:04.010000Z  INFO near");
    assert!(logs.iter().all(|line| !line.contains("far")));
}

#[test]
fn a_line_that_was_cut_is_left_out() {
    let mut records = Script::usual().done();
    let cut = |records: &Records| {
        let dir = folder(records);
        let path = dir.path().join("client-2.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 4]).unwrap();
        check(dir.path()).unwrap()
    };
    let verdict = cut(&records);
    assert!(
        verdict.inconclusive[0].contains("client-2.jsonl ends in the middle"),
        "{:?}",
        verdict.inconclusive
    );
    records.run.interrupted = true;
    let verdict = cut(&records);
    assert_eq!((verdict.anomalies_total, verdict.inconclusive.len()), (0, 1), "{verdict:#?}");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let dir = folder(&Script::usual().done());
    let path = dir.path().join("client-1.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    for (bad, why) in [
        ("not json\n", "line 12: expected"),
        ("[5,1,{\"answer\":{\"conn\":1}}]\n", "line 12: missing field"),
        ("[5,77,\"end\"]\n", "client 77 has no first line"),
        ("[5,1,{\"client\":{\"user\":\"u\",\"role\":\"r\",\"kind\":\"plain\"}}]\n", "begins twice"),
        (
            "[5,1,{\"send\":{\"conn\":1,\"n\":2,\"room\":\"r\",\"key\":null,\"hash\":1,\"bytes\":1}}]\n",
            "message 2 is sent again as another one",
        ),
    ] {
        fs::write(&path, format!("{good}{bad}")).unwrap();
        let error = check(dir.path()).unwrap_err();
        assert!(matches!(error, ReadError::RecordLine { .. }) && error.to_string().contains(why), "{error}");
    }
    let error = check(TempDir::new().unwrap().path()).unwrap_err().to_string();
    assert!(error.contains("run.json"), "{error}");
}

#[test]
fn a_missing_store_is_no_verdict() {
    let dir = folder(&Script::usual().done());
    fs::remove_file(dir.path().join("store.jsonl")).unwrap();
    let verdict = check(dir.path()).unwrap();
    assert!(verdict.inconclusive.iter().any(|why| why.contains("store.jsonl is missing")), "{verdict:#?}");
}
