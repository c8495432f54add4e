//! The client against scripted gateways: what it does when it is drained, cut off, fenced, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod tls;
mod tokens;
mod vectors;

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sluice_client::{Client, Error, Event, Events, Options, Position, Stored};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A gateway whose every word is in the test.
struct Gateway(TcpListener);

impl Gateway {
    async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.0.local_addr().unwrap())
    }

    async fn accept(&self) -> Session {
        let (stream, _) = self.0.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        welcome(&mut socket).await;
        Session(socket)
    }
}

/// Says `welcome`, over whatever the connection is made of.
async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    let limits = json!({"frame_bytes": 1, "data_bytes": 1, "name_bytes": 1, "rooms": 1});
    let said = json!({"welcome": {"session": "s", "instance": "g", "user": "ann", "epoch": "000000000000001f", "ping_s": 25, "limits": limits}});
    socket.send(Message::text(said.to_string())).await.unwrap();
}

struct Session(WebSocketStream<TcpStream>);

impl Session {
    async fn say(&mut self, value: Value) {
        self.0.send(Message::text(value.to_string())).await.unwrap();
    }

    /// The next text frame; a close is `{"close": code}`. A client without a token asks with a ping
    /// whether it is let in: a server that lets it in needs no answer to that.
    async fn hear(&mut self) -> Value {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame.get("ping").is_none() || frame["id"] != 0 {
                        return frame;
                    }
                }
                Message::Close(frame) => return json!({"close": frame.map(|frame| u16::from(frame.code))}),
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn bye(mut self, code: u16, reconnect: bool) {
        self.say(
            json!({"bye": {"code": code, "reason": "because", "reconnect": reconnect, "reconnect_ms": 1}}),
        )
        .await;
        let frame = CloseFrame { code: code.into(), reason: "because".into() };
        self.0.close(Some(frame)).await.unwrap();
        while self.0.next().await.is_some() {}
    }

    async fn confirm(&mut self, after: u64) -> Value {
        let sub = self.hear().await;
        assert_eq!(sub["sub"], "news", "{sub}");
        self.say(json!({"ok": "sub", "room": "news", "after": after, "head": after, "epoch": "000000000000001f", "recovered": true, "id": sub["id"]})).await;
        sub
    }
}

async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let event = events.next().await.expect("the client ended");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("it did not happen")
}

fn quick(options: Options) -> Options {
    options.backoff(Duration::from_millis(1), Duration::from_millis(20))
}

/// Answers one upgrade with this status, and tells when it came.
async fn refuse(gateway: &Gateway, status: &str) -> Instant {
    let (mut stream, _) = gateway.0.accept().await.unwrap();
    let came = Instant::now();
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    let response = format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(response.as_bytes()).await.unwrap();
    came
}

#[tokio::test]
async fn a_gateway_that_says_when_is_not_asked_before() {
    let gateway = Gateway::bind().await;
    let connecting = Client::connect(quick(Options::new(gateway.url())));
    let (connected, session) = tokio::join!(connecting, gateway.accept());
    let (_client, mut events) = connected.unwrap();
    session.bye(1012, true).await;
    let mut before = refuse(&gateway, "503 Service Unavailable").await;
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let came = refuse(&gateway, status).await;
        assert!(came - before >= Duration::from_secs(1), "after {:?}", came - before);
        before = came;
    }
    gateway.accept().await;
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
}

#[tokio::test]
async fn another_gateway_is_asked_at_once() {
    let (first, second) = (Gateway::bind().await, Gateway::bind().await);
    let options = quick(Options::new(first.url()).or(second.url()));
    let (connected, session) = tokio::join!(Client::connect(options), first.accept());
    let (_client, mut events) = connected.unwrap();
    session.bye(1012, true).await;
    let refused = refuse(&second, "503 Service Unavailable").await;
    first.accept().await;
    assert!(refused.elapsed() < Duration::from_secs(1), "{:?}", refused.elapsed());
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
}

/// Its reader is behind, so that it writes into a connection whose end it has not read.
#[tokio::test]
async fn last_words_are_heard_although_nothing_can_be_written_any_more() {
    let gateway = Gateway::bind().await;
    let options = quick(Options::new(gateway.url())).events_max(1);
    let (connected, mut session) = tokio::join!(Client::connect(options), gateway.accept());
    let (client, mut events) = connected.unwrap();
    let error = json!({"error": {"code": "bad_request", "message": "m", "retry": false}});
    for _ in 0..4 {
        session.say(error.clone()).await;
    }
    client.submit("news", "first", &1).await.unwrap();
    assert_eq!(session.hear().await["key"], "first");
    session
        .say(json!({"bye": {"code": 1012, "reason": "because", "reconnect": true, "reconnect_ms": 1}}))
        .await;
    client.submit("news", "second", &2).await.unwrap();
    // It ends with the second unread: the connection is reset, and writes to it fail.
    session.0.get_ref().readable().await.unwrap();
    drop(session);
    let publishing = async {
        for n in 0..200 {
            client.submit("news", &format!("k{n}"), &n).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    publishing.await;
    let bye = until(&mut events, |event| matches!(event, Event::Bye(_) | Event::Closed { .. })).await;
    assert!(matches!(bye, Event::Bye(_)), "{bye:?}");
    gateway.accept().await;
}

#[tokio::test]
async fn a_drained_client_moves_before_the_old_connection_ends() {
    let (first, second) = (Gateway::bind().await, Gateway::bind().await);
    let options = quick(Options::new(first.url()).or(second.url()));
    let (connected, mut old) = tokio::join!(Client::connect(options), first.accept());
    let (client, mut events) = connected.unwrap();
    let (subscribed, _) = tokio::join!(client.subscribe("news", Position::After(41)), old.confirm(41));
    assert_eq!(subscribed.unwrap().after, 41);

    let receipts =
        [client.submit("news", "a", &1).await.unwrap(), client.submit("news", "b", &2).await.unwrap()];
    let sent = [old.hear().await, old.hear().await];
    assert_eq!((&sent[0]["key"], &sent[1]["key"]), (&json!("a"), &json!("b")));
    old.say(json!({"msg": "news", "seq": 42, "from": "bob", "at": 1, "data": 0})).await;
    old.say(json!({"drain": {"reason": "restart", "within_ms": 6000, "reconnect_ms": 5}})).await;

    let mut new = second.accept().await;
    let sub = new.confirm(42).await;
    assert_eq!((&sub["after"], &sub["epoch"]), (&json!(42), &json!("000000000000001f")));
    let again = [new.hear().await, new.hear().await];
    assert_eq!((&again[0], &again[1]), (&sent[0], &sent[1]), "the same frames, in order");
    // the first final answer counts, whoever gives it
    old.say(json!({"ok": "pub", "room": "news", "seq": 43, "key": "a", "id": sent[0]["id"]})).await;
    new.say(json!({"ok": "pub", "room": "news", "seq": 43, "key": "a", "id": sent[0]["id"]})).await;
    new.say(json!({"ok": "pub", "room": "news", "seq": 44, "key": "b", "id": sent[1]["id"]})).await;
    let [a, b] = receipts;
    assert_eq!(a.outcome().await.unwrap(), Stored { seq: 43, key: "a".into() });
    assert_eq!(b.outcome().await.unwrap().seq, 44);
    // what the old one still delivers is the new one's to deliver
    old.say(json!({"msg": "news", "seq": 43, "from": "ann", "at": 1, "data": 1})).await;
    new.say(json!({"msg": "news", "seq": 43, "from": "ann", "at": 1, "data": 1})).await;
    assert_eq!(old.hear().await, json!({"close": 1000}));
    let seen =
        until(&mut events, |event| matches!(event, Event::Message(message) if message.seq == 43)).await;
    assert!(matches!(seen, Event::Message(_)));
    drop(client);
}

#[tokio::test]
async fn a_fenced_client_comes_back_and_sends_everything_again_in_order() {
    let gateway = Gateway::bind().await;
    let (connected, mut session) =
        tokio::join!(Client::connect(quick(Options::new(gateway.url()))), gateway.accept());
    let (client, mut events) = connected.unwrap();
    let mut receipts = Vec::new();
    let mut ids = Vec::new();
    for key in ["a", "b", "c"] {
        receipts.push(client.submit("news", key, &1).await.unwrap());
        ids.push(session.hear().await["id"].clone());
    }
    session.say(json!({"error": {"code": "unavailable", "message": "m", "retry": true}, "id": ids[0]})).await;
    session.say(json!({"ok": "pub", "room": "news", "seq": 1, "id": ids[1]})).await;
    let ((), mut session) = tokio::join!(session.bye(4001, true), gateway.accept());
    let closed = until(&mut events, |event| matches!(event, Event::Closed { .. })).await;
    assert!(matches!(closed, Event::Closed { code: Some(4001), reconnects: true, .. }), "{closed:?}");
    receipts.push(client.submit("news", "d", &1).await.unwrap());
    for (seq, key) in [(2, "a"), (3, "c"), (4, "d")] {
        let frame = session.hear().await;
        assert_eq!(frame["key"], key);
        session.say(json!({"ok": "pub", "room": "news", "seq": seq, "id": frame["id"]})).await;
    }
    let mut seqs = Vec::new();
    for receipt in receipts {
        seqs.push(receipt.outcome().await.unwrap().seq);
    }
    assert_eq!(seqs, [2, 1, 3, 4]);
}

#[tokio::test]
async fn a_client_that_is_not_wanted_ends_and_says_so() {
    let gateway = Gateway::bind().await;
    let (connected, mut session) =
        tokio::join!(Client::connect(quick(Options::new(gateway.url()))), gateway.accept());
    let (client, mut events) = connected.unwrap();
    let receipt = client.submit("news", "a", &1).await.unwrap();
    session.hear().await;
    session.bye(4501, false).await;
    assert!(matches!(receipt.outcome().await, Err(Error::Refused(reason)) if reason == "because"));
    until(&mut events, |event| matches!(event, Event::Closed { reconnects: false, .. })).await;
    while events.next().await.is_some() {}
    assert!(matches!(client.ping().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_broken_connection_is_replaced_and_requests_on_it_fail() {
    let gateway = Gateway::bind().await;
    let (connected, mut session) =
        tokio::join!(Client::connect(quick(Options::new(gateway.url()))), gateway.accept());
    let (client, mut events) = connected.unwrap();
    let asked = client.clone();
    let (answer, ()) = tokio::join!(asked.ping(), async {
        session.hear().await;
        drop(session);
    });
    assert!(matches!(answer, Err(Error::Disconnected)));
    let mut session = gateway.accept().await;
    until(&mut events, |event| matches!(event, Event::Closed { code: None, reconnects: true, .. })).await;
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
    let (answer, ()) = tokio::join!(client.ping(), async {
        let id = session.hear().await["id"].clone();
        session.say(json!({"ok": "ping", "id": id})).await;
    });
    answer.unwrap();
    let (_, goodbye) = tokio::join!(client.close(), session.hear());
    assert_eq!(goodbye, json!({"close": 1000}));
}

#[tokio::test]
async fn gateways_that_change_are_followed_and_every_attempt_is_told() {
    let (first, second) = (Gateway::bind().await, Gateway::bind().await);
    let (urls, follow) = tokio::sync::watch::channel(vec![first.url()]);
    let options = quick(Options::new(first.url())).follow(follow).detailed();
    let (connected, session) = tokio::join!(Client::connect(options), first.accept());
    let (client, mut events) = connected.unwrap();
    urls.send_replace(vec![second.url()]);
    let gone = first.url();
    drop((first, session));
    let session = second.accept().await;
    for (wanted, failed) in [(gone, false), (second.url(), false)] {
        let event = until(&mut events, |event| matches!(event, Event::Dialled { .. })).await;
        assert!(
            matches!(&event, Event::Dialled { url, failed: why } if *url == wanted && why.is_some() == failed),
            "{event:?}"
        );
        until(&mut events, |event| matches!(event, Event::Connected(_))).await;
    }
    urls.send_replace(vec!["ws://127.0.0.1:1/ws".into()]);
    drop((second, session));
    until(
        &mut events,
        |event| matches!(event, Event::Dialled { url, failed: Some(_) } if url.contains(":1/")),
    )
    .await;
    drop(client);
}

/// One never answers the handshake, one never says `welcome`; in time the next one is asked.
#[tokio::test]
async fn a_gateway_that_says_nothing_is_given_up_in_time() {
    let within = Duration::from_millis(300);
    let (mute, wordless, third) = (Gateway::bind().await, Gateway::bind().await, Gateway::bind().await);
    let options = |url: String| quick(Options::new(url)).connect_timeout(within);
    let began = Instant::now();
    let Err(Error::Connect { url, reason }) = Client::connect(options(mute.url())).await else {
        panic!("it cannot be connected")
    };
    assert_eq!((url, reason.contains("no welcome within 300ms")), (mute.url(), true), "{reason}");
    assert!((within..within + Duration::from_secs(2)).contains(&began.elapsed()), "{:?}", began.elapsed());

    let options = options(third.url()).or(mute.url()).or(wordless.url());
    let (connected, session) = tokio::join!(Client::connect(options), third.accept());
    let (_client, mut events) = connected.unwrap();
    session.bye(1012, true).await;
    let (stream, _) = wordless.0.accept().await.unwrap();
    let _unwelcomed = tokio_tungstenite::accept_async(stream).await.unwrap();
    let _session = third.accept().await;
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
}

#[tokio::test]
async fn an_address_that_makes_no_sense_is_an_error_at_once() {
    for url in ["http://127.0.0.1:1/ws", "wss://127.0.0.1:1/ws", "", "ws://127.0.0.1:1/ws"] {
        assert!(matches!(Client::connect(Options::new(url)).await, Err(Error::Connect { .. })), "{url}");
    }
}
