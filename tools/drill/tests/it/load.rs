//! A load on a real cluster, without any fault: what is written down is whole and adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use sluice_drill::api::ApiAccess;
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

/// Of backends every call is answered once; those that await an answer have one call under way.
fn backends(entries: &[RecordEntry]) {
    let of = |entry: &&RecordEntry| matches!(&entry.2, ClientEvent::Client { kind, .. } if kind == "api");
    let mut ids: Vec<u32> = entries.iter().filter(of).map(|RecordEntry(_, client, _)| *client).collect();
    // Clients share files, and those were read one after the other.
    ids.sort_unstable();
    assert_eq!(ids, [22, 23, 24, 25], "21 asks questions");
    for id in ids {
        let steps = || entries.iter().filter(|RecordEntry(_, client, _)| *client == id).map(|entry| &entry.2);
        let sent = steps().filter(|what| matches!(what, ClientEvent::Send { .. })).count();
        let ok =
            |what: &&ClientEvent| matches!(what, ClientEvent::Answer { outcome: PublishOutcome::Ok(_), .. });
        assert!(sent > 40 && steps().filter(ok).count() == sent, "client {id}: {sent} calls");
        let conns: BTreeSet<u32> = steps()
            .filter_map(|what| if let ClientEvent::Send { conn, .. } = what { Some(*conn) } else { None })
            .collect();
        if conns.contains(&0) {
            assert_eq!(conns.len(), 1, "client {id}");
            let turns =
                steps().filter(|what| matches!(what, ClientEvent::Send { .. } | ClientEvent::Answer { .. }));
            let is_send = turns.map(|what| matches!(what, ClientEvent::Send { .. })).collect::<Vec<_>>();
            assert!(is_send.chunks(2).all(|turn| turn == [true, false]), "client {id} did not wait");
        } else {
            assert_eq!(conns.len(), sent, "client {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_load_writes_down_is_whole_and_adds_up() {
    let cluster = Cluster::start(Options { gateways: 2, logics: 2, ..Options::default() }).await.unwrap();
    let urls = cluster.nodes(Service::Gateway).iter().map(|node| node.ws().to_owned()).collect();
    let secret = cluster.token_secret().to_owned();
    let grants = || token::Grants { sub: vec!["*".into()], publish: vec!["*".into()] };
    let mint = move |user: &str| token::mint(&secret, user, grants(), Duration::from_secs(3_600)).ok();
    let folder = tempfile::tempdir().unwrap();
    let prefix = "again/".to_owned();
    let plan =
        Plan { seed: 3, clients: 20, rate_per_s: 200, rooms: 8, prefix, api_share: 0.2, ..Plan::default() };
    let beacon_room = plan.beacon_room();
    let apis: Vec<String> = cluster.nodes(Service::Logic).iter().map(|node| node.http().to_owned()).collect();
    let api = ApiAccess::new(move || apis.clone(), cluster.api_key());
    let endpoints = Endpoints::fixed(urls, mint).with_api(Some(api));
    let load = Load::start(plan, endpoints, Clock::start(), folder.path()).await.unwrap();
    assert!(load.summary().starts_with("24 clients: 4 beacon/library"), "{}", load.summary());
    assert!(load.summary().contains("4 backend/api"), "{}", load.summary());
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
    assert_eq!(count(|what| matches!(what, ClientEvent::Client { .. })), 25);
    assert_eq!(count(|what| matches!(what, ClientEvent::End)), 25, "the query client too");
    backends(&entries);
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
