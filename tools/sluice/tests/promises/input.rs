//! Bad input: a clear error or a close, and the connections of others stay untouched.

use sluice_client::raw::{ConnectError, Handshake, Socket};
use sluice_launcher::token::{self, Grants};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Ground, SOON, close_of, json, json_with, socket_of};

/// Frames with the error code each one gets; the connection goes on.
const REFUSED: [(&str, &str); 27] = [
    ("hello", "bad_frame"),
    ("{\"hello\":1}", "bad_frame"),
    ("{\"sub\":\"a\",\"unsub\":\"a\"}", "bad_frame"),
    ("[]", "bad_frame"),
    ("[null,\"news\"]", "bad_frame"),
    ("{\"sub\":17}", "bad_request"),
    ("{\"sub\":\"n\",\"after\":null}", "bad_request"),
    ("{\"sub\":\"n\",\"afetr\":0}", "bad_request"),
    ("{\"sub\":\"n\",\"before\":1}", "bad_request"),
    ("{\"sub\":\"chat*\"}", "bad_request"),
    ("{\"pub\":\"chat*\",\"data\":1}", "bad_request"),
    ("{\"pub\":\"a\",\"data\":\"\\ud800\"}", "bad_request"),
    ("{\"pub\":\"a\",\"data\":[1e999999]}", "bad_request"),
    ("{\"pub\":\"a\",\"data\":-1e309}", "bad_request"),
    ("{\"history\":\"a\",\"after\":1,\"before\":9}", "bad_request"),
    ("{\"presence\":\"a\",\"limit\":257}", "bad_request"),
    ("{\"pub\":\"@other\",\"data\":1}", "forbidden"),
    ("{\"history\":\"@other\"}", "forbidden"),
    ("{\"sub\":\"\"}", "bad_request"),
    ("{\"sub\":\"a\\u0000b\"}", "bad_request"),
    ("{\"pub\":\"a\\nb\",\"data\":1}", "bad_request"),
    ("{\"pub\":\"a\"}", "bad_request"),
    ("{\"pub\":\"a\",\"data\":1,\"key\":\"~mine\"}", "bad_request"),
    ("{\"pub\":\"a\",\"data\":1,\"key\":\"\"}", "bad_request"),
    ("{\"unsub\":\"never\"}", "not_subscribed"),
    ("{\"history\":\"a\",\"limit\":1000}", "bad_request"),
    ("{\"connect\":{\"token\":\"x\"}}", "bad_request"),
];

pub async fn bad_frames_are_answered_and_others_are_untouched<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let mut other = socket_of(&ground, "other", 0).await;
    other.send(r#"{"sub":"a"}"#).await.unwrap();
    assert_eq!(json(&mut other).await["ok"], "sub");

    let mut socket = socket_of(&ground, "ann", 0).await;
    for (frame, code) in REFUSED {
        socket.send(frame).await.unwrap();
        let error = json(&mut socket).await;
        assert_eq!(
            (&error["error"]["code"], &error["error"]["retry"]),
            (&code.into(), &false.into()),
            "{frame}: {error}"
        );
        assert!(error["error"]["message"].as_str().unwrap().len() > 10, "{frame}: {error}");
    }
    // Whoever waits for an answer hears it, whatever is wrong with the frame.
    let deep = format!(r#"{{"pub":"a","data":{}{},"id":7}}"#, "[".repeat(65), "]".repeat(65));
    for frame in [
        r#"{"sub":"r","after":"5","id":7}"#,
        r#"{"history":"r","limit":4294967296,"id":7}"#,
        r#"{"sub":"n","afetr":0,"id":7}"#,
        &deep,
    ] {
        socket.send(frame).await.unwrap();
        let error = json(&mut socket).await;
        assert_eq!((&error["error"]["code"], &error["id"]), (&"bad_request".into(), &7.into()), "{error}");
    }
    let large = format!(r#"{{"pub":"a","data":"{}","id":1}}"#, "x".repeat(64 * 1024));
    socket.send(large).await.unwrap();
    let error = json(&mut socket).await;
    assert_eq!((&error["error"]["code"], &error["id"]), (&"too_large".into(), &1.into()), "{error}");
    socket.send(r#"{"sub":"b"}"#).await.unwrap();
    assert_eq!(json(&mut socket).await["ok"], "sub");
    socket.send(r#"{"sub":"b","id":[1]}"#).await.unwrap();
    let error = json(&mut socket).await;
    assert_eq!(
        (&error["error"]["code"], &error["id"]),
        (&"already_subscribed".into(), &serde_json::json!([1]))
    );

    for _ in 0..10 {
        socket.send("nonsense").await.unwrap();
    }
    assert_eq!(close_of(&mut socket).await.0, 4502, "ten bad frames in a row");

    let mut binary = socket_of(&ground, "ann", 0).await;
    binary.send_binary(vec![1, 2, 3]).await.unwrap();
    assert_eq!(close_of(&mut binary).await.0, 1003);

    let mut huge = socket_of(&ground, "ann", 0).await;
    // The server may close before all of it is written.
    drop(huge.send("x".repeat(2 * 1024 * 1024)).await);
    assert_eq!(close_of(&mut huge).await.0, 1009);

    let mut sender = socket_of(&ground, "ann", 0).await;
    sender.send(r#"{"pub":"a","data":{"still":"here"}}"#).await.unwrap();
    let message = json(&mut other).await;
    assert_eq!((&message["msg"], &message["data"]["still"]), (&"a".into(), &"here".into()), "{message}");
    ground.stop().await;
}

pub async fn text_that_is_not_utf8_closes_with_1007<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let address = address_of(&ground.ws(0));
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // A masked text frame (mask 0) with the bytes C3 28.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.expect("closed in time").unwrap();
    let close = [0x03, 0xef];
    assert!(all.windows(2).any(|pair| pair == close), "close code 1007 in {all:?}");
    ground.stop().await;
}

/// The head and the body of the answer to a request, which has `HOST` where the address belongs.
async fn answer(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.replace("HOST", address).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(SOON, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    let (head, mut body) = (String::from_utf8(head).unwrap(), Vec::new());
    if !head.starts_with("HTTP/1.1 101") {
        tokio::time::timeout(SOON, stream.read_to_end(&mut body)).await.expect("an end in time").unwrap();
    }
    (head, String::from_utf8(body).unwrap())
}

pub async fn upgrades_are_read_as_the_standard_says_and_never_in_two_ways<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let address = address_of(&ground.ws(0));
    let lines =
        "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let good = format!("GET /ws HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\n{lines}\r\n");
    let with = |more: &str| good.replace("\r\n\r\n", &format!("\r\n{more}\r\n\r\n"));
    for (request, status) in [
        (good.clone(), 101),
        (good.replace("/ws", "/ws/"), 101),
        (good.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"), 101),
        (with("Origin: http://HOST"), 101),
        (with("Origin: http://evil.example"), 403),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
        (good.replace("\r\n", "\n").replace("\n\n", "\r\n\r\n"), 400),
        (good.replace("GET /ws", "GET http://HOST/ws"), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (good.replace("GET", "HEAD"), 405),
    ] {
        let (head, body) = answer(&address, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert_eq!(body.is_empty(), matches!(status, 101 | 405), "{request}: {body}");
    }
    ground.stop().await;
}

/// `host:port` of a URL.
pub fn address_of(url: &str) -> String {
    url.trim_start_matches("ws://").split('/').next().unwrap().to_owned()
}

pub async fn tokens_grants_and_origins_are_enforced<G: Ground>() {
    let ground = G::start(1, 1, 1).await;
    let url = ground.ws(0);

    let grants = Grants { sub: vec!["news.*".into()], publish: vec!["news.a".into()] };
    let limited = ground.token_with("ann", grants);
    let offer = Handshake::new(&url).subprotocol("sluice.v1.json").subprotocol(format!("bearer.{limited}"));
    let mut socket = Socket::connect(&offer).await.unwrap();
    assert_eq!(json(&mut socket).await["welcome"]["user"], "ann");
    for (frame, allowed) in [
        (r#"{"sub":"news.a"}"#, true),
        (r#"{"sub":"@ann"}"#, true),
        (r#"{"sub":"@bob"}"#, false),
        (r#"{"sub":"admin"}"#, false),
        (r#"{"history":"admin"}"#, false),
        (r#"{"presence":"admin"}"#, false),
        (r#"{"pub":"news.b","data":1}"#, false),
        (r#"{"pub":"news.a","data":1}"#, true),
    ] {
        socket.send(frame).await.unwrap();
        // The message itself may come before the answer to its publish.
        let answer = json_with(&mut socket, if allowed { "ok" } else { "error" }).await;
        assert!(allowed || answer["error"]["code"] == "forbidden", "{frame}: {answer}");
    }

    // Everybody has a room of their own, however long the name is.
    let longest = "u".repeat(128);
    let mut socket = socket_of(&ground, &longest, 0).await;
    socket.send(format!(r#"{{"sub":"@{longest}"}}"#)).await.unwrap();
    assert_eq!(json(&mut socket).await["ok"], "sub");

    for (bad, why) in [
        (
            token::mint("another secret, long enough to be one", "ann", Grants::default(), SOON).unwrap(),
            "signature",
        ),
        ("not.a.token".to_owned(), ""),
    ] {
        let mut socket = Socket::connect(&Handshake::new(&url).token(&bad)).await.unwrap();
        let error = json(&mut socket).await;
        assert_eq!(error["error"]["code"], "unauthorized", "{error}");
        assert!(error.to_string().to_lowercase().contains(why), "{error}");
        let bye = json(&mut socket).await;
        assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&4501.into(), &false.into()), "{bye}");
        assert_eq!(close_of(&mut socket).await.0, 4501);
    }

    let wrong = Handshake::new(&url).header("Origin", "https://evil.example");
    match Socket::connect(&wrong).await {
        Err(ConnectError::Status { status, body, .. }) => {
            assert_eq!(status, 403);
            assert!(body.contains("https://evil.example") && body.contains("origins"), "{body}");
        }
        other => panic!("a wrong origin was let in: {other:?}"),
    }
    let right = Handshake::new(&url).header("Origin", ground.origin());
    assert!(Socket::connect(&right).await.is_ok());
    ground.stop().await;
}
