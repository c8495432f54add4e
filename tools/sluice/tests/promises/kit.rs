//! A cluster for one test, and conditions that are waited for.

use std::time::Duration;

use sluice_client::Options as ClientOptions;
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_launcher::{Cluster, Exit, Node, Options, Service};
use tokio::time::{Instant, sleep, timeout};

/// Bound of waits that should end at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Starts a cluster with short leases, so that tests of crashes end soon.
pub async fn cluster(gateways: usize, logics: usize, tasks: usize) -> Cluster {
    let options = Options { gateways, logics, tasks, ..Options::default() };
    cluster_with(options).await
}

pub async fn cluster_with(options: Options) -> Cluster {
    let options = options.set("all.etcd.lease_ttl_s=3").unwrap().set("logic.anonymous=true").unwrap();
    Cluster::start(options).await.unwrap()
}

/// Options of a client of `user` that prefers gateway `at` and knows all others.
pub fn client_of(cluster: &Cluster, user: &str, at: usize) -> ClientOptions {
    let token = cluster.token(user, &["*"], &["*"]).unwrap();
    let gateways = cluster.nodes(Service::Gateway);
    let mut options = ClientOptions::new(gateways[at].ws()).token(token);
    for (n, gateway) in gateways.iter().enumerate() {
        if n != at {
            options = options.or(gateway.ws());
        }
    }
    options
}

/// A bare connection of `user`, after `welcome`.
pub async fn socket_of(cluster: &Cluster, user: &str, at: usize) -> Socket {
    let token = cluster.token(user, &["*"], &["*"]).unwrap();
    let mut socket = Socket::connect(&Handshake::new(cluster.gateway(at).ws()).token(token)).await.unwrap();
    let welcome = json(&mut socket).await;
    assert_eq!(welcome["welcome"]["user"], user, "{welcome}");
    socket
}

/// The next JSON frame, in time.
pub async fn json(socket: &mut Socket) -> serde_json::Value {
    match timeout(SOON, socket.json()).await.expect("a frame in time") {
        Ok(value) => value,
        Err(frame) => panic!("expected JSON, got {frame:?}"),
    }
}

/// The next JSON frame that has `field`.
pub async fn json_with(socket: &mut Socket, field: &str) -> serde_json::Value {
    loop {
        let value = json(socket).await;
        if value.get(field).is_some() {
            return value;
        }
    }
}

/// The close frame, after whatever comes before it.
pub async fn close_of(socket: &mut Socket) -> (u16, String) {
    loop {
        match timeout(SOON, socket.next()).await.expect("a close frame in time") {
            Frame::Close { code, reason } => return (code, reason),
            Frame::End(why) => panic!("ended without a close frame: {why}"),
            Frame::Text(_) | Frame::Binary(_) | Frame::Ping | Frame::Pong => {}
        }
    }
}

/// Waits until `condition` holds, looking every 10 ms.
pub async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// Sends SIGTERM and expects exit code 0 within 8 s.
pub async fn term(node: &Node) -> Exit {
    assert!(node.term(), "{} runs", node.name());
    exits_well(node).await
}

pub async fn exits_well(node: &Node) -> Exit {
    let exit = node.wait_exit(Duration::from_secs(9)).await.unwrap_or_else(|error| {
        panic!("{} did not exit: {error}\n{}", node.name(), node.log_tail());
    });
    assert_eq!(exit.code(), Some(0), "{}:\n{}", node.name(), node.log_tail());
    let elapsed = exit.elapsed.expect("it was signalled");
    assert!(elapsed < Duration::from_secs(8), "{} took {elapsed:?}:\n{}", node.name(), node.log_tail());
    exit
}
