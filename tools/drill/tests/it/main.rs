//! The drill as a whole: a small one on a real cluster, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod foreign;
mod load;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sluice_drill::load::Plan;
use sluice_drill::run::{self, Options};
use sluice_drill::scenario::Scenario;
use sluice_drill::target::given;
use sluice_judge::record::{
    CancelOutcome, ClientEvent, DelayedRecord, FaultRecord, Leftovers, RecordEntry, RevocationRecord,
    RunRecord, Sample, StoreRow,
};
use sluice_launcher::Engines;
use tokio_util::sync::CancellationToken;

fn options(dir: &Path) -> Options {
    Options {
        scenario: Scenario::Quick,
        rounds: Some(3),
        calm: run::CALM,
        only: Vec::new(),
        plan: Plan { seed: 5, clients: 20, rate_per_s: 50, rooms: 5, api_share: 0.1, ..Plan::default() },
        counts: [2, 2, 1],
        engines: Engines::default(),
        secure: false,
        bin_dir: None,
        previous: None,
        settings: Vec::new(),
        habits: Vec::new(),
        slow_links: Vec::new(),
        given: given::Wanted::default(),
        dir: dir.to_owned(),
        keep: false,
        command: "a test".into(),
        quiet: true,
    }
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of 20 clients: 21 asks questions.
fn is_backend(user: &str) -> bool {
    ["u22", "u23", "u24", "u25"].contains(&user)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_drill_ends_green() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let outcome = run::run(&options(&dir), &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    assert!(verdict.counts.clients >= 20 && verdict.counts.acked > 100, "{:?}", verdict.counts);
    assert!(verdict.counts.delivered > verdict.counts.acked, "{:?}", verdict.counts);
    let by_api =
        lines::<StoreRow>(&path.join("store.jsonl")).iter().filter(|row| is_backend(&row.sender)).count();
    assert!(by_api > 10, "{by_api} of {}", verdict.counts.stored);

    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    let rounds: Vec<&FaultRecord> = faults.iter().filter(|fault| fault.round > 0).collect();
    assert_eq!(rounds.len(), 3);
    assert!(rounds.iter().all(|fault| fault.hit && fault.healed_us > fault.began_us), "{rounds:?}");
    let stops: Vec<&FaultRecord> =
        faults.iter().filter(|fault| fault.kind.starts_with("final stop")).collect();
    assert_eq!(stops.len(), 5, "{stops:?}");
    assert!(
        stops.iter().all(|fault| fault.exit.as_ref().is_some_and(|exit| exit.code == Some(0))),
        "{stops:?}"
    );

    let leftovers: Leftovers =
        serde_json::from_str(&std::fs::read_to_string(path.join("leftovers.json")).unwrap()).unwrap();
    assert_eq!((leftovers.outbox_rows, leftovers.idle_in_transaction), (Some(0), Some(0)));
    assert_eq!((leftovers.stray_etcd_keys, leftovers.stray_redis_fields), (Some(vec![]), Some(vec![])));
    assert!(leftovers.files.len() == 5 && !leftovers.presence.is_empty() && !leftovers.heads.is_empty());
    let run: RunRecord =
        serde_json::from_str(&std::fs::read_to_string(path.join("run.json")).unwrap()).unwrap();
    assert!(run.load_us > 0 && run.settled_us > run.load_us && !run.interrupted);
    let samples: Vec<Sample> = lines(&path.join("samples.jsonl"));
    assert!(samples.iter().any(|sample| sample.connections.values().sum::<u64>() >= 20));
    assert!(path.join("logs/gateway-1.log").is_file() && !path.join("cluster").exists());

    assert!(outcome.report(None).unwrap().contains("term") || outcome.report(None).unwrap().contains("kill"));
    assert!(run::check(std::slice::from_ref(&dir)).unwrap().is_green());
    outcome.forget().unwrap();
    assert!(!path.join("client-1.jsonl").exists() && path.join("faults.jsonl").exists());
    assert!(options(&dir).check().unwrap_err().to_string().contains("another run"), "a folder is used once");
}

/// Whether the log of each of these processes begins with the certificate it was given.
fn have_certificates(records: &Path, names: &[&str]) -> bool {
    let log = |name: &&str| std::fs::read_to_string(records.join(format!("logs/{name}.log"))).unwrap();
    names.iter().map(log).all(|log| log.contains("tls.cert="))
}

/// Who comes back shows its certificate again, and the drill sees as much of it as of any cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_secure_cluster_ends_green_with_each_service_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let options = Options { secure: true, only: vec!["term".into()], ..options(&dir) };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    let mut kinds: Vec<&str> =
        faults.iter().filter(|fault| fault.round > 0 && fault.hit).map(|fault| &*fault.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["term gateway", "term logic", "term task"]);
    assert!(have_certificates(path, &["gateway-1", "gateway-2", "logic-1", "logic-2", "task-1"]));
    assert!(run::check(std::slice::from_ref(&dir)).unwrap().is_green());
}

/// A service's certificate names no address and a server's names loopback: both are good for the proxy that is dialled,
/// also after a reset.
#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_secure_cluster_are_broken_as_any_others() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        scenario: Scenario::Network,
        secure: true,
        only: ["reset gateway→logic", "reset task→gateway", "reset logic→postgres", "reset gateway→etcd"]
            .map(str::to_owned)
            .into(),
        rounds: Some(4),
        ..options(&folder.path().join("drill"))
    };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    let resets: Vec<&FaultRecord> = faults.iter().filter(|fault| fault.kind.starts_with("reset ")).collect();
    assert!(resets.len() == 4 && resets.iter().all(|fault| fault.hit), "{resets:?}");
    assert!(have_certificates(path, &["gateway-1", "logic-1", "task-1"]));
}

/// Every service, its log's reader gone from the start, gone later, or standing still: each stop in budget with 0, every
/// client told.
#[tokio::test(flavor = "multi_thread")]
async fn stops_need_nobody_who_reads_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let plan = Plan { seed: 3, clients: 40, rate_per_s: 200, rooms: 10, ..Plan::default() };
    let options = Options { scenario: Scenario::Logs, rounds: Some(6), plan, ..options(&dir) };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    let stops: Vec<&FaultRecord> = faults.iter().filter(|fault| fault.kind.starts_with("log ")).collect();
    assert_eq!(stops.len(), 9, "gone is two stops: {stops:?}");
    assert!(stops.iter().all(|fault| fault.hit && fault.exit.as_ref().unwrap().code == Some(0)), "{stops:?}");
}

/// Leases are so long that nothing is reaped while it is looked for: what is gone was taken along by the stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_leaves_nothing_to_the_reaper() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        only: vec!["term gateway".into()],
        rounds: Some(1),
        settings: vec!["all.etcd.lease_ttl_s=60".parse().unwrap()],
        ..options(&folder.path().join("drill"))
    };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    assert!(outcome.is_green(), "{:#?}", outcome.parts[0].1);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut Options)| {
        let mut options = options(&folder.path().join("drill"));
        change(&mut options);
        format!("{:#}", options.check().unwrap_err())
    };
    let said = refused(|options| options.only = vec!["term cat".into()]);
    assert!(said.contains("term gateway"), "{said}");
    let said = refused(|options| {
        options.scenario = Scenario::Roll;
        options.only = vec!["roll".into()];
    });
    assert!(said.contains("--roll-command"), "{said}");
    let said = refused(|options| options.given.gateways = vec!["ws://127.0.0.1:1/ws".into()]);
    assert!(said.contains("--token-secret"), "{said}");
    let said = refused(|options| {
        options.secure = true;
        options.given.gateways = vec!["ws://127.0.0.1:1/ws".into()];
    });
    assert!(said.contains("--secure is for a cluster of its own"), "{said}");
}

/// Bad neighbours publish as well, and are in nobody's records: the judge knows them by their names.
#[tokio::test(flavor = "multi_thread")]
async fn what_bad_neighbours_publish_is_nobodys_phantom() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        scenario: Scenario::Calm,
        rounds: None,
        calm: Duration::from_secs(5),
        habits: vec!["never-reads".into(), "pinger".into()],
        slow_links: Vec::new(),
        ..options(&folder.path().join("drill"))
    };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let rows: Vec<StoreRow> = lines(&path.join("store.jsonl"));
    assert!(rows.iter().any(|row| row.sender.starts_with("bad-5-never-reads")), "they have published");
}

/// A task is killed and both are rolled while a thousand messages become due, of which a third is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_while_tasks_go_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let options = Options { scenario: Scenario::Due, rounds: Some(1), counts: [2, 2, 2], ..options(&dir) };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let delayed: Vec<DelayedRecord> = lines(&path.join("delayed.jsonl"));
    assert_eq!(delayed.len(), 1_000);
    let cancelled = delayed.iter().filter(|it| it.cancel == Some(CancelOutcome::Cancelled)).count();
    let rows: Vec<StoreRow> = lines(&path.join("store.jsonl"));
    let published = rows.iter().filter(|row| row.room.ends_with("due-1")).count();
    println!("{cancelled} cancelled, {published} published");
    assert_eq!(cancelled + published, 1_000, "each is one or the other");
    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    assert_eq!(faults.iter().filter(|fault| fault.kind == "due" && fault.hit).count(), 3, "{faults:?}");
}

/// Users are disconnected by the API, one after the other, while each gateway and each logic is rolled.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_disconnected_during_a_roll_is_gone_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let only = vec!["revoke".into()];
    let options = Options { scenario: Scenario::Roll, only, rounds: Some(1), ..options(&dir) };
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let revocations: Vec<RevocationRecord> = lines(&path.join("revocations.jsonl"));
    let connections = revocations.iter().flat_map(|it| &it.connections);
    let closed = connections.map(|it| it.code).collect::<Vec<_>>();
    // Some were told to move before they were told to go.
    assert!(closed.contains(&Some(4503)), "{revocations:#?}");
    assert!(revocations.len() > 1 && revocations.iter().all(|it| it.refused > 0), "{revocations:#?}");
    let faults: Vec<FaultRecord> = lines(&path.join("faults.jsonl"));
    let rolled = faults.iter().filter(|fault| fault.kind == "revoke" && fault.exit.is_some()).count();
    assert_eq!(rolled, 4, "two gateways and two logics: {faults:?}");
}

/// Who was told to have left to each client that watches, before the run came to its end.
fn leaves_told(path: &Path) -> BTreeMap<u32, Vec<String>> {
    let run: RunRecord =
        serde_json::from_str(&std::fs::read_to_string(path.join("run.json")).unwrap()).unwrap();
    assert_eq!(run.leave_grace_ms, 15_000);
    let mut told: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for number in 1..=8 {
        let entries: Vec<RecordEntry> = lines(&path.join(format!("client-{number}.jsonl")));
        for RecordEntry(at_us, client, what) in entries {
            if matches!(&what, ClientEvent::Client { role, .. } if role == "watcher") {
                told.insert(client, Vec::new());
            }
            // Afterwards everybody says goodbye.
            if let ClientEvent::UserLeft { user, .. } = what
                && at_us < run.sent_until_us
            {
                told.get_mut(&client).unwrap().push(user);
            }
        }
    }
    told
}

/// With 20 others they are 21 to 34: those who end by their wish are 24, 28 and 32, of which 28 says goodbye.
fn watched(options: Options) -> Options {
    Options { plan: Plan { watched: 14, ..options.plan }, keep: true, ..options }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_goodbye_for_good_is_told_once_to_each_who_watches() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    // Longer than the last of them stays.
    let calm = Duration::from_secs(35);
    let options = watched(Options { scenario: Scenario::Calm, rounds: None, calm, ..options(&dir) });
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    let told = leaves_told(path);
    assert_eq!(told.len(), 2);
    for told in told.values() {
        let of = |name: &str| told.iter().filter(|user| *user == name).count();
        assert_eq!(of("u28"), 1, "{told:?}");
        assert_eq!(of("u28") + of("u24") + of("u32"), told.len(), "nobody else: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_each_gateway_is_no_leave() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("drill");
    let only = vec!["term gateway".into()];
    let options = watched(Options { only, rounds: Some(4), ..options(&dir) });
    let outcome = run::run(&options, &CancellationToken::new()).await.unwrap();
    let (path, verdict) = &outcome.parts[0];
    assert!(outcome.is_green(), "{verdict:#?}");
    for told in leaves_told(path).values() {
        assert!(told.iter().all(|user| ["u24", "u28", "u32"].contains(&user.as_str())), "{told:?}");
    }
}
