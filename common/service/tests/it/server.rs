//! The gRPC server's end: silent connections, open streams, watchers, dead peers; and who is connected.

use std::time::Duration;

use sluice_lifecycle::{Stage, StageOutcome};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::push_reply;
use sluice_proto::ids::InstanceId;
use sluice_service::clock::Clock;
use sluice_service::grpc::channels::{Caller, dial};
use sluice_service::grpc::time_of;
use sluice_service::tls::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{GRACE, Node, batch, pushes, until};

/// Without any grace.
const AT_ONCE: Duration = Duration::from_millis(1_500);

fn caller(id: &str) -> Caller {
    Caller::fixed(InstanceId::parse(id).unwrap())
}

fn whole() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

#[tokio::test]
async fn silent_connections_do_not_delay_a_stop() {
    let node = Node::start().await;
    let mut silent = Vec::new();
    for said in ["", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut tcp = TcpStream::connect(&node.address).await.unwrap();
        tcp.write_all(said.as_bytes()).await.unwrap();
        silent.push(tcp);
    }
    until("the one with a preface is registered", || node.peers.len() == 1).await;
    let (report, took) = node.stop().await;
    assert!(report.is_clean() && took < AT_ONCE, "{took:?} {report:?}");
}

#[tokio::test]
async fn what_is_no_http2_is_closed() {
    let node = Node::start().await;
    let mut tcp = TcpStream::connect(&node.address).await.unwrap();
    tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(matches!(tcp.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    let _ = node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_its_deadline() {
    let node = Node::start().await;
    let start = tokio::time::Instant::now();
    let mut tcp = TcpStream::connect(&node.address).await.unwrap();
    assert_eq!(tcp.read(&mut [0; 64]).await.unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_dropped() {
    let node = Node::start().await;
    let mut tcp = TcpStream::connect(&node.address).await.unwrap();
    // Preface and an empty SETTINGS frame, then silence.
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    while !matches!(tcp.read(&mut [0; 256]).await, Ok(0) | Err(_)) {}
    node.peers.watch().wait_for(|all| all.is_empty()).await.unwrap();
}

#[tokio::test]
async fn goaway_lets_an_open_stream_end_by_itself() {
    let node = Node::start().await;
    let mut client = GatewayClient::new(dial(&node.address, Role::Gateway, &caller("task-a")).unwrap());
    let (push, requests) = pushes();
    let mut replies = client.push(requests).await.unwrap().into_inner();
    push.send(batch(1)).await.unwrap();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!(reply.kind, Some(push_reply::Kind::Acked(1)));
    let (report, took) = node.stop().await;
    assert!(report.is_clean() && took < AT_ONCE, "{took:?} {report:?}");
    assert!(replies.message().await.unwrap().is_none(), "the stream ends without an error");
    assert!(client.push(pushes().1).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_stream_that_never_ends_costs_the_grace_and_no_more() {
    let node = Node::start_at("127.0.0.1:0", false).await;
    let mut client = GatewayClient::new(dial(&node.address, Role::Gateway, &caller("task-a")).unwrap());
    let (push, requests) = pushes();
    let mut replies = client.push(requests).await.unwrap().into_inner();
    push.send(batch(1)).await.unwrap();
    assert!(replies.message().await.unwrap().is_some());
    let lifecycle = node.lifecycle.clone();
    let peers = node.peers.clone();
    let stop = node.stop();
    let named = async {
        lifecycle.progress().wait_for(|progress| progress.stage == Stage::Drain).await.unwrap();
        lifecycle.blockers()
    };
    let ((report, took), blockers) = tokio::join!(stop, named);
    assert!(blockers.iter().any(|(name, _)| name == "grpc-connection"), "{blockers:?}");
    assert!(took >= GRACE && took < GRACE + AT_ONCE, "{took:?}");
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Done), "{report:?}");
    assert!(replies.message().await.is_err(), "the stream was cut");
    assert!(peers.is_empty());
}

#[tokio::test]
async fn health_tells_watchers_and_lets_them_go() {
    let node = Node::start().await;
    let mut client = HealthClient::new(dial(&node.address, Role::Gateway, &caller("probe")).unwrap());
    assert_eq!(client.check(whole()).await.unwrap().into_inner().status, 1);
    let mut watch = client.watch(whole()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    node.health.not_serving().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    let (report, took) = node.stop().await;
    assert!(report.is_clean() && took < AT_ONCE, "{took:?} {report:?}");
}

#[tokio::test]
async fn a_peer_is_known_from_its_calls_until_its_connection_closes() {
    let node = Node::start().await;
    let gateway = caller("gateway-a");
    let mut client = HealthClient::new(dial(&node.address, Role::Gateway, &gateway).unwrap());
    let mut other = HealthClient::new(dial(&node.address, Role::Gateway, &caller("gateway-b")).unwrap());
    client.check(whole()).await.unwrap();
    other.check(whole()).await.unwrap();
    assert_eq!((node.peers.len(), node.peers.draining()), (2, 0));
    gateway.drains();
    client.check(whole()).await.unwrap();
    assert_eq!(node.peers.draining(), 1);
    let named: Vec<_> = node.peers.watch().borrow().values().cloned().collect();
    assert!(named.iter().any(|peer| peer.draining && peer.instance == InstanceId::parse("gateway-a").ok()));
    drop(client);
    tokio::time::timeout(Duration::from_secs(2), node.peers.none_draining()).await.unwrap();
    assert_eq!(node.peers.len(), 1);
    drop(other);
    until("nobody is connected", || node.peers.is_empty()).await;
    let _ = node.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_time_of_who_answers() {
    let node = Node::start().await;
    let mut client = HealthClient::new(dial(&node.address, Role::Gateway, &caller("gateway-a")).unwrap());
    let answer = client.check(whole()).await.unwrap();
    let theirs_ms = time_of(answer.metadata()).expect("its time");
    assert!((Clock::system().now_ms() - theirs_ms).abs() < 60_000, "{theirs_ms}");
    let _ = node.stop().await;
}
