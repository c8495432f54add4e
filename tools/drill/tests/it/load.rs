//! A load on a real cluster, without any fault: what is written down is whole and adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use sluice_drill::clock::Clock;
use sluice_drill::load::{Endpoints, Load, Plan};
use sluice_judge::record::{ClientEvent, PublishOutcome, RecordEntry};
use sluice_launcher::{Cluster, Options, Service, token};
use tokio::time::sleep;

fn entries(dir: &Path) -> Vec<RecordEntry> {
    let mut entries = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "jsonl") {
            let text = std::fs::read_to_string(&path).unwrap();
            entries.extend(text.lines().map(|line| serde_json::from_str::<RecordEntry>(line).unwrap()));
        }
    }
    entries
}

/// Each publish has an outcome, each `ok` one seq; the heads of all rooms by what was answered.
fn heads(entries: &[RecordEntry]) -> BTreeMap<String, u64> {
    let mut rooms = BTreeMap::new();
    let mut stored: BTreeMap<(u32, u64), BTreeSet<u64>> = BTreeMap::new();
    let mut open = BTreeSet::new();
    for RecordEntry(_, client, what) in entries {
        if let ClientEvent::Send { n, room, .. } = what {
            rooms.insert((*client, *n), room.clone());
            open.insert((*client, *n));
        } else if let ClientEvent::Answer { n, outcome, .. } = what {
            let message = (*client, *n);
            assert!(rooms.contains_key(&message), "an answer to what was not sent: {what:?}");
            if let PublishOutcome::Ok(seq) = outcome {
                stored.entry(message).or_default().insert(*seq);
            }
            if !matches!(outcome, PublishOutcome::Again(_)) {
                open.remove(&message);
            }
        }
    }
    assert!(open.is_empty(), "without an outcome: {open:?}");
    assert!(stored.values().all(|seqs| seqs.len() == 1), "one message, two seqs: {stored:?}");
    let mut heads: BTreeMap<String, u64> = BTreeMap::new();
    for (message, seqs) in stored {
        let head = heads.entry(rooms[&message].clone()).or_default();
        *head = seqs.into_iter().chain([*head]).max().unwrap();
    }
    heads
}

/// From where each subscription stands on, every seq once.
fn contiguous(entries: &[RecordEntry]) {
    let mut at: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    for RecordEntry(_, client, what) in entries {
        if let ClientEvent::Subscribed { room, after, recovered, .. } = what {
            let before = at.insert((*client, room), *after);
            assert!(before.is_none_or(|before| before == *after && *recovered), "client {client}: {what:?}");
        } else if let ClientEvent::Got { room, seq, .. } = what {
            let last = at.get_mut(&(*client, room.as_str())).expect("a subscription");
            assert_eq!(*seq, *last + 1, "client {client}: {what:?}");
            *last = *seq;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_load_writes_down_is_whole_and_adds_up() {
    let cluster = Cluster::start(Options { gateways: 2, ..Options::default() }).await.unwrap();
    let urls = cluster.nodes(Service::Gateway).iter().map(|node| node.ws().to_owned()).collect();
    let secret = cluster.token_secret().to_owned();
    let grants = || token::Grants { sub: vec!["*".into()], publish: vec!["*".into()] };
    let mint = move |user: &str| token::mint(&secret, user, grants(), Duration::from_secs(3_600)).ok();
    let folder = tempfile::tempdir().unwrap();
    let prefix = "again/".to_owned();
    let plan = Plan { seed: 3, clients: 20, rate_per_s: 200, rooms: 8, prefix, ..Plan::default() };
    let beacon_room = plan.beacon_room();
    let load = Load::start(plan, Endpoints::fixed(urls, mint), Clock::start(), folder.path()).await.unwrap();
    assert!(load.summary().starts_with("20 clients: 4 beacon/library"), "{}", load.summary());
    assert_eq!(load.progress().connected, 20);
    assert_eq!(load.progress().connected_by_instance.len(), 2, "{:?}", load.progress());
    sleep(Duration::from_secs(8)).await; // the time that the load lasts, habits included
    let seen = load.progress();
    assert!(seen.acked > 500 && seen.ack_p99_ms.is_some() && seen.delivery_p99_ms.is_some(), "{seen:?}");

    assert_eq!(load.quiesce().await, 0, "{:?}", load.progress());
    let page = load.history(&beacon_room, None).await.unwrap();
    let heads_now = BTreeMap::from([(beacon_room.clone(), page.last().unwrap().seq)]);
    assert!(load.everyone_has(&heads_now, Duration::from_secs(20)).await, "{:?}", load.lacking(&heads_now));
    let too_much = BTreeMap::from([(beacon_room.clone(), u64::MAX)]);
    assert!(!load.everyone_has(&too_much, Duration::ZERO).await);
    let open = load.open_presence();
    assert_eq!(open[&beacon_room].len(), 16, "all but those who publish to it");
    for (room, open) in &open {
        let mut said = load.presence(room).await.unwrap();
        for _ in 0..100 {
            if said == *open {
                break;
            }
            sleep(Duration::from_millis(100)).await; // who came back a moment ago is reported in batches
            said = load.presence(room).await.unwrap();
        }
        assert_eq!(said, *open, "{room}");
    }
    let progress = load.end().await.unwrap();

    let entries = entries(folder.path());
    let heads = heads(&entries);
    assert_eq!(heads[&beacon_room], heads_now[&beacon_room]);
    assert!(heads.keys().all(|room| room.starts_with("again/")), "{heads:?}");
    contiguous(&entries);
    let count = |wanted: fn(&ClientEvent) -> bool| {
        entries.iter().filter(|RecordEntry(_, _, what)| wanted(what)).count() as u64
    };
    assert_eq!(count(|what| matches!(what, ClientEvent::Client { .. })), 21);
    assert_eq!(count(|what| matches!(what, ClientEvent::End)), 21, "the query client too");
    assert_eq!(count(|what| matches!(what, ClientEvent::Got { .. })), progress.delivered);
    assert!(count(|what| matches!(what, ClientEvent::Send { .. })) > progress.sent, "some went out twice");
    assert_eq!(count(|what| matches!(what, ClientEvent::Closed { code: None, .. })), 0, "nobody was cut off");
    assert!(count(|what| matches!(what, ClientEvent::Send { key: None, .. })) > 0);
    assert!(count(|what| matches!(what, ClientEvent::Paused { .. })) > 0);
    assert_eq!(
        count(|what| matches!(what, ClientEvent::Paused { .. })),
        count(|what| matches!(what, ClientEvent::Unpaused { .. }))
    );
    assert!(count(|what| matches!(what, ClientEvent::Unsubscribed { .. })) > 0);
    cluster.stop().await;
}
