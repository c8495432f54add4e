//! Channels: preference by lane, fail-over, rest after failure, fresh connections, who is connected.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::{Caller, Channels, Pick, Target};
use sluice_service::grpc::{CONNECT_WITHIN, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use sluice_service::tls::Role;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{Node, batch, pushes, until};

fn channels(targets: Vec<Target>) -> (watch::Sender<Arc<Vec<Target>>>, Channels) {
    let (sender, receiver) = watch::channel(Arc::new(targets));
    let caller = Caller::fixed(InstanceId::parse("gateway-test").unwrap());
    (sender, Channels::new(receiver, Role::Logic, caller))
}

async fn call(pick: &Pick) -> bool {
    let mut client = HealthClient::new(pick.calls());
    let answered = client.check(HealthCheckRequest { service: String::new() }).await.is_ok();
    if answered {
        pick.succeeded()
    } else {
        pick.failed()
    }
    answered
}

fn nobody(id: &str, draining: bool) -> Target {
    // Port 1 on loopback refuses at once.
    Target { id: InstanceId::parse(id).unwrap(), address: "127.0.0.1:1".into(), draining }
}

#[tokio::test]
async fn lanes_spread_and_move_only_with_their_target() {
    let targets: Vec<_> = (0..4).map(|n| nobody(&format!("logic-{n}"), false)).collect();
    let (sender, channels) = channels(targets.clone());
    let chosen = |channels: &Channels| -> Vec<InstanceId> {
        (0..16).map(|lane| channels.pick(lane).unwrap().target().id.clone()).collect()
    };
    let before = chosen(&channels);
    let mut shares: HashMap<_, usize> = HashMap::new();
    before.iter().for_each(|id| *shares.entry(id.clone()).or_default() += 1);
    assert!(shares.len() >= 3, "{shares:?}");
    sender.send_replace(Arc::new(targets[1..].to_vec()));
    for (was, is) in before.iter().zip(chosen(&channels)) {
        assert!(*was == is || *was == targets[0].id);
        assert_ne!(is, targets[0].id);
    }
}

#[tokio::test(start_paused = true)]
async fn draining_targets_are_for_when_nobody_serves_and_failed_ones_rest() {
    let (sender, channels) = channels(vec![nobody("serving", false), nobody("draining", true)]);
    let picked = |lane| channels.pick(lane).map(|pick| pick.target().id.to_string());
    assert!((0..16).all(|lane| picked(lane).unwrap() == "serving"));
    let (first, late) = (channels.pick(0).unwrap(), channels.pick(0).unwrap());
    first.failed();
    assert_eq!(picked(0).unwrap(), "draining");
    channels.pick(0).unwrap().failed();
    assert_eq!(picked(0), None);
    late.succeeded();
    assert_eq!(picked(0), None, "an old channel says nothing about the new one");
    let start = tokio::time::Instant::now();
    let pick = channels.pick_or_wait(0).await;
    assert!(start.elapsed() <= Duration::from_millis(60), "{:?}", start.elapsed());
    pick.failed();
    sender.send_replace(Arc::new(Vec::new()));
    assert!(channels.pick(0).is_none() && !channels.any_serving());
    let mut waiting = Box::pin(channels.pick_or_wait(3));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    sender.send_replace(Arc::new(vec![nobody("new", false)]));
    assert_eq!(waiting.await.target().id.as_str(), "new");
}

#[tokio::test]
async fn calls_fail_over_and_come_back() {
    let (one, two) = (Node::start().await, Node::start().await);
    let (_sender, channels) = channels(vec![one.target("logic-1"), two.target("logic-2")]);
    assert_eq!(channels.connected().len(), 0);
    let lane = (0..16).find(|lane| channels.pick(*lane).unwrap().target().id.as_str() == "logic-1").unwrap();
    assert!(call(&channels.pick(lane).unwrap()).await);
    assert_eq!(channels.connected().len(), 1);
    let address = one.address.clone();
    one.stop().await;
    until("the connection is gone", || channels.connected().is_empty()).await;
    assert!(!call(&channels.pick(lane).unwrap()).await);
    let other = channels.pick(lane).unwrap();
    assert_eq!(other.target().id.as_str(), "logic-2");
    assert!(call(&other).await);
    let again = Node::start_at(&address, true).await;
    let start = Instant::now();
    loop {
        let pick = channels.pick_or_wait(lane).await;
        assert!(call(&pick).await || pick.target().id.as_str() == "logic-1");
        if pick.target().id.as_str() == "logic-1" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    let _ = (again.stop().await, two.stop().await);
}

/// An address whose queue is full: its system drops a SYN without a word, as a firewall does.
async fn swallowing() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 64, "the queue never fills");
    }
    (listener, queued)
}

/// How long a call takes to fail at somebody who listens there.
async fn fails_after(listener: &TcpListener) -> Duration {
    let address = listener.local_addr().unwrap().to_string();
    let target = Target { id: InstanceId::parse("logic-1").unwrap(), address, draining: false };
    let (_sender, channels) = channels(vec![target]);
    let begun = Instant::now();
    let answered = timeout(Duration::from_secs(20), call(&channels.pick(0).unwrap())).await;
    assert_eq!(answered, Ok(false), "it fails by itself");
    begun.elapsed()
}

#[tokio::test]
async fn an_address_that_swallows_packets_holds_a_call_for_half_a_second() {
    let (listener, _queued) = swallowing().await;
    let took = fails_after(&listener).await;
    assert!(took >= CONNECT_WITHIN && took < 5 * CONNECT_WITHIN, "{took:?}");
}

/// Its system takes the connection, and nobody ever answers on it.
#[tokio::test]
async fn a_peer_that_never_answers_holds_a_call_until_its_pings_are_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let took = fails_after(&listener).await;
    assert!(took < KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT + Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn after_goaway_a_failed_call_finds_a_fresh_channel_while_a_stream_lives_on() {
    let old = Node::start_at("127.0.0.1:0", false).await;
    let address = old.address.clone();
    let (_sender, channels) = channels(vec![old.target("logic-1")]);
    let pick = channels.pick(0).unwrap();
    let (push, requests) = pushes();
    let mut replies = GatewayClient::new(pick.calls()).push(requests).await.unwrap().into_inner();
    push.send(batch(1)).await.unwrap();
    assert!(replies.message().await.unwrap().is_some());
    // The listener closes at GOAWAY; a successor takes the port while the old one waits for its stream.
    let lifecycle = old.lifecycle.clone();
    let successor = async {
        let mut progress = lifecycle.progress();
        progress.wait_for(|now| now.stage >= sluice_lifecycle::Stage::Drain).await.unwrap();
        let new = Node::start_at(&address, true).await;
        let mut tries = 0;
        while !call(&channels.pick_or_wait(0).await).await {
            tries += 1;
            assert!(tries < 3, "a fresh channel reaches the successor");
        }
        push.send(batch(2)).await.unwrap();
        assert!(replies.message().await.unwrap().is_some(), "the stream of the old one lives on");
        assert_eq!(new.peers.len(), 1);
        drop((push, replies));
        new
    };
    let (_, new) = tokio::join!(old.stop(), successor);
    let _ = new.stop().await;
}
