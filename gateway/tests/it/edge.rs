//! A whole gateway on real sockets, with a scripted logic: what real servers cannot be made to do at will
//! (withhold an outcome, forget a marker), and the order in which clients leave.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod admission;
mod agent_check;
mod authenticate;
mod bounds;
mod counted;
mod disconnect;
mod event_reader;
mod events;
mod fair;
mod forged;
mod frozen;
mod limits;
#[cfg(feature = "servers")]
mod lives;
mod logic;
mod one_order;
#[cfg(feature = "servers")]
mod prefix;
mod presence;
mod process;
mod rig;
mod standby;
mod tickets;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_cluster::{Cluster, ClusterView, Headroom, Service};
use sluice_gateway::config::Config;
use sluice_gateway::defaults::{HANDSHAKES_PER_S, STATUS_ITEMS_MAX, budget};
use sluice_lifecycle::{Stage, StageOutcome, StopReason, Work};
use sluice_proto::grpc::{ChangeKind, FullSet};
use sluice_proto::wire::close;
use sluice_service::clock::Clock;
use sluice_testing::eventually;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use self::rig::{AT_ONCE, Client, Rig, SOON, TOTAL};

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let rig = Rig::start(2, false).await;
    let began = Instant::now();
    let report = rig.stop().await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(report.is_clean(), "{report:?}");
}

/// Refuse what is read from now on, outcome of what was accepted, bye, close frame, end of TCP.
#[tokio::test]
async fn a_client_leaves_in_order() {
    let rig = Rig::start(2, true).await;
    let mut client = Client::connect(&rig).await;
    rig.logic.hold(true);
    client.say(json!({"pub": "news", "data": 1, "key": "first", "id": 1})).await;
    rig.logic.until_called().await;
    let stopping = tokio::spawn(rig.clone().stop());
    assert!(client.hear().await["drain"]["reconnect_ms"].is_u64());
    rig.lifecycle_at(Stage::Drain).await;
    // Time to move by itself, then its close begins: the pace has only one to close.
    tokio::time::sleep(budget::MOVE + Duration::from_millis(200)).await;
    client.say(json!({"pub": "news", "data": 2, "key": "second", "id": 2})).await;
    let refused = client.hear().await;
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!("not_sent"), &json!(2)));
    rig.logic.hold(false);
    let stored = client.hear().await;
    assert_eq!((&stored["ok"], &stored["id"]), (&json!("pub"), &json!(1)));
    let bye = client.hear().await;
    assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&json!(1012), &json!(true)));
    assert_eq!(client.end().await, Some((1012, "restart".to_owned())));
    let report = stopping.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Nobody can answer: the client hears so, in time, and the report counts it.
#[tokio::test]
async fn an_outcome_that_never_comes_is_unknown_in_time() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::connect(&rig).await;
    rig.logic.hold(true);
    client.say(json!({"pub": "news", "data": 1, "key": "k", "id": 1})).await;
    rig.logic.until_called().await;
    let began = Instant::now();
    let stopping = tokio::spawn(rig.clone().stop());
    assert!(client.hear().await["drain"].is_object());
    let unknown = client.hear().await;
    assert_eq!(
        (&unknown["error"]["code"], &unknown["error"]["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    let bye = client.hear().await;
    assert_eq!(bye["bye"]["code"], json!(1012));
    let wait = bye["bye"]["reconnect_ms"].as_u64().unwrap();
    assert!((1_000..=15_000).contains(&wait), "the last gateway spreads the return, {wait}");
    assert_eq!(client.end().await.unwrap().0, 1012);
    let report = stopping.await.unwrap();
    assert!(began.elapsed() < TOTAL, "{:?}", began.elapsed());
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Done));
    assert_eq!(report.counts.get("publishes_unknown"), Some(&1));
}

/// Each publish is counted once, under what became of it.
#[tokio::test]
async fn the_work_is_counted() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::connect(&rig).await;
    client.say(json!({"pub": "news", "data": 1, "key": "stored", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], json!("pub"));
    rig.logic.hold(true);
    client.say(json!({"pub": "news", "data": 1, "key": "held", "id": 2})).await;
    // Shards add to the sums once a tick.
    let held = Work { in_flight: 1, accepted: 2, completed: 1, ..Work::default() };
    eventually("one is stored, one in hand", SOON, async || rig.lifecycle.work() == held).await;
    let report = rig.clone().stop().await;
    assert_eq!(report.work, Work { accepted: 2, completed: 1, cancelled: 1, ..Work::default() });
    assert_eq!((rig.lifecycle.work(), report.work.processed()), (report.work, 1));
}

/// Thousands are told and closed within the budget although nobody of them answers the close.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_answer_cannot_hold_up_the_stop() {
    let rig = Rig::start(2, true).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Client::connect(&rig).await);
    }
    let began = Instant::now();
    let report = rig.clone().stop().await;
    assert!(began.elapsed() < TOTAL, "{:?}", began.elapsed());
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Done));
    for client in &mut silent {
        assert!(client.hear().await["drain"].is_object());
        assert_eq!(client.hear().await["bye"]["code"], json!(1012));
        assert_eq!(client.end().await.unwrap().0, 1012);
    }
}

/// A drain without time for its closes, as on a machine whose processors are taken: everybody has a close frame all the
/// same, also who waits for an outcome. 0: it is left out, and the thread of the shard says the last words.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_too_short_still_says_goodbye() {
    for drain_ms in [0, 400] {
        let mut config = Config { shards: 2, ..Config::default() };
        config.shutdown.stages.drain_ms = drain_ms;
        assert!(Duration::from_millis(drain_ms) < budget::MOVE, "the paced closes come too late");
        let rig = Rig::with(config, true).await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(Client::connect(&rig).await);
        }
        rig.logic.hold(true);
        clients[0].say(json!({"pub": "news", "data": 1, "key": "first", "id": 1})).await;
        rig.logic.until_called().await;
        rig.clone().stop().await;
        for (number, client) in clients.iter_mut().enumerate() {
            assert!(client.hear().await["drain"].is_object());
            // One publish has no outcome: given up in its time it is answered and fenced, else left without an answer.
            let owed = number == 0 && drain_ms > 0;
            if owed {
                assert_eq!(client.hear().await["error"]["retry"], json!(true));
            }
            let code = if owed { close::RESEND } else { close::RESTART };
            let last = client.hear().await;
            assert_eq!(last["bye"]["code"], json!(code), "{last} within {drain_ms} ms");
            assert_eq!(client.end().await.map(|(code, _)| code), Some(code), "within {drain_ms} ms");
        }
    }
}

/// It says what it can take, and leaves no faster than the one that stays lets in.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_obeys_the_room_that_is_left_elsewhere() {
    let within_ms = async |handshakes_per_s| {
        let rig = Rig::start(2, false).await;
        let peer = rig.peer();
        peer.set_headroom(Headroom { connections: 10_000, handshakes_per_s });
        let says = |view: &Arc<ClusterView>| {
            let mut gateways = view.of(Service::Gateway).filter_map(|one| one.headroom);
            gateways.any(|it| it.connections > 50_000 && it.handshakes_per_s > Some(HANDSHAKES_PER_S / 2))
        };
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(Client::connect(&rig).await);
        }
        timeout(rig::SOON, peer.view().wait_for(says)).await.unwrap().unwrap();
        rig.clone().stop().await;
        let mut told = 0;
        for client in &mut clients {
            told = client.hear().await["drain"]["within_ms"].as_u64().unwrap();
            assert_eq!(client.hear().await["bye"]["code"], json!(1012), "slower, but it leaves");
        }
        told - u64::try_from(budget::MOVE.as_millis()).unwrap()
    };
    assert_eq!(within_ms(None).await, 2 * 40, "100 at 2,500 a second, told and closed");
    assert_eq!(within_ms(Some(500)).await, 200 + 200);
    assert_eq!(within_ms(Some(0)).await, 200 + 400, "a tenth, 250 a second, is the least");
}

/// In one call, after which nothing more is told: who restarts finds nothing of its former self.
#[tokio::test]
async fn a_stop_ends_with_a_goodbye_for_the_whole_instance() {
    let rig = Rig::start(2, true).await;
    let mut client = Client::connect(&rig).await;
    client.say(json!({"sub": "news", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], json!("sub"));
    let report = rig.clone().stop().await;
    assert_eq!(report.outcome(Stage::Flush), Some(&StageOutcome::Done));
    let reports = rig.logic.reports();
    let goodbyes: Vec<usize> = (0..).zip(&reports).filter(|(_, it)| it.gone).map(|(at, _)| at).collect();
    assert_eq!(goodbyes, [reports.len() - 1], "{reports:#?}");
    assert!(reports.iter().all(|it| it.instance == reports[0].instance));
}

/// The goodbye is not understood: change after change is told before the end.
#[tokio::test]
async fn a_stop_tells_each_change_to_a_logic_that_knows_no_goodbye() {
    let rig = Rig::start(2, true).await;
    rig.logic.know_no_goodbyes();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&rig).await);
    }
    let told = |kind: ChangeKind| -> BTreeSet<String> {
        let changes = rig.logic.reports().into_iter().flat_map(|it| it.changes);
        changes.filter(|change| change.kind() == kind).map(|change| change.connection).collect()
    };
    // Who came and went untold would be left out.
    let all_told = async || told(ChangeKind::Connected).len() == clients.len();
    eventually("it is told of everybody", SOON, all_told).await;
    let report = rig.clone().stop().await;
    assert_eq!(report.outcome(Stage::Flush), Some(&StageOutcome::Done));
    assert!(rig.logic.reports().iter().any(|it| it.gone), "a goodbye is tried first");
    assert_eq!(told(ChangeKind::Disconnected), told(ChangeKind::Connected));
}

/// Listed until its lease ends, but nobody that clients could go to.
#[tokio::test]
async fn who_was_killed_here_before_is_no_reason_to_come_back_at_once() {
    let rig = Rig::start(1, false).await;
    drop(rig.peer_at(&rig.grpc));
    let mut client = Client::connect(&rig).await;
    let stopping = tokio::spawn(rig.clone().stop());
    let wait = client.hear().await["drain"]["reconnect_ms"].as_u64().unwrap();
    assert!(wait >= 1_000, "{wait}");
    assert!(stopping.await.unwrap().is_clean());
}

/// Who moves by itself is not waited for any longer.
#[tokio::test]
async fn a_gateway_ends_when_its_clients_have_moved() {
    let rig = Rig::start(1, true).await;
    let mut client = Client::connect(&rig).await;
    let began = Instant::now();
    let stopping = tokio::spawn(rig.clone().stop());
    let drain = client.hear().await;
    assert!(drain["drain"]["within_ms"].as_u64().unwrap() >= 700, "{drain}");
    client.goodbye().await;
    assert!(stopping.await.unwrap().is_clean());
    assert!(began.elapsed() < budget::MOVE, "{:?}", began.elapsed());
}

/// A new delay for whoever is closed before it has moved would be a second crowd in the middle of the first.
#[tokio::test]
async fn who_is_closed_before_its_time_to_come_back_keeps_it() {
    let mut config = Config { shards: 2, ..Config::default() };
    // Three seconds for all of them; they are closed within half of that.
    config.drain.rate_per_s = 33;
    let rig = Rig::with(config, true).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect(&rig).await);
    }
    let stopping = tokio::spawn(rig.clone().stop());
    let told = |frame: &serde_json::Value| frame["reconnect_ms"].as_u64().unwrap();
    for client in &mut clients {
        let drain = told(&client.hear().await["drain"]);
        let bye = told(&client.hear().await["bye"]);
        let earliest = drain.saturating_sub(u64::try_from(budget::MOVE.as_millis()).unwrap());
        // Later than any close: the others' time was over, and they are spread anew.
        if drain > 2_600 {
            assert!(bye <= earliest + 10, "{bye} after {drain}");
        }
    }
    drop(clients);
    stopping.await.unwrap();
}

#[tokio::test]
async fn new_upgrades_are_refused_while_clients_are_told() {
    let rig = Rig::start(1, true).await;
    let client = Client::connect(&rig).await;
    rig.around_closed();
    let refused = tokio_tungstenite::connect_async(&rig.url).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers().get("retry-after").unwrap(), "1");
    drop(client);
    rig.stop().await;
}

/// Presence: connects, joins, leaves; everything again when Redis has forgotten.
#[tokio::test]
async fn a_new_marker_brings_the_full_set() {
    let rig = Rig::start(2, false).await;
    let mut client = Client::connect(&rig).await;
    client.say(json!({"sub": "news", "id": 1})).await;
    assert_eq!(client.hear().await["ok"], json!("sub"));
    let seen = |kind: ChangeKind, full: bool| {
        move |report: &sluice_proto::grpc::StatusRequest| {
            report.full.is_some() == full && report.changes.iter().any(|change| change.kind() == kind)
        }
    };
    rig.logic.until_report(seen(ChangeKind::Connected, false)).await;
    rig.logic.until_report(seen(ChangeKind::Joined, false)).await;
    rig.logic.forget();
    for kind in [ChangeKind::InterestAdded, ChangeKind::Connected, ChangeKind::Joined] {
        rig.logic.until_report(seen(kind, true)).await;
    }
    rig.logic.until_report(|report| report.full.is_some_and(|full| full.last)).await;
    client.goodbye().await;
    rig.logic
        .until_report(|report| {
            report.changes.iter().any(|change| change.kind() == ChangeKind::Disconnected && change.goodbye)
        })
        .await;
    assert!(rig.stop().await.is_clean());
}

/// A set of thousands comes in parts that fit, whole, and its generation begins before anything is collected.
#[tokio::test]
async fn a_large_full_set_comes_in_parts() {
    const ROOMS: usize = 450;
    let rig = Rig::start(1, false).await;
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = Client::connect(&rig).await;
        for room in 0..ROOMS {
            client.say(json!({"sub": format!("{n}-{room}"), "id": room})).await;
        }
        for _ in 0..ROOMS {
            assert_eq!(client.hear().await["ok"], json!("sub"));
        }
        clients.push(client);
    }
    rig.logic.forget();
    rig.logic.until_report(|report| report.full.is_some_and(|full| full.last)).await;
    let parts: Vec<_> = rig.logic.reports().into_iter().filter(|report| report.full.is_some()).collect();
    assert!(parts[0].changes.is_empty(), "the beginning");
    assert!(parts.iter().all(|part| part.changes.len() <= STATUS_ITEMS_MAX));
    let count = |kind| parts.iter().flat_map(|part| &part.changes).filter(|it| it.kind() == kind).count();
    assert_eq!(count(ChangeKind::InterestAdded), 3 * ROOMS);
    assert_eq!(count(ChangeKind::Connected), 3);
    assert_eq!(count(ChangeKind::Joined), 3 * ROOMS);
    let first = parts[0].full.unwrap().generation;
    rig.logic.forget();
    let next = |full: FullSet| full.last && full.generation > first;
    rig.logic.until_report(|report| report.full.is_some_and(next)).await;
    assert!(rig.stop().await.is_clean());
}

/// The clock jumps an hour while a token has half an hour left; it jumps back while another has a moment.
#[tokio::test]
async fn the_end_of_a_token_is_looked_at_again_when_the_wall_clock_jumps() {
    let (begin, minute) = (1_700_000_000_000, 60_000);
    let clock = Clock::manual(begin);
    let rig = Rig::at(clock.clone(), Config { shards: 1, ping_every_s: 1, ..Config::default() }, false).await;
    rig.logic.expire_at(begin + 30 * minute);
    let mut client = Client::connect(&rig).await;
    clock.set_ms(begin + 60 * minute);
    assert_eq!(client.hear().await["bye"]["code"], json!(close::UNAUTHORIZED));
    assert_eq!(client.end().await, Some((close::UNAUTHORIZED, "token expired".to_owned())));

    rig.logic.expire_at(begin + 60 * minute + 1_500);
    let mut client = Client::connect(&rig).await;
    clock.set_ms(begin);
    tokio::time::sleep(Duration::from_millis(2_500)).await; // what would have been its end, and a ping more
    client.say(json!({"ping": 1})).await;
    assert_eq!(client.hear().await["ok"], json!("ping"));
    assert!(rig.stop().await.is_clean());
}

/// Logic has said until when, clocks that differ included: nothing is added here.
#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let rig = Rig::start(1, false).await;
    rig.logic.expire_at(sluice_service::clock::Clock::system().now_ms() + 300);
    let mut client = Client::connect(&rig).await;
    assert_eq!(client.hear().await["bye"]["code"], json!(close::UNAUTHORIZED));
    assert_eq!(client.end().await, Some((close::UNAUTHORIZED, "token expired".to_owned())));
    assert!(rig.stop().await.is_clean());
}

/// Ten frames that are not understood close the connection; a binary frame and a giant do at once.
#[tokio::test]
async fn each_bad_frame_has_its_end() {
    let rig = Rig::start(1, false).await;
    let mut rude = Client::connect(&rig).await;
    for _ in 0..10 {
        rude.send(Message::text("hello")).await;
        assert_eq!(rude.hear().await["error"]["code"], json!("bad_frame"));
    }
    assert_eq!(rude.hear().await["bye"]["reconnect"], json!(false));
    assert_eq!(rude.end().await.unwrap().0, 4502);

    let mut binary = Client::connect(&rig).await;
    binary.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(binary.hear().await["bye"]["code"], json!(1003));
    assert_eq!(binary.end().await.unwrap().0, 1003);

    let mut giant = Client::connect(&rig).await;
    giant.send(Message::text("x".repeat(200_000))).await;
    assert_eq!(giant.hear().await["bye"]["code"], json!(1009));
    assert!(rig.stop().await.is_clean());
}

/// Who accepts no more publishes is not read: nothing is lost, nothing is refused, memory is bounded.
#[tokio::test]
async fn overload_is_answered_by_not_reading() {
    let rig = Rig::start(1, false).await;
    let mut client = Client::connect(&rig).await;
    rig.logic.hold(true);
    for n in 0..600 {
        client.say(json!({"pub": "news", "data": n, "key": format!("k{n}"), "id": n})).await;
    }
    rig.logic.until_called().await;
    let read = async {
        while rig.status()["publishes_in_flight"] != json!(256) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("all that one connection may have");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.status()["publishes_in_flight"], json!(256), "and never more");
    rig.logic.hold(false);
    for n in 0..600 {
        let answer = client.hear().await;
        assert_eq!((&answer["ok"], &answer["id"]), (&json!("pub"), &json!(n)));
    }
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn a_stop_during_start_up_is_a_stop() {
    let rig = Rig::unstarted();
    let began = Instant::now();
    rig.lifecycle.stop(StopReason::Manual("test".into()));
    let report = rig.report().await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(report.exit_code(), 0);
}

/// One moves when it hears `drain`, one stays until its `bye`, one answers nothing any more.
#[tokio::test]
async fn the_stop_says_how_clients_left() {
    let rig = Rig::start(2, true).await;
    let (mover, mut stayer) = (Client::connect(&rig).await, Client::connect(&rig).await);
    let frozen = Client::connect(&rig).await;
    let stopping = tokio::spawn(rig.clone().stop());
    rig.lifecycle_at(Stage::Drain).await;
    mover.goodbye().await;
    assert!(stayer.hear().await["drain"].is_object());
    assert!(stayer.hear().await["bye"].is_object());
    stayer.end().await;
    let report = stopping.await.unwrap();
    drop(frozen);
    let drain = report.stages.iter().find(|stage| stage.stage == Stage::Drain).unwrap();
    let expected = [("closed", 1), ("dropped", 1), ("moved", 1), ("publishes_unknown", 0)];
    assert_eq!(drain.counts.iter().map(|(key, count)| (*key, *count)).collect::<Vec<_>>(), expected);
    for total in ["accepted", "completed", "rejected", "unknown"] {
        assert_eq!(report.counts.get(total), Some(&0), "{total}");
    }
    assert_eq!(rig.status()["moved"], 1);
}
