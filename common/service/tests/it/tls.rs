//! Mutual TLS: who is let in, who is not and what is said of that, and files that change. Real sockets on loopback.

use std::time::{Duration, Instant};

use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::access::Access;
use sluice_service::grpc::channels::{Caller, dial};
use sluice_service::grpc::{HANDSHAKE_WITHIN, STRANGERS_PER_ADDRESS_MAX};
use sluice_service::metrics::Registry;
use sluice_service::tls::expiry::measure;
use sluice_service::tls::{Identity, Role, Tls};
use sluice_testing::{Authority, TlsFiles, keep_log, logged};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{GRACE, Node, batch, pushes, until};

fn tls(files: TlsFiles) -> Tls {
    Tls { ca: files.ca, cert: files.cert, key: files.key }
}

/// What is held by somebody of this role, of this authority.
fn identity(authority: &Authority, role: Role) -> Option<Identity> {
    let identity = Identity::load(&tls(authority.issue(role.dns_name())), role).unwrap();
    assert!(identity.is_some());
    identity
}

fn caller(identity: Option<Identity>) -> Caller {
    Caller::fixed(InstanceId::parse("test").unwrap()).identified(identity)
}

/// A gateway that tasks may push to.
async fn gateway(identity: Option<Identity>) -> Node {
    Node::start_with(Access::new(identity, |_| &[Role::Task])).await
}

/// One push, and how long its outcome took.
async fn push(node: &Node, caller: &Caller) -> Result<(), Code> {
    let start = Instant::now();
    let mut client = GatewayClient::new(dial(&node.address, Role::Gateway, caller).unwrap());
    let (push, requests) = pushes();
    push.try_send(batch(1)).unwrap();
    let result = async {
        let mut replies = client.push(requests).await?.into_inner();
        replies.message().await.map(drop)
    };
    let result = tokio::time::timeout(Duration::from_secs(10), result).await.expect("no hang");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    result.map_err(|status| status.code())
}

async fn health(node: &Node, caller: &Caller) -> bool {
    let mut client = HealthClient::new(dial(&node.address, Role::Gateway, caller).unwrap());
    client.check(HealthCheckRequest { service: String::new() }).await.is_ok()
}

/// The lines that say this of a peer, each naming where it is.
fn said(text: &str) -> usize {
    let lines = logged(text);
    assert!(lines.iter().all(|line| line.contains(" WARN ") && line.contains("127.0.0.1:")), "{lines:?}");
    lines.len()
}

#[tokio::test]
async fn only_the_role_that_may_call_is_let_in() {
    keep_log();
    let ours = Authority::new();
    let node = gateway(identity(&ours, Role::Gateway)).await;
    assert_eq!(push(&node, &caller(identity(&ours, Role::Task))).await, Ok(()));
    assert_eq!(logged("WARN"), Vec::<String>::new());
    let logic = caller(identity(&ours, Role::Logic));
    for _ in 0..3 {
        assert_eq!(push(&node, &logic).await, Err(Code::PermissionDenied));
        assert!(health(&node, &logic).await, "every service may ask whether it is healthy");
    }
    assert_eq!(said("A call was refused"), 1);
    assert_eq!(logged("roles=logic").len(), 1, "{:?}", logged("WARN"));
}

#[tokio::test]
async fn strangers_are_refused_and_named_once() {
    keep_log();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let node = gateway(identity(&ours, Role::Gateway)).await;
    let (plain, other) = (caller(None), caller(identity(&theirs, Role::Task)));
    for _ in 0..3 {
        assert!(push(&node, &plain).await.is_err(), "without TLS");
        assert!(push(&node, &other).await.is_err(), "of another authority");
    }
    until("the server has seen them", || said("it does not speak TLS") == 1).await;
    assert_eq!(said("its certificate is not of our authority"), 1, "{:?}", logged("WARN"));
    // Who dials without TLS is told as well, once: where, and what to set.
    let told =
        || logged("cannot be called: it speaks TLS and we do not: set tls.ca, tls.cert and tls.key here");
    until("the client has heard why", || !told().is_empty()).await;
    let told = told();
    assert!(
        matches!(&told[..], [line] if line.contains(&format!("The gateway at {}", node.address))),
        "{told:?}"
    );
    assert!(node.peers.is_empty());
    assert_eq!(push(&node, &caller(identity(&ours, Role::Task))).await, Ok(()), "others are not disturbed");
}

/// A client that looks at nothing, with a certificate of another authority or none: the server has to refuse it.
#[tokio::test]
async fn the_server_looks_at_certificates_itself() {
    keep_log();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let node = gateway(identity(&ours, Role::Gateway)).await;
    let ca = ours.issue("unused.sluice").ca;
    let wrong = theirs.issue("task.sluice");
    // The authority it believes is right, so that it goes on to show what it has.
    let both =
        format!("{}{}", std::fs::read_to_string(&ca).unwrap(), std::fs::read_to_string(&wrong.ca).unwrap());
    std::fs::write(&wrong.ca, both).unwrap();
    let stranger = Identity::load(&tls(wrong), Role::Task).unwrap();
    assert!(push(&node, &caller(stranger)).await.is_err());
    until("the server has said so", || said("was refused: its certificate is not of our authority") == 1)
        .await;
    until("the client hears why", || said("it does not know the authority of our certificate") == 1).await;
}

#[tokio::test]
async fn a_server_that_is_not_what_was_expected_hears_nothing() {
    keep_log();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let task = caller(identity(&ours, Role::Task));
    let logic = gateway(identity(&ours, Role::Logic)).await;
    assert!(push(&logic, &task).await.is_err());
    assert_eq!(said("its certificate is not for this"), 1, "{:?}", logged("WARN"));
    let other = gateway(identity(&theirs, Role::Gateway)).await;
    assert!(push(&other, &task).await.is_err());
    assert_eq!(said("cannot be called: its certificate is not of our authority"), 1);
    let plain = gateway(None).await;
    assert!(push(&plain, &task).await.is_err());
    assert_eq!(said("cannot be called: it closed the connection during the TLS handshake"), 1);
    assert_eq!(said("was refused: it speaks TLS and we do not"), 1);
    assert!(plain.peers.is_empty() && logic.peers.is_empty() && other.peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_never_ends_the_handshake_is_closed_after_its_deadline() {
    let ours = Authority::new();
    let node = gateway(identity(&ours, Role::Gateway)).await;
    let start = tokio::time::Instant::now();
    let mut tcp = TcpStream::connect(&node.address).await.unwrap();
    // The beginning of a record that never ends.
    tcp.write_all(&[0x16, 3, 1, 0x10]).await.unwrap();
    while !matches!(tcp.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
    assert!(start.elapsed() >= HANDSHAKE_WITHIN, "{:?}", start.elapsed());
}

/// From another address of loopback than everybody else.
async fn stranger(node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(node.address.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn who_opens_handshakes_by_the_thousand_keeps_nobody_else_out() {
    keep_log();
    let ours = Authority::new();
    let node = gateway(identity(&ours, Role::Gateway)).await;
    let task = caller(identity(&ours, Role::Task));
    let mut crowd = Vec::new();
    for _ in 0..STRANGERS_PER_ADDRESS_MAX + 100 {
        crowd.push(stranger(&node).await);
    }
    let refused = || logged("was refused: it has opened too many connections");
    until("those too many are closed", || refused().len() == 1).await;
    assert!(refused()[0].contains("127.0.0.2:"), "{:?}", refused());
    assert_eq!(push(&node, &task).await, Ok(()), "from another address");
    drop(crowd);
    // Its address has places again as soon as they are gone: one that is silent is read until its deadline.
    let read_to_its_deadline = async {
        loop {
            let (start, mut silent) = (Instant::now(), stranger(&node).await);
            while !matches!(silent.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            if start.elapsed() > HANDSHAKE_WITHIN / 2 {
                assert!(start.elapsed() < 6 * HANDSHAKE_WITHIN, "{:?}", start.elapsed());
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read_to_its_deadline).await.expect("a place is free again");
}

#[tokio::test]
async fn silent_handshakes_do_not_delay_a_stop() {
    let ours = Authority::new();
    let node = gateway(identity(&ours, Role::Gateway)).await;
    let _silent = TcpStream::connect(&node.address).await.unwrap();
    assert_eq!(push(&node, &caller(identity(&ours, Role::Task))).await, Ok(()));
    let (report, took) = node.stop().await;
    assert!(report.is_clean() && took < GRACE, "{took:?} {report:?}");
}

#[tokio::test]
async fn new_files_hold_for_new_connections_and_broken_ones_never() {
    keep_log();
    let (ours, next) = (Authority::new(), Authority::new());
    let files = tls(ours.issue("gateway.sluice"));
    let held = Identity::load(&files, Role::Gateway).unwrap().unwrap();
    let node = gateway(Some(held.clone())).await;
    let (old, new) = (caller(identity(&ours, Role::Task)), caller(identity(&next, Role::Task)));

    std::fs::write(&files.cert, "broken").unwrap();
    (0..4).for_each(|_| held.look());
    assert_eq!(logged("the old ones stay in force").len(), 1, "{:?}", logged("WARN"));
    assert_eq!(push(&node, &old).await, Ok(()), "with what it had");

    // Another authority's: certificate, then key, then the authority. Only all of them make sense.
    let other = tls(next.issue("gateway.sluice"));
    for (from, to) in [(&other.cert, &files.cert), (&other.key, &files.key)] {
        std::fs::copy(from, to).unwrap();
        held.look();
    }
    std::fs::copy(&other.ca, &files.ca).unwrap();
    held.look();
    assert!(push(&node, &new).await.is_err(), "seen once: it may still be changing");
    held.look();
    assert_eq!(push(&node, &new).await, Ok(()));
    assert!(push(&node, &old).await.is_err());
    assert_eq!(logged("WARN").iter().filter(|line| line.contains("old ones stay")).count(), 1);
}

#[test]
fn an_end_that_comes_near_is_said_once_a_day_and_measured() {
    keep_log();
    let ours = Authority::new();
    let files = tls(ours.issue("logic.sluice"));
    let held = Identity::load(&files, Role::Logic).unwrap().unwrap();
    (0..9).for_each(|_| held.look());
    let said = logged("expires within 24 hours");
    assert!(
        matches!(&said[..], [line] if line.contains("--renew") && line.contains("logic.sluice.pem")),
        "{said:?}"
    );
    let metrics = Registry::new("test");
    measure(Some(held.clone()), &metrics);
    let text = metrics.encode();
    let value = text.lines().find_map(|line| line.strip_prefix("sluice_test_tls_certificate_left_seconds "));
    let left: u64 = value.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((85_000..=85_800).contains(&left), "{left}");
}

#[test]
fn what_nobody_would_believe_is_no_identity() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = || tls(ours.issue("logic.sluice"));
    assert_eq!(good().check(Role::Logic), None);
    assert!(good().warning(Role::Logic).unwrap().contains("expires within 30 days"));
    let wrong = |files: Tls, role: Role, says: &str| {
        let why = files.check(role).unwrap();
        assert!(why.contains(says), "{why}");
        assert!(Identity::load(&files, role).is_err());
    };
    wrong(good(), Role::Task, "is not for a task: the name task.sluice must be among");
    wrong(tls(ours.issue_expired("logic.sluice")), Role::Logic, "has expired: renew it");
    let other = theirs.issue("logic.sluice");
    wrong(Tls { ca: other.ca.clone(), ..good() }, Role::Logic, "was not signed by tls.ca");
    wrong(Tls { key: other.key, ..good() }, Role::Logic, "is not the private key of tls.cert");
    wrong(Tls { cert: "/nowhere".into(), ..good() }, Role::Logic, "tls.cert \"/nowhere\" cannot be read");
    wrong(Tls { ca: good().key, ..good() }, Role::Logic, "is no PEM certificate: it has none");
}
