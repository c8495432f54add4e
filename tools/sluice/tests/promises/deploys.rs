//! Stops and kills under load: nothing lost, doubled or reordered, and nobody hardly notices.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use sluice_client::Position;
use sluice_launcher::{Cluster, Node, Service, service_binary};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::kit::{client_of, close_of, cluster, exits_well, json_with, socket_of, term};
use crate::record::{Observer, Sent, judge, sender};

const RATE: u32 = 500;
const CATCH_UP: Duration = Duration::from_secs(30);

/// Load at [`RATE`] while `event` happens; then everything is judged.
async fn under_load(
    cluster: &Cluster,
    count: usize,
    event: impl AsyncFnOnce(&Cluster),
) -> (Vec<Observer>, Vec<Sent>) {
    let gateways = cluster.nodes(Service::Gateway).len();
    let mut observers = Vec::new();
    for n in 0..4 {
        let options = client_of(cluster, &format!("watch{n}"), n % gateways);
        observers.push(Observer::start(options, "news", Position::After(0)).await);
    }
    let mut sending = Vec::new();
    for n in 0..2 {
        let user = format!("user{n}");
        let options = client_of(cluster, &user, n % gateways);
        sending.push(sender(options, &user, "news", count / 2, RATE / 2).await);
    }
    observers[0].reaches(100, CATCH_UP).await;
    event(cluster).await;
    let mut sent = Vec::new();
    for sending in sending {
        sent.push(sending.await.unwrap());
    }
    let stored = sent.iter().map(Sent::ok).sum::<usize>() as u64;
    for observer in &observers {
        observer.reaches(stored, CATCH_UP).await;
    }
    judge(cluster, "news", &sent, &observers.iter().collect::<Vec<_>>()).await;
    (observers, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_to_each_service_one_after_the_other() {
    let cluster = cluster(2, 2, 2).await;
    let (observers, sent) = under_load(&cluster, 3_000, async |cluster| {
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            term(&cluster.node(service, 0).unwrap()).await;
            cluster.start_at(service, 0).await.unwrap();
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    let told = observers[0].look(|seen| seen.farewells.clone());
    // The client moves at `drain` and closes the old connection itself as soon as it is done there.
    assert_eq!(told.first().map(String::as_str), Some("drain restart"), "{told:?}");
    assert!(
        told[1..].iter().all(|word| word.starts_with("bye 1012") || word.starts_with("close 1")),
        "{told:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_to_each_service_one_after_the_other() {
    let cluster = cluster(2, 2, 2).await;
    let (_, sent) = under_load(&cluster, 3_000, async |cluster| {
        for service in [Service::Task, Service::Logic, Service::Gateway] {
            let node = cluster.node(service, 0).unwrap();
            assert!(node.kill());
            node.exit().await;
            cluster.start_at(service, 0).await.unwrap();
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    cluster.stop().await;
}

/// Frozen and thawed: a logic beyond the deadline of a call, a task beyond `ack_wait`, a gateway beyond its lease.
#[tokio::test(flavor = "multi_thread")]
async fn freezing_each_service_breaks_nothing() {
    let cluster = cluster(2, 2, 2).await;
    let (_, sent) = under_load(&cluster, 6_000, async |cluster| {
        for (service, seconds) in [(Service::Logic, 3), (Service::Task, 3), (Service::Gateway, 6)] {
            let node = cluster.node(service, 0).unwrap();
            assert!(node.freeze());
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert!(node.thaw());
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    cluster.stop().await;
}

/// The only logic and the only task are replaced: gateways hold publishes until the replacement answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_logic_and_the_only_task_are_replaced_without_a_failed_publish() {
    let cluster = cluster(1, 1, 1).await;
    let (observers, sent) = under_load(&cluster, 2_500, async |cluster| {
        for service in [Service::Logic, Service::Task] {
            let exit = term(&cluster.node(service, 0).unwrap()).await;
            assert!(
                exit.elapsed.unwrap() < Duration::from_secs(2),
                "a lone {service} does not wait: {exit:?}"
            );
            cluster.start_at(service, 0).await.unwrap();
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    assert!(
        observers.iter().all(|observer| observer.look(|seen| seen.farewells.is_empty())),
        "no client noticed"
    );
    cluster.stop().await;
}

/// Everything is signalled within 50 ms, stores included; then it starts again on the same data.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_signalled_at_once_and_starts_again() {
    let cluster = cluster(2, 2, 2).await;
    let (_, _) = under_load(&cluster, 2_000, async |cluster| {
        let services = [Service::Gateway, Service::Task, Service::Logic];
        let stores = [Service::Postgres, Service::Nats, Service::Etcd, Service::Redis];
        let nodes: Vec<Node> = services.iter().flat_map(|service| cluster.nodes(*service)).collect();
        let mut all: Vec<Node> = nodes.clone();
        all.extend(stores.iter().map(|store| cluster.store(*store)));
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|_| rand::random::<u32>());
        for n in order {
            all[n].term();
        }
        for node in &nodes {
            exits_well(node).await;
        }
        for store in stores {
            cluster.stop_store(store).await.unwrap();
        }
        for store in stores {
            cluster.start_store(store).await.unwrap();
        }
        // A gateway is ready when a logic answers, so logics come first.
        for node in nodes.iter().rev() {
            cluster.start_at(node.service, node.index).await.unwrap();
        }
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_processes_exit_in_less_than_half_a_second() {
    let cluster = cluster(1, 1, 1).await;
    for service in [Service::Task, Service::Gateway, Service::Logic] {
        let exit = term(&cluster.node(service, 0).unwrap()).await;
        let elapsed = exit.elapsed.unwrap();
        assert!(elapsed < Duration::from_millis(500), "an idle {service} took {elapsed:?}");
    }
    cluster.stop().await;
}

/// A client that never answers and one that sent half a request do not delay the stop of a gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stops_in_time_whatever_its_clients_do() {
    let cluster = cluster(1, 1, 1).await;
    let mut polite = socket_of(&cluster, "ann", 0).await;
    let silent = socket_of(&cluster, "mute", 0).await;
    let address = cluster.gateway(0).ws().trim_start_matches("ws://").split('/').next().unwrap().to_owned();
    let mut half = TcpStream::connect(&address).await.unwrap();
    let node = cluster.gateway(0);
    assert!(node.term());
    let drain = json_with(&mut polite, "drain").await;
    assert!(drain["drain"]["reconnect_ms"].is_u64(), "{drain}");
    let bye = json_with(&mut polite, "bye").await;
    assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&1012.into(), &true.into()), "{bye}");
    let (code, reason) = close_of(&mut polite).await;
    assert!(code == 1012 && !reason.is_empty(), "{code} {reason}");
    exits_well(&node).await;
    drop(silent);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), half.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the half-open connection was ended");
    cluster.stop().await;
}

const STORES: [Service; 4] = [Service::Nats, Service::Etcd, Service::Redis, Service::Postgres];
const SERVICES: [Service; 3] = [Service::Gateway, Service::Task, Service::Logic];

/// SIGTERM while a store hangs: in budget.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_needs_no_store() {
    for store in STORES {
        let cluster = cluster(1, 1, 1).await;
        assert!(cluster.store(store).freeze());
        for service in SERVICES {
            let exit = term(&cluster.node(service, 0).unwrap()).await;
            println!("{service} with a frozen {store}: {:?}", exit.elapsed);
        }
        assert!(cluster.store(store).thaw());
        cluster.stop().await;
    }
}

/// Starts a service whose stores refuse every connection, and stops it as soon as its ports are bound.
fn stopped_while_starting(service: Service) -> (Option<i32>, Duration) {
    let binary = service_binary(service, None).unwrap();
    let mut child = Command::new(binary)
        .envs(["ETCD__ENDPOINTS=[\"http://127.0.0.1:1\"]", "NATS__URL=nats://127.0.0.1:1"].map(setting))
        .envs(
            ["REDIS__URL=redis://127.0.0.1:1", "POSTGRES__URL=postgres://sluice@127.0.0.1:1/x"].map(setting),
        )
        .envs(["LISTEN=127.0.0.1:0", "GRPC__LISTEN=127.0.0.1:0", "ADMIN__LISTEN=127.0.0.1:0"].map(setting))
        .envs(["TOKEN_SECRET=0123456789abcdef"].map(setting))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("admin"), "{service} says where it listens: {line:?}");
    let start = std::time::Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    (child.wait().unwrap().code(), start.elapsed())
}

fn setting(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap();
    (format!("SLUICE_{key}"), value.to_owned())
}

/// SIGTERM while all stores are gone, and during a start-up without any of them: in budget, saying what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_start_up_without_any_store_end_in_budget() {
    let cluster = cluster(1, 1, 1).await;
    for store in STORES {
        cluster.stop_store(store).await.unwrap();
    }
    for service in SERVICES {
        let exit = term(&cluster.node(service, 0).unwrap()).await;
        println!("{service} without stores: {:?}", exit.elapsed);
    }
    cluster.stop().await;
    for service in SERVICES {
        let (code, took) = tokio::task::block_in_place(|| stopped_while_starting(service));
        assert_eq!(code, Some(0), "{service}");
        assert!(took < Duration::from_secs(8), "{service} took {took:?}");
    }
}
