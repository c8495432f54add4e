//! A cluster whose services show each other certificates: it works as any other, and strangers on its ports, or in its
//! registry, are refused and named.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_client::raw::{Handshake, Socket};
use sluice_launcher::{Node, Service, certs, probe};
use sluice_proto::grpc::gateway_client::GatewayClient;
use sluice_proto::grpc::logic_client::LogicClient;
use sluice_proto::grpc::{
    Message, PublishItem, PublishRequest, PushBatch, PushRequest, ReadRange, ReadRequest, RoomRun,
    push_request,
};
use sluice_proto::ids::InstanceId;
use sluice_service::grpc::channels::{Caller, dial};
use sluice_service::tls::{Identity, Role, Tls};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::{Secure, term};
use crate::kit::{Ground, SOON, json_with, socket_of, until};

/// Somebody with the files of this service, or with none.
fn caller(cluster: &Secure, service: Option<(Service, Role)>) -> Caller {
    let identity = service.and_then(|(service, role)| {
        let files = certs::files(&cluster.certs().unwrap(), service);
        let text = |path: std::path::PathBuf| path.display().to_string();
        let tls = Tls { ca: text(files.ca), cert: text(files.cert), key: text(files.key) };
        Identity::load(&tls, role).unwrap()
    });
    Caller::fixed(InstanceId::parse("stranger").unwrap()).identified(identity)
}

/// Where the first of these listens for gRPC.
async fn grpc_of(cluster: &Secure, service: &str) -> String {
    let page = format!("{}/admin/instances", cluster.gateway(0).admin());
    let mut address = None;
    until("it is listed", SOON, async || {
        let page = probe::get(&page, Duration::from_secs(2)).await.unwrap().body;
        let all: Value = serde_json::from_str(&page).unwrap();
        let one = all["instances"].as_array().unwrap().iter().find(|one| one["service"] == service);
        address = one.map(|one| one["address"].as_str().unwrap().to_owned());
        address.is_some()
    })
    .await;
    address.unwrap()
}

/// How often the log of a process says this.
fn says(node: &Node, text: &str) -> usize {
    let log = std::fs::read_to_string(node.log()).unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

async fn publish(socket: &mut Socket, room: &str, data: &str) -> Value {
    socket.send(format!(r#"{{"pub":"{room}","data":{data}}}"#)).await.unwrap();
    json_with(socket, "ok").await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_encrypted_while_each_service_is_replaced() {
    let cluster = Secure::start(2, 2, 2).await;
    let (mut ann, mut bob) = (socket_of(&cluster, "ann", 0).await, socket_of(&cluster, "bob", 1).await);
    bob.send(r#"{"sub":"news"}"#).await.unwrap();
    json_with(&mut bob, "ok").await;
    assert_eq!(publish(&mut ann, "news", "1").await["seq"], 1);
    assert_eq!(json_with(&mut bob, "msg").await["data"], 1, "over a task to another gateway");
    for service in [Service::Task, Service::Logic] {
        for index in 0..2 {
            cluster.roll(service, index).await;
            let seq = publish(&mut ann, "news", "2").await["seq"].clone();
            assert_eq!(json_with(&mut bob, "msg").await["seq"], seq);
        }
    }
    for service in [Service::Gateway, Service::Task, Service::Logic] {
        for index in 0..2 {
            let node = cluster.node(service, index).unwrap();
            term(&node).await;
            assert_eq!(says(&node, "was refused"), 0, "{}", node.log_tail());
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_port_of_logic_are_refused() {
    let cluster = Secure::start(1, 1, 1).await;
    let address = grpc_of(&cluster, "logic").await;
    let item = PublishItem { room: "news".into(), sender: "ann".into(), key: "k".into(), data: "1".into() };
    let publish = PublishRequest { items: vec![item], not_after_ms: i64::MAX, ..PublishRequest::default() };
    let range = ReadRange { room: "news".into(), ..ReadRange::default() };
    let read = ReadRequest { ranges: vec![range], history: false };
    // Without a certificate, and with one that is not for this.
    for who in [None, Some((Service::Task, Role::Task))] {
        let caller = caller(&cluster, who);
        let client = || LogicClient::new(dial(&address, Role::Logic, &caller).unwrap());
        for _ in 0..2 {
            assert!(client().publish(publish.clone()).await.is_err(), "{who:?}");
            assert!(client().read(read.clone()).await.is_err(), "{who:?}");
        }
    }
    assert!(cluster.table("news").await.is_empty());
    let logic = cluster.logic(0);
    until("the log names the stranger", SOON, async || says(&logic, "it does not speak TLS") == 1).await;
    until("the log names the task", SOON, async || says(&logic, "A call was refused") == 1).await;
    assert_eq!(says(&logic, "A peer at 127.0.0.1:"), 1, "{}", logic.log_tail());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_port_for_pushes_deliver_nothing() {
    let cluster = Secure::start(1, 1, 1).await;
    let address = grpc_of(&cluster, "gateway").await;
    let mut ann = socket_of(&cluster, "ann", 0).await;
    ann.send(r#"{"sub":"news"}"#).await.unwrap();
    let epoch = json_with(&mut ann, "ok").await["epoch"].as_str().unwrap().to_owned();
    let epoch = u64::from_str_radix(&epoch, 16).unwrap();
    let forged = Message { seq: 1, sender: "eve".into(), data: r#""forged""#.into(), ..Message::default() };
    let run =
        RoomRun { room: "news".into(), first: 1, last: 1, messages: vec![forged], ..RoomRun::default() };
    let batch = push_request::Kind::Batch(PushBatch { id: 1, epoch, runs: vec![run] });
    let push = PushRequest { kind: Some(batch) };
    for who in [None, Some((Service::Logic, Role::Logic))] {
        let channel = dial(&address, Role::Gateway, &caller(&cluster, who)).unwrap();
        let pushes = futures::stream::iter([push.clone()]);
        assert!(GatewayClient::new(channel).push(pushes).await.is_err(), "{who:?}");
    }
    // By somebody else: what comes before the answer to a publish of her own would be skipped.
    let mut bob = socket_of(&cluster, "bob", 0).await;
    assert_eq!(publish(&mut bob, "news", r#""real""#).await["seq"], 1);
    assert_eq!(json_with(&mut ann, "msg").await["data"], "real");
    let gateway = cluster.gateway(0);
    until("the log names both", SOON, async || {
        says(&gateway, "it does not speak TLS") == 1 && says(&gateway, "A call was refused") == 1
    })
    .await;
    cluster.stop().await;
}

/// What a rogue was told: it takes every connection and keeps the first bytes of each.
async fn rogue() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let read = tcp.read(&mut bytes).await.unwrap_or_default();
            bytes.truncate(read);
            told.lock().unwrap().push(bytes);
        }
    });
    (address, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_in_the_registry_gets_no_login() {
    let cluster = Secure::start(1, 1, 1).await;
    let (address, heard) = rogue().await;
    let record = json!({ "address": address, "version": "1", "started_ms": 1, "state": "serving" });
    let put = json!({
        "key": STANDARD.encode("/sluice/instances/logic/x"),
        "value": STANDARD.encode(record.to_string()),
    });
    // Somebody who has the password of etcd.
    cluster.ask_etcd("/v3/kv/put", &put).await.unwrap();
    let gateway = cluster.gateway(0);
    let link = format!("The logic at {address} cannot be called");
    for n in 0..40 {
        let user = format!("user{n}");
        let handshake = Handshake::new(cluster.ws(0)).token(cluster.token(&user));
        let mut socket = Socket::connect(&handshake).await.unwrap();
        assert_eq!(json_with(&mut socket, "welcome").await["welcome"]["user"], user);
    }
    until("the gateway has tried it", SOON, async || says(&gateway, &link) == 1).await;
    for bytes in heard.lock().unwrap().iter() {
        // A handshake of TLS, and nothing that was ever meant for a logic.
        assert!(bytes.is_empty() || bytes.starts_with(&[0x16, 3]), "{bytes:?}");
    }
    cluster.stop().await;
}
