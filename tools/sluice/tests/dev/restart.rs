//! One service is rolled while clients publish and listen: nothing is missed, nothing comes twice.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use sluice_client::raw::{Frame, Socket};
use sluice_client::{Client, Event, Events, Options, Position};
use sluice_launcher::probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{Dev, SOON, connect, run, serve, text, token};

/// A client that knows all gateways, at first the one at `at`.
fn options(dev: &Dev, at: usize, token: Option<&str>) -> Options {
    let all = dev.first["gateways"].as_array().unwrap().len();
    let options = (1..all).fold(Options::new(dev.ws(at)), |options, n| options.or(dev.ws((at + n) % all)));
    token.into_iter().fold(options, Options::token)
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
    missed_nothing(&dev, "dev", None, &["gateway-2", "logic", "gateway-1", "task", "gateway-3"], dir.path())
        .await;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_production_miss_nothing_while_each_service_is_rolled() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Dev::serve(dir.path());
    let token = token("ann");
    let rolled = ["gateway-2", "logic", "gateway-1", "task"];
    missed_nothing(&serve, "serve", Some(&token), &rolled, dir.path()).await;
}

/// Longer than the stop of a gateway is as it comes, with a start: whoever has many clients lets them leave in their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_may_take_as_long_as_the_stages_are_configured() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(dir.path());
    for setting in ["drain.rate_per_s=1", "shutdown.stages.drain_ms=28000", "shutdown.total_ms=32000"] {
        command.args(["--set", setting]);
    }
    let serve = Dev::spawn(command);
    // One a second, who wait until they are sent away.
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(connect(serve.ws(0), Some(&token(&format!("u{n}")))).await.0);
    }
    let folder = dir.path().to_owned();
    let restart = tokio::task::spawn_blocking(move || {
        run(&["serve", "restart", "gateway-1", "--dir", folder.to_str().unwrap()])
    });
    let (ends, output) = tokio::join!(join_all(clients.into_iter().map(sent_away)), restart);
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let took: u64 = said.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    assert!(took > 15_000, "this proves nothing: {said}");
    assert_eq!(ends, [1012; 20]);
}

/// Reads on until it is closed; by which code.
async fn sent_away(mut socket: Socket) -> u16 {
    loop {
        match timeout(3 * SOON, socket.next()).await.expect("the end in time") {
            Frame::Close { code, .. } => return code,
            Frame::End(why) => panic!("no close frame: {why}"),
            Frame::Text(_) | Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
        }
    }
}

/// A publisher and a listener, while these services are rolled under them by `sluice VERB restart`.
async fn missed_nothing(dev: &Dev, verb: &str, token: Option<&str>, rolled: &[&str], dir: &Path) {
    let folder = dir.to_str().unwrap();
    let (publisher, mut told) = Client::connect(options(dev, 1, token)).await.unwrap();
    let (listener, events) = Client::connect(options(dev, 1, token)).await.unwrap();
    listener.subscribe("news", Position::After(0)).await.unwrap();
    let per_roll = 40;
    let publish = async {
        for n in 0..rolled.len() * per_roll {
            publisher.publish("news", &json!({ "n": n })).await.unwrap();
            if n % per_roll == per_roll / 2 {
                let name = rolled[n / per_roll];
                let output = tokio::task::block_in_place(|| run(&[verb, "restart", name, "--dir", folder]));
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

/// A page of another name that was made to point here: its origin and what it calls us are the same.
#[tokio::test]
async fn another_name_for_this_machine_is_no_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--gateways", "1"]);
    let port = dev.ws(0).rsplit(':').next().unwrap().trim_end_matches("/ws");
    for (host, status) in [("evil.example", 421), ("127.0.0.1", 101), ("localhost", 101), ("[::1]", 101)] {
        let answer = upgrade(dev.ws(0), &format!("{host}:{port}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        assert_eq!(answer.contains("connect to localhost or 127.0.0.1"), status == 421, "{host}: {answer}");
    }
    let (status, page) = page_as(dev.page(), "evil.example").await;
    assert!(status == 403 && page.contains("http://127.0.0.1"), "{status} {page}");
    assert_eq!(page_as(dev.page(), "localhost").await.0, 200);
}

/// The answer to an upgrade that a page of `host` asks for.
async fn upgrade(ws: &str, host: &str) -> String {
    let lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!("GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{lines}\r\n\r\n");
    ask(ws.trim_start_matches("ws://").trim_end_matches("/ws"), &request).await
}

/// Status and text of the page, asked for as `host`.
async fn page_as(page: &str, host: &str) -> (u16, String) {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = ask(page.trim_start_matches("http://"), &request).await;
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// All that is answered; of a WebSocket, the head.
async fn ask(address: &str, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let is_head = |answer: &[u8]| answer.windows(4).any(|end| end == b"\r\n\r\n");
    while !(answer.starts_with(b"HTTP/1.1 101") && is_head(&answer)) {
        if timeout(SOON, tcp.read_buf(&mut answer)).await.expect("an answer in time").unwrap() == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
