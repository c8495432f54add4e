//! Stops and kills under load: nothing lost, doubled or reordered, and nobody hardly notices.

use std::time::Duration;

use sluice_client::Position;
use sluice_launcher::Service;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::kit::{Ground, client_of, close_of, json_with, socket_of};
use crate::record::{Observer, Sent, judge, sender};

const RATE: u32 = 500;
const CATCH_UP: Duration = Duration::from_secs(30);
/// How long a lone task stays for gateways that drain; a logic stays longer.
const LONE_STAY: Duration = Duration::from_secs(3);

/// Load at [`RATE`] while `event` happens; then everything is judged.
pub async fn under_load<G: Ground>(
    ground: &G,
    count: usize,
    event: impl AsyncFnOnce(&G),
) -> (Vec<Observer>, Vec<Sent>) {
    let gateways = ground.entrances().len();
    let mut observers = Vec::new();
    for n in 0..4 {
        let options = client_of(ground, &format!("watch{n}"), n % gateways);
        observers.push(Observer::start(options, "news", Position::After(0)).await);
    }
    let mut sending = Vec::new();
    for n in 0..2 {
        let user = format!("user{n}");
        let options = client_of(ground, &user, n % gateways);
        sending.push(sender(options, &user, "news", count / 2, RATE / 2).await);
    }
    observers[0].reaches(100, CATCH_UP).await;
    event(ground).await;
    let mut sent = Vec::new();
    for sending in sending {
        sent.push(sending.await.unwrap());
    }
    let stored = sent.iter().map(Sent::ok).sum::<usize>() as u64;
    for observer in &observers {
        observer.reaches(stored, CATCH_UP).await;
    }
    judge(ground, "news", &sent, &observers.iter().collect::<Vec<_>>()).await;
    (observers, sent)
}

pub async fn sigterm_to_each_service_one_after_the_other<G: Ground>() {
    let ground = G::start(2, 2, 2).await;
    let (observers, sent) = under_load(&ground, 3_000, async |ground| {
        for service in [Service::Gateway, Service::Logic, Service::Task] {
            ground.roll(service, 0).await;
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
    ground.stop().await;
}

pub async fn sigkill_to_each_process_one_after_the_other<G: Ground>() {
    let ground = G::start(2, 2, 2).await;
    let (_, sent) = under_load(&ground, 3_000, async |ground| ground.kill_each().await).await;
    sent.iter().for_each(Sent::all_ok);
    ground.stop().await;
}

/// The only logic and the only task are replaced: gateways hold publishes until the replacement answers.
pub async fn the_only_logic_and_the_only_task_are_replaced_without_a_failed_publish<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let (observers, sent) = under_load(&ground, 2_500, async |ground| {
        for service in [Service::Logic, Service::Task] {
            let took = ground.roll(service, 0).await;
            assert!(took < LONE_STAY, "a lone {service} does not wait: {took:?}");
        }
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    assert!(
        observers.iter().all(|observer| observer.look(|seen| seen.farewells.is_empty())),
        "no client noticed"
    );
    ground.stop().await;
}

/// Everything is signalled within 50 ms, stores included; then it starts again on the same data.
pub async fn everything_is_signalled_at_once_and_starts_again<G: Ground>() {
    let ground = G::start(2, 2, 2).await;
    under_load(&ground, 2_000, async |ground| ground.stop_and_start_all().await).await;
    ground.stop().await;
}

/// A client that never answers and one that sent half a request do not delay the stop of a gateway.
pub async fn a_gateway_stops_in_time_whatever_its_clients_do<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let mut polite = socket_of(&ground, "ann", 0).await;
    let silent = socket_of(&ground, "mute", 0).await;
    let url = ground.ws(0);
    let address = url.trim_start_matches("ws://").split('/').next().unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    let told = async {
        let drain = json_with(&mut polite, "drain").await;
        assert!(drain["drain"]["reconnect_ms"].is_u64(), "{drain}");
        let bye = json_with(&mut polite, "bye").await;
        assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&1012.into(), &true.into()), "{bye}");
        let (code, reason) = close_of(&mut polite).await;
        assert!(code == 1012 && !reason.is_empty(), "{code} {reason}");
    };
    tokio::join!(ground.roll(Service::Gateway, 0), told);
    drop(silent);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), half.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the half-open connection was ended");
    ground.stop().await;
}
