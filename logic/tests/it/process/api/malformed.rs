//! Whatever strangers send: each gets a problem that says what is wrong, none a mistake of the server.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::kit::{Caller, KEY, Served};
use crate::stores::stores;

/// Method, path, content type, body; then status, code, and what its words hold.
type Case = (&'static str, &'static str, &'static str, Vec<u8>, u16, &'static str, &'static str);

const JSON: &str = "application/json";

fn bodies() -> Vec<Case> {
    let post = |path: &'static str, body: &str, code: &'static str, says: &'static str| -> Case {
        let status = match code {
            "too_large" => 413,
            _ => 400,
        };
        ("POST", path, JSON, body.as_bytes().to_vec(), status, code, says)
    };
    let publish = |body: &str, says| post("/v1/publish", body, "bad_request", says);
    let deep = format!(r#"{{"room":"a","data":{}1{}}}"#, "[".repeat(65), "]".repeat(65));
    let long = |room: usize, key: usize| {
        format!(r#"{{"room":"{}","data":1,"key":"{}"}}"#, "r".repeat(room), "k".repeat(key))
    };
    let large = |bytes: usize| format!(r#"{{"room":"a","data":"{}"}}"#, "x".repeat(bytes));
    let rooms = |count: usize| {
        json!({"data": 1, "rooms": (0..count).collect::<Vec<_>>().iter().map(|n| format!("r{n}")).collect::<Vec<_>>()}).to_string()
    };
    let messages = |count: usize, bytes: usize| {
        let message = json!({"room": "a", "data": "x".repeat(bytes)});
        json!({"messages": vec![message; count]}).to_string()
    };
    vec![
        publish("", "EOF"),
        publish("{", "EOF"),
        publish("[]", "cannot be read"),
        publish("null", "cannot be read"),
        publish("\"x\"", "cannot be read"),
        publish("{} {}", "cannot be read"),
        publish(r#"{"data":1}"#, "missing field `room`"),
        publish(r#"{"room":"a"}"#, "missing field `data`"),
        publish(r#"{"room":1,"data":1}"#, "string"),
        publish(r#"{"room":"a","room":"b","data":1}"#, "duplicate field"),
        publish(r#"{"room":"a","data":1,"keey":"k"}"#, "unknown field `keey`"),
        publish(r#"{"room":"a","data":1,"key":7}"#, "string"),
        publish(r#"{"room":"","data":1}"#, "empty"),
        publish(r#"{"room":"a\u0000","data":1}"#, "control"),
        publish(r#"{"room":"a*","data":1}"#, "*"),
        publish(r#"{"room":"a","data":1,"key":""}"#, "empty"),
        publish(r#"{"room":"a","data":1,"key":"~1"}"#, "~"),
        publish(r#"{"room":"a","data":1,"from":""}"#, "empty"),
        publish(r#"{"room":"a","data":1e999}"#, "larger than any number"),
        publish(r#"{"room":"a","data":"\ud800"}"#, "surrogate"),
        publish(r#"{"room":"a","data":NaN}"#, "cannot be read"),
        publish(&deep, "nested deeper"),
        publish(&long(130, 1), "129"),
        publish(&long(1, 129), "128"),
        post("/v1/publish", &large(65_536), "too_large", "65536"),
        post("/v1/publish", &large(200_000), "too_large", "131072"),
        post("/v1/broadcast", &rooms(0), "bad_request", "1…256"),
        post("/v1/broadcast", &rooms(257), "bad_request", "1…256"),
        post("/v1/broadcast", r#"{"rooms":["a","a"],"data":1}"#, "bad_request", "twice"),
        post("/v1/batch", &messages(0, 1), "bad_request", "1…256"),
        post("/v1/batch", &messages(257, 1), "bad_request", "1…256"),
        post("/v1/batch", &messages(20, 60_000), "too_large", "1048576"),
        post("/v1/batch", &messages(200, 20_000), "too_large", "2097152"),
        post("/v1/schedule", r#"{"room":"a","data":1}"#, "bad_request", "delay_ms"),
        post("/v1/schedule", r#"{"room":"a","data":1,"delay_ms":-1}"#, "bad_request", "cannot be read"),
        post("/v1/schedule", r#"{"room":"a","data":1,"delay_ms":2592000001}"#, "bad_request", "30 days"),
        post("/v1/schedule", r#"{"room":"a","data":1,"at":-1}"#, "bad_request", "out of range"),
        post("/v1/schedule", r#"{"room":"a","data":1,"at":9223372036854775807}"#, "bad_request", "30 days"),
        post("/v1/schedule", r#"{"room":"a","data":1,"at":1,"delay_ms":1}"#, "bad_request", "not both"),
        post("/v1/cancel", r#"{"room":"a"}"#, "bad_request", "missing field `key`"),
        post("/v1/disconnect", "{}", "bad_request", "missing field `user`"),
        post("/v1/disconnect", r#"{"user":""}"#, "bad_request", "empty"),
        post("/v1/disconnect", r#"{"user":"ann","room":"a"}"#, "bad_request", "unknown field `room`"),
        post("/v1/disconnect", r#"{"user":"ann","session":"7"}"#, "bad_request", "32 hex digits"),
        post("/v1/disconnect", r#"{"user":"ann","issued_until":-1}"#, "bad_request", "cannot be read"),
        post("/v1/disconnect", r#"{"user":"ann","issued_until":4294967295}"#, "bad_request", "ahead"),
        post(
            "/v1/disconnect",
            r#"{"user":"ann","keep_tokens":true,"issued_until":7}"#,
            "bad_request",
            "that are revoked",
        ),
        post("/v1/unsubscribe", "{}", "bad_request", "missing field `user`"),
        post("/v1/unsubscribe", r#"{"user":"ann","room":""}"#, "bad_request", "empty"),
        post("/v1/unsubscribe", r#"{"user":"ann","session":""}"#, "bad_request", "32 hex digits"),
        post("/v1/unsubscribe", r#"{"user":"ann","keep_tokens":true}"#, "bad_request", "unknown field"),
        (
            "POST",
            "/v1/publish",
            JSON,
            b"{\"room\":\"a\",\"data\":\"\xff\"}".to_vec(),
            400,
            "bad_request",
            "UTF-8",
        ),
        ("POST", "/v1/publish", "text/plain", b"{}".to_vec(), 415, "unsupported_media_type", "text/plain"),
    ]
}

fn questions() -> Vec<Case> {
    let get = |path: &'static str, says: &'static str| -> Case {
        ("GET", path, JSON, Vec::new(), 400, "bad_request", says)
    };
    vec![
        get("/v1/history", "room"),
        get("/v1/history?room=", "empty"),
        get("/v1/history?room=a&limit=0", "1…1000"),
        get("/v1/history?room=a&limit=1001", "1…1000"),
        get("/v1/history?room=a&limit=x", "invalid digit"),
        get("/v1/history?room=a&before=-1", "invalid digit"),
        get("/v1/history?room=a&before=1&after=1", "not both"),
        get("/v1/history?room=a&room=b", "duplicate field"),
        get("/v1/history?room=a&befor=1", "unknown field `befor`"),
        get("/v1/history?room=%00", "control"),
        get("/v1/export?room=a&after=18446744073709551616", "too large"),
        get("/v1/presence", "one of the two"),
        get("/v1/presence?room=a&user=b", "one of the two"),
        get("/v1/presence?room=a&limit=1001", "0…1000"),
        get("/v1/presence?room=a&after=%0a", "control"),
        get("/v1/rooms?prefix=%00", "control"),
        get("/v1/rooms?limit=0", "1…1000"),
        get("/v1/scheduled?room=a&after_key=k", "need each other"),
        ("GET", "/v1/disconnect", JSON, Vec::new(), 405, "method_not_allowed", "GET"),
        ("GET", "/v1/publish", JSON, Vec::new(), 405, "method_not_allowed", "GET"),
        ("DELETE", "/v1/rooms", JSON, Vec::new(), 405, "method_not_allowed", "DELETE"),
        ("GET", "/", JSON, Vec::new(), 404, "not_found", "openapi"),
        ("GET", "/v2/info", JSON, Vec::new(), 404, "not_found", "openapi"),
        ("POST", "/v1/publish/", JSON, Vec::new(), 404, "not_found", "openapi"),
    ]
}

#[tokio::test]
async fn every_malformed_request_is_told_what_is_wrong() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    for (method, path, kind, body, status, code, says) in bodies().into_iter().chain(questions()) {
        let shown = format!("{method} {path} {}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        let reply = served.api.send(method, path, &[("content-type", kind)], body).await;
        let problem = reply.problem();
        assert_eq!((reply.status, problem["code"].as_str()), (status, Some(code)), "{shown}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{shown}: {problem}");
    }
    // Nothing of it was stored, and it still works.
    assert_eq!(served.api.get("history?room=a").await.ok()["head"], 0);
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn every_bad_key_and_header_is_told_what_is_wrong() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let nobody = Caller { key: String::new(), ..served.api.clone() };
    let body = r#"{"room":"a","data":1}"#;
    let long = "x".repeat(4_000);
    for authorization in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic dGVzdDp0ZXN0",
        KEY,
        "Bearer sluice_test x",
        long.as_str(),
    ] {
        let reply = nobody.send("POST", "/v1/publish", &[("authorization", authorization)], body).await;
        assert_eq!(
            (reply.status, &reply.problem()["code"]),
            (401, &json!("unauthorized")),
            "{authorization}"
        );
        assert!(reply.header("www-authenticate").is_some());
    }
    let none = nobody.send("POST", "/v1/publish", &[], body).await;
    assert!(
        none.status == 401 && none.problem()["detail"].as_str().unwrap().contains("Authorization: Bearer")
    );
    let two = [("authorization", "Bearer sluice_test"), ("authorization", "Bearer sluice_test")];
    assert_eq!(nobody.send("GET", "/v1/info", &two, "").await.status, 401);
    let lower = [("authorization", "bearer sluice_test")];
    assert_eq!(nobody.send("GET", "/v1/info", &lower, "").await.status, 200, "schemes have no case");
    for (key, says) in [("", "empty"), ("\"\"", "empty"), (&*"k".repeat(129), "128"), ("~k", "~")] {
        let reply = served.api.send("POST", "/v1/publish", &[("idempotency-key", key)], body).await;
        let problem = reply.problem();
        assert!(reply.status == 400 && problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let both = r#"{"room":"a","data":1,"key":"k1"}"#;
    let reply = served.api.send("POST", "/v1/publish", &[("idempotency-key", "k2")], both).await;
    assert!(reply.status == 400 && reply.problem()["detail"].as_str().unwrap().contains("differ"));
    // An id of the caller comes back, unless it is none to be shown.
    let ids = served.api.send("GET", "/v1/info", &[("x-request-id", "my-1")], "").await;
    assert_eq!(ids.header("x-request-id"), Some("my-1"));
    let fresh = served.api.send("GET", "/v1/info", &[("x-request-id", "a b")], "").await;
    assert_eq!(fresh.header("x-request-id").map(str::len), Some(32));
    assert_eq!(served.api.get("history?room=a").await.ok()["head"], 0);
    served.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection_and_nothing_else() {
    let cluster = stores().await;
    let served = Served::start(&cluster, &[]).await;
    let nonsense: [&[u8]; 7] = [
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/1.0\r\n\r\n",
        b"GET /v1/info HTTP/9.9\r\n\r\n",
        b"GET /v1/info HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/publish HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ];
    for bytes in nonsense {
        let mut tcp = TcpStream::connect(served.api.address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end too.
        let ended = timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it ends: {bytes:?}");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.0 4"),
            "{answer:?}"
        );
    }
    // A body that ends too early is nobody's message.
    let mut tcp = TcpStream::connect(served.api.address).await.unwrap();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(br#"{"room":"a","data":1}"#).await.unwrap();
    drop(tcp);
    assert_eq!(served.api.get("history?room=a").await.ok()["head"], 0);
    served.end().await;
    cluster.stop().await;
}
