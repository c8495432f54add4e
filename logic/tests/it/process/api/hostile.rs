//! What strangers send to see what happens: good calls that were changed, bodies without end, heads without measure. Each
//! has its answer in time, none is a mistake of the server.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::kit::{KEY, Served};
use crate::stores::stores;

/// Longer than any answer takes: a body has 10 s.
const IN_TIME: Duration = Duration::from_secs(50);
const CALLS: usize = 400;

/// Calls that are good, and answered quickly.
static GOOD: [(&str, &str); 6] = [
    ("/v1/publish", r#"{"room":"a","data":{"t":[1,"é\u0041"]},"key":"k1","from":"ann"}"#),
    ("/v1/broadcast", r#"{"rooms":["a","b"],"data":null,"key":"k2"}"#),
    ("/v1/batch", r#"{"messages":[{"room":"a","data":1},{"room":"b","data":2,"delay_ms":60000}]}"#),
    ("/v1/schedule", r#"{"room":"a","data":"later","delay_ms":60000,"key":"k3"}"#),
    ("/v1/cancel", r#"{"room":"a","key":"k3"}"#),
    ("/v1/unsubscribe", r#"{"user":"ann","room":"a"}"#),
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,200}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Where to, with which body and which idempotency key.
fn any_call() -> impl Strategy<Value = (&'static str, Vec<u8>, String)> {
    (select(&GOOD[..]), 0..5_u8, any::<Index>(), any::<u8>(), any_json(), "[ -~]{0,140}").prop_map(
        |((path, good), how, at, byte, value, key)| {
            let mut bytes = good.as_bytes().to_vec();
            let mut members: Value = serde_json::from_str(good).unwrap();
            let members = members.as_object_mut().unwrap();
            let name = members.keys().nth(at.index(members.len())).unwrap().clone();
            match how {
                0 => bytes.truncate(at.index(bytes.len())),
                1 => {
                    let place = at.index(bytes.len());
                    bytes[place] = byte;
                }
                2 => {
                    members.insert(name, value);
                    bytes = json!(members).to_string().into_bytes();
                }
                3 => {
                    members.insert(format!("{name}{}", char::from(byte)), value);
                    bytes = json!(members).to_string().into_bytes();
                }
                _ => bytes = value.to_string().into_bytes(),
            }
            (path, bytes, key)
        },
    )
}

#[tokio::test]
async fn whatever_is_made_of_good_calls_has_an_answer_that_says_what_it_is() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let (mut runner, mut refused) = (TestRunner::deterministic(), 0);
    for _ in 0..CALLS {
        let (path, body, key) = any_call().new_tree(&mut runner).unwrap().current();
        let shown = format!("{path} {} {key:?}", String::from_utf8_lossy(&body));
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        // Of half of them none is said.
        let headers = if key.len() % 2 == 0 { &headers[..] } else { &headers[..1] };
        let reply = timeout(IN_TIME, served.api.send("POST", path, headers, body)).await.expect(&shown);
        match reply.status {
            200 => drop(reply.ok()),
            400..500 => {
                let problem = reply.problem();
                assert!(
                    problem["detail"].as_str().is_some_and(|detail| detail.len() > 8),
                    "{shown}: {problem}"
                );
                refused += 1;
            }
            status => panic!("{shown}: {status} {}", reply.text()),
        }
    }
    assert!((CALLS / 4..CALLS).contains(&refused), "{refused} of {CALLS} were refused");
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn another_method_is_told_which_one_and_a_near_match_which_names_there_are() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    for (method, path, allowed) in [
        ("GET", "/v1/publish", "POST"),
        ("PUT", "/v1/batch", "POST"),
        ("DELETE", "/v1/history?room=a", "GET,HEAD"),
        ("POST", "/v1/info", "GET,HEAD"),
        ("PATCH", "/v1/openapi.json", "GET,HEAD"),
    ] {
        let reply = served.api.send(method, path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert_eq!(reply.problem()["code"], "method_not_allowed", "{method} {path}");
    }
    let near = served.api.post("publish", &json!({"room": "a", "data": 1, "form": "ann"})).await.problem();
    let detail = near["detail"].as_str().unwrap();
    assert!(detail.contains("unknown field `form`") && detail.contains("`from`"), "{detail}");
    served.end().await;
    cluster.stop().await;
}

/// Begins a call whose body comes in chunks.
async fn chunked(served: &Served) -> TcpStream {
    let mut tcp = TcpStream::connect(served.api.address).await.unwrap();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp
}

/// Reads what comes until nothing does.
async fn answer(tcp: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    // A reset after the answer is an end too.
    while let Ok(Ok(count @ 1..)) = timeout(IN_TIME, tcp.read(&mut bytes)).await {
        answer.extend_from_slice(&bytes[..count]);
        if answer.ends_with(b"}") {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_without_end_is_given_up() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    // Slowly, a byte at a time: what it may take, and no longer.
    let slow = async {
        let (mut read, mut write) = chunked(&served).await.into_split();
        let begun = Instant::now();
        let drip = async {
            loop {
                if write.write_all(b"1\r\n \r\n").await.is_err() {
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        let told = tokio::select! {
            told = answer(&mut read) => told,
            () = drip => unreachable!("it never ends"),
        };
        assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("did not arrive within 10 s"), "{told}");
        assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    };
    // As much as it takes, which is not much above what a body may have.
    let large = async {
        let (mut read, mut write) = chunked(&served).await.into_split();
        let flood = async {
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while write.write_all(chunk.as_bytes()).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let told = tokio::select! {
            told = answer(&mut read) => told,
            () = flood => unreachable!("it never ends"),
        };
        assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("too_large"), "{told}");
    };
    tokio::join!(slow, large);
    assert_eq!(served.api.get("history?room=a").await.ok()["head"], 0);
    served.end().await;
    cluster.stop().await;
}

/// Before anything of ours is asked: a head that is too large is refused by what reads HTTP, without a body.
#[tokio::test]
async fn a_head_without_measure_is_refused_and_ends_its_connection_alone() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let many: String = (0..1_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1_000_000));
    for lines in [many, long] {
        let (mut read, mut write) = TcpStream::connect(served.api.address).await.unwrap().into_split();
        let head = format!("GET /v1/info HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n{lines}\r\n");
        // It may hear enough before all of it was sent.
        let ((), told) = tokio::join!(
            async { write.write_all(head.as_bytes()).await.unwrap_or_default() },
            answer(&mut read)
        );
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 431 "), "{told}");
    }
    assert_eq!(served.api.get("info").await.status, 200);
    served.end().await;
    cluster.stop().await;
}
