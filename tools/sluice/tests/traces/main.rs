//! Traces of real services: gateways, logic and task as processes on their own NATS, etcd, Redis and PostgreSQL, and a
//! collector of our own. They are built with the feature `otel`; `.ci/traces` does that.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test's runtime")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at what it is about")]

mod collector;
mod stops;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_client::raw::{Frame, Handshake, Socket};
use sluice_launcher::{Cluster, Options, Service};
use sluice_proto::api::PublishRequest;
use sluice_proto::api::api_client::ApiClient;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Endpoint;

use self::collector::{Collector, Seen};

/// Bound of waits that should end at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A cluster that sends its traces to a URL, and of what comes without a parent traces this share.
pub async fn cluster(url: &str, sample: &str, gateways: usize) -> Cluster {
    let options = Options { gateways, ..Options::default() };
    let settings = [
        format!("all.trace.endpoint={url}"),
        format!("all.trace.sample={sample}"),
        "logic.anonymous=true".to_owned(),
    ];
    let options = settings.iter().fold(options, |options, setting| options.set(setting).unwrap());
    Cluster::start(options).await.unwrap()
}

/// A connection to a gateway, welcome, with these headers at its upgrade.
pub async fn socket(cluster: &Cluster, gateway: usize, traceparent: &[&str]) -> Socket {
    let token = cluster.token("ann", &["*"], &["*"]).unwrap();
    let handshake = Handshake::new(cluster.gateway(gateway).ws()).token(token);
    let handshake = traceparent.iter().fold(handshake, |it, value| it.header("traceparent", *value));
    let mut socket = Socket::connect(&handshake).await.unwrap();
    frame(&mut socket, "welcome").await;
    socket
}

/// The next frame with this field.
pub async fn frame(socket: &mut Socket, field: &str) -> Value {
    loop {
        match timeout(SOON, socket.json()).await.expect("a frame in time") {
            Ok(value) if value.get(field).is_some() => return value,
            Ok(_) | Err(Frame::Ping | Frame::Pong) => {}
            Err(other) => panic!("{field} was expected: {other:?}"),
        }
    }
}

pub async fn publish(socket: &mut Socket, room: &str, data: u32) -> Value {
    socket.send(json!({"pub": room, "data": data}).to_string()).await.unwrap();
    frame(socket, "ok").await
}

/// A trace id, and the header of a span in it.
fn parent(n: u8, flags: &str) -> (String, String) {
    let trace = format!("{n:02x}").repeat(16);
    let header = format!("00-{trace}-{PARENT}-{flags}");
    (trace, header)
}

const PARENT: &str = "00f067aa0ba902b7";

/// The only span of this name.
fn only<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let named: Vec<&Seen> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "{name}: {spans:#?}");
    named[0]
}

/// What every publish leads to behind logic: the part of its trace that does not depend on where it came in.
fn carried(spans: &[Seen], entry: &Seen, pushed_to: usize) {
    let (logic, commit) = (only(spans, "logic publish"), only(spans, "store commit"));
    let (notice, carry) = (only(spans, "logic notice"), only(spans, "task carry"));
    assert_eq!(logic.parent, entry.id);
    assert_eq!([&commit.parent, &notice.parent], [&logic.id, &logic.id]);
    assert_eq!(carry.parent, notice.id);
    let of = |service: &str, spans: &[&Seen]| spans.iter().all(|span| span.service == service);
    assert!(of("sluice-logic", &[logic, commit, notice]) && of("sluice-task", &[carry]));
    let pushes: Vec<&Seen> = spans.iter().filter(|span| span.name == "task push").collect();
    assert_eq!(pushes.len(), pushed_to, "{pushes:#?}");
    for push in &pushes {
        assert_eq!((push.service.as_str(), &push.parent), ("sluice-task", &carry.id));
        let delivered = spans.iter().filter(|span| span.name == "gateway deliver" && span.parent == push.id);
        let delivered: Vec<&Seen> = delivered.collect();
        assert!(delivered.len() == 1 && of("sluice-gateway", &delivered), "{spans:#?}");
    }
    for span in spans {
        assert!(span.began_ns <= span.ended_ns && !span.failed, "{span:?}");
        assert!(!format!("{span:?}").contains("ann"), "no user is named: {span:?}");
    }
    let seq = |span: &Seen| span.attributes["sluice.seq"].clone();
    assert_eq!([seq(notice), seq(carry)], [seq(entry), seq(entry)]);
    assert_eq!(entry.attributes["messaging.destination.name"], "news");
}

/// Whether a span told of a message that its gateway did not have yet.
fn delivers(span: &&Seen) -> bool {
    span.name == "gateway deliver" && span.attributes["sluice.shards"] != "0"
}

const ALL: [(&str, usize); 5] =
    [("logic publish", 1), ("store commit", 1), ("logic notice", 1), ("task carry", 1), ("task push", 1)];

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_one_trace_from_its_frame_to_its_subscribers() {
    let collector = Collector::start().await;
    let cluster = cluster(&collector.url, "0", 2).await;
    let mut reader = socket(&cluster, 1, &[]).await;
    reader.send(json!({"sub": "news"}).to_string()).await.unwrap();
    frame(&mut reader, "ok").await;

    // What is not to be traced is not: of its own, or because its parent is none, says so, or is there twice.
    let (refused, off) = parent(0xee, "00");
    let (twice, one) = parent(0xdd, "01");
    let (off, one) = (off.as_str(), one.as_str());
    for headers in [&[][..], &["00-junk"], &[off], &[one, one]] {
        let mut untraced = socket(&cluster, 0, headers).await;
        publish(&mut untraced, "news", 1).await;
        frame(&mut reader, "msg").await;
    }

    let (trace, header) = parent(0xab, "01");
    let mut writer = socket(&cluster, 0, &[&header]).await;
    writer.send(json!({"sub": "news"}).to_string()).await.unwrap();
    frame(&mut writer, "ok").await;
    writer.send(json!({"pub": "news", "data": 2}).to_string()).await.unwrap();
    frame(&mut writer, "msg").await;
    frame(&mut reader, "msg").await;
    let wanted = [&ALL[..4], &[("gateway publish", 1), ("task push", 2), ("gateway deliver", 3)]].concat();
    let spans = collector.trace(&trace, &wanted).await;
    let entry = only(&spans, "gateway publish");
    assert_eq!((entry.service.as_str(), entry.parent.as_str()), ("sluice-gateway", PARENT));
    carried(&spans, entry, 2);
    // Its own subscribers have it by the answer of logic, those of the other gateway by a push.
    let delivered: Vec<&Seen> = spans.iter().filter(delivers).collect();
    let by_answer = delivered.iter().filter(|span| span.parent == entry.id).count();
    assert_eq!(spans.iter().filter(|span| span.name == "gateway deliver").count(), 3, "{spans:#?}");
    assert!(by_answer <= 1 && delivered.len() == 2, "each gateway has it once: {spans:#?}");

    let others: Vec<Seen> = collector.all().into_iter().filter(|span| span.trace != trace).collect();
    assert!(others.is_empty(), "{refused}, {twice}: {others:#?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_api_is_a_part_of_its_callers_trace() {
    let collector = Collector::start().await;
    let cluster = cluster(&collector.url, "0", 1).await;
    let mut reader = socket(&cluster, 0, &[]).await;
    reader.send(json!({"sub": "news"}).to_string()).await.unwrap();
    frame(&mut reader, "ok").await;

    let (by_grpc, header) = parent(0xa1, "01");
    let at = Endpoint::from_shared(cluster.logic(0).http().to_owned()).unwrap();
    let mut client = ApiClient::new(at.connect().await.unwrap());
    let data = Bytes::from_static(b"1");
    let mut request = Request::new(PublishRequest { room: "news".into(), data, key: None, from: None });
    let metadata = request.metadata_mut();
    metadata.insert("authorization", format!("Bearer {}", cluster.api_key()).parse().unwrap());
    metadata.insert("traceparent", header.parse().unwrap());
    client.publish(request).await.unwrap();

    let (by_http, header) = parent(0xa2, "01");
    let headers = [
        ("authorization", format!("Bearer {}", cluster.api_key())),
        ("content-type", "application/json".to_owned()),
        ("traceparent", header),
    ];
    let body = json!({"room": "news", "data": 2}).to_string();
    let status = post(&format!("{}/v1/publish", cluster.logic(0).http()), &headers, body).await;
    assert_eq!(status, 200);

    for trace in [by_grpc, by_http] {
        frame(&mut reader, "msg").await;
        let wanted = [&ALL[..], &[("api publish", 1), ("gateway deliver", 1)]].concat();
        let spans = collector.trace(&trace, &wanted).await;
        let entry = only(&spans, "api publish");
        assert_eq!((entry.service.as_str(), entry.parent.as_str()), ("sluice-logic", PARENT));
        carried(&spans, entry, 1);
        assert_eq!(spans.iter().filter(delivers).count(), 1, "{spans:#?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_traced_without_a_parent_and_a_stop_sends_what_is_left() {
    let collector = Collector::start().await;
    let cluster = cluster(&collector.url, "1", 1).await;
    let mut writer = socket(&cluster, 0, &[]).await;
    let count = 50;
    for n in 0..count {
        publish(&mut writer, "news", n).await;
    }
    // At once: the last of them still wait to be sent.
    for service in [Service::Gateway, Service::Task, Service::Logic] {
        let exit = cluster.stop_node(service, 0).await.unwrap();
        assert_eq!(exit.code(), Some(0), "{service:?}");
    }
    let seen = collector.all();
    for name in ["gateway publish", "logic publish", "store commit"] {
        let found = seen.iter().filter(|span| span.name == name).count();
        assert_eq!(found, count as usize, "{name}");
    }
    let mut traces: Vec<&str> =
        seen.iter().filter(|span| span.parent.is_empty()).map(|span| span.trace.as_str()).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), count as usize, "each publish is a trace of its own");
    cluster.stop().await;
}

/// The status of a POST.
async fn post(url: &str, headers: &[(&'static str, String)], body: String) -> u16 {
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = headers.iter().fold(http::Request::post(url), |it, (name, value)| it.header(*name, value));
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    timeout(SOON, client.request(request)).await.expect("an answer in time").unwrap().status().as_u16()
}
