//! One service is rolled while clients publish and listen: nothing is missed, nothing comes twice.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::{Client, Event, Events, Options, Position};
use sluice_launcher::probe;
use tokio::time::timeout;

use crate::rig::{Dev, SOON, run, text};

/// A client that knows all gateways, at first the one at `at`.
fn options(dev: &Dev, at: usize) -> Options {
    let all = dev.first["gateways"].as_array().unwrap().len();
    (1..all).fold(Options::new(dev.ws(at)), |options, n| options.or(dev.ws((at + n) % all)))
}

/// The seqs that come, until `last`.
async fn listen(mut events: Events, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.last() != Some(&last) {
        match timeout(SOON, events.next()).await.expect("an event in time").expect("the client lives") {
            Event::Message(message) => seqs.push(message.seq),
            Event::Skipped { .. } | Event::OutOfOrder { .. } => panic!("something is missing: {seqs:?}"),
            _ => {}
        }
    }
    seqs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_miss_nothing_while_each_service_is_rolled() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "3"]);
    let folder = dir.path().to_str().unwrap();
    let (publisher, mut told) = Client::connect(options(&dev, 1)).await.unwrap();
    let (listener, events) = Client::connect(options(&dev, 1)).await.unwrap();
    listener.subscribe("news", Position::After(0)).await.unwrap();
    let rolled = ["gateway-2", "logic", "gateway-1", "task", "gateway-3"];
    let per_roll = 40;
    let publish = async {
        for n in 0..rolled.len() * per_roll {
            publisher.publish("news", &json!({ "n": n })).await.unwrap();
            if n % per_roll == per_roll / 2 {
                let name = rolled[n / per_roll];
                let output = tokio::task::block_in_place(|| run(&["dev", "restart", name, "--dir", folder]));
                assert!(output.status.success(), "{}", text(&output.stderr));
                println!("{}", text(&output.stdout));
            }
        }
    };
    let last = (rolled.len() * per_roll) as u64;
    let (seqs, ()) = tokio::select! {
        both = async { tokio::join!(listen(events, last), publish) } => both,
        () = async { while told.next().await.is_some() {} } => panic!("the publisher ended"),
    };
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());

    let state = probe::get(&format!("{}/dev/state", dev.page()), SOON).await.unwrap();
    let state: Value = serde_json::from_str(&state.body).unwrap();
    let services = state["services"].as_array().unwrap();
    assert_eq!(services.len(), 5);
    for service in services {
        assert_eq!((&service["life"], &service["stage"]), (&json!(2), &json!("ready")), "{service}");
    }
    let at: Vec<&Value> = services.iter().map(|service| &service["ws"]).filter(|ws| !ws.is_null()).collect();
    assert_eq!(at, [dev.ws(0), dev.ws(1), dev.ws(2)], "the same addresses");
}

#[tokio::test]
async fn what_cannot_be_restarted_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let refused = |name: &str| {
        let output = run(&["dev", "restart", name, "--dir", folder]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    assert!(refused("gateway-1").contains("no `sluice dev` runs in"), "{}", refused("gateway-1"));
    let mut dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let said = refused("gateway-7");
    assert!(said.contains("gateway-1, logic, task"), "{said}");
    assert!(refused("../state").contains("no service"));
    dev.kill();
    assert!(refused("gateway-1").contains("no `sluice dev` runs in"), "{}", refused("gateway-1"));
}

#[tokio::test]
async fn a_foreign_page_can_neither_roll_nor_connect() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let roll = format!("{}/dev/restart/gateway-1", dev.page());
    let post = async |header| probe::post_header(&roll, header, Duration::from_secs(20)).await.unwrap();
    assert_eq!(post(("Accept", "*/*")).await.status, 403);
    assert_eq!(post(("x-sluice-dev", "0")).await.status, 403);
    assert_eq!(post(("x-sluice-dev", "1\r\nHost: evil.example")).await.status, 403);
    assert_eq!(post(("x-sluice-dev", "1")).await.status, 200);
    let from = |origin: &str| sluice_client::raw::Handshake::new(dev.ws(0)).header("Origin", origin);
    let foreign = sluice_client::raw::Socket::connect(&from("http://evil.example")).await;
    assert!(foreign.err().unwrap().to_string().contains("403"));
    sluice_client::raw::Socket::connect(&from(dev.page())).await.expect("the page itself");
}
