//! Who may come in, how many, how fast: refused by HTTP before the upgrade, not read after it.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::json;
use sluice_gateway::config::{Config, ConnectionLimits, Limits, PartyLimits};
use sluice_gateway::defaults::CONNECT_WITHIN;
use sluice_proto::wire::close;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::rig::{Client, Rig, SOON};

const NO_LIMIT: PartyLimits = PartyLimits {
    connections: 0,
    handshakes_per_s: 0,
    publishes_per_s: 0,
    subscribes_per_s: 0,
    new_rooms_per_s: 0,
    questions_per_s: 0,
    history_bytes: 0,
    history_bytes_per_s: 0,
};

fn limited(change: impl FnOnce(&mut Limits)) -> Config {
    let connection = ConnectionLimits { other_frames_per_s: 0 };
    let mut limits = Limits {
        handshakes_per_s: 0,
        opened_rooms_per_s: 0,
        scheduled_per_user: 0,
        connection,
        user: NO_LIMIT,
        address: NO_LIMIT,
    };
    change(&mut limits);
    Config { shards: 1, limits, ..Config::default() }
}

/// Sends `before` and an upgrade with these lines, keeps the socket, and gives the head of the response.
async fn upgrade(rig: &Rig, before: &[u8], lines: &str) -> (TcpStream, String) {
    let address = rig.url.trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    );
    stream.write_all(&[before, request.as_bytes()].concat()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn retry_after(head: &str) -> Option<u64> {
    head.lines().find_map(|line| line.strip_prefix("Retry-After: ")).map(|value| value.parse().unwrap())
}

/// Version 2 of the PROXY protocol: this client, by whatever port.
fn proxied(client: [u8; 4]) -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [&fixed[..], &client, &[10, 0, 0, 1], &4711_u16.to_be_bytes(), &80_u16.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_crowd_is_told_when_to_come_back_and_nobody_who_is_in_notices() {
    let rig = Rig::with(limited(|limits| limits.handshakes_per_s = 2), false).await;
    let mut inside = Client::connect(&rig).await;
    let mut told = Vec::new();
    for _ in 0..14 {
        let (_stream, head) = upgrade(&rig, b"", "").await;
        match status(&head) {
            101 => {}
            503 => told.extend(retry_after(&head)),
            other => panic!("{other}"),
        }
    }
    assert!(told.len() >= 6 && told.is_sorted() && told.last() > told.first(), "{told:?}");
    inside.say(json!({"ping": 1, "id": 1})).await;
    assert_eq!(inside.hear().await, json!({"ok": "ping", "id": 1}));
    rig.stop().await;
}

#[tokio::test]
async fn an_address_is_what_a_trusted_proxy_says() {
    let trusted = || vec!["127.0.0.1".to_owned()];
    let one_each = limited(|limits| limits.address.connections = 1);
    let rig = Rig::with(Config { trusted_proxies: trusted(), ..one_each.clone() }, false).await;
    let (_ann, head) = upgrade(&rig, &proxied([192, 0, 2, 1]), "").await;
    assert_eq!(status(&head), 101);
    let (_again, head) = upgrade(&rig, &proxied([192, 0, 2, 1]), "").await;
    assert_eq!((status(&head), retry_after(&head).is_some()), (429, true), "{head}");
    let (_again, head) = upgrade(&rig, b"", "X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n").await;
    assert_eq!(status(&head), 429, "the same client by another way");
    for n in 2..5 {
        let (stream, head) = upgrade(&rig, b"", &format!("Forwarded: for=192.0.2.{n}\r\n")).await;
        assert_eq!(status(&head), 101);
        drop(stream);
    }
    // Nobody is counted together with all others behind a proxy that says nothing.
    let silent = [upgrade(&rig, b"", "").await, upgrade(&rig, b"", "").await];
    assert!(silent.iter().all(|(_, head)| status(head) == 101));
    rig.stop().await;

    let rig = Rig::with(one_each, false).await;
    let (_stream, head) = upgrade(&rig, &proxied([192, 0, 2, 1]), "").await;
    assert_eq!(status(&head), 400, "nobody has to be believed");
    let (_one, head) = upgrade(&rig, b"", "X-Forwarded-For: 192.0.2.1\r\n").await;
    assert_eq!(status(&head), 101);
    let (_two, head) = upgrade(&rig, b"", "X-Forwarded-For: 192.0.2.2\r\n").await;
    assert_eq!(status(&head), 429);
    rig.stop().await;
}

#[tokio::test]
async fn a_place_is_free_again_when_its_connection_has_ended() {
    let rig = Rig::with(limited(|limits| limits.address.connections = 1), false).await;
    for _ in 0..5 {
        Client::connect(&rig).await.goodbye().await;
        let again = async {
            while status(&upgrade(&rig, b"", "").await.1) != 101 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, again).await.expect("a free place");
        // That one has gone without a word.
        let gone = async {
            while rig.status()["connections"] != 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, gone).await.expect("nobody is here");
    }
    rig.stop().await;
}

#[tokio::test]
async fn publishes_above_the_rate_wait_and_none_is_refused() {
    let rig = Rig::with(limited(|limits| limits.user.publishes_per_s = 100), false).await;
    let mut client = Client::connect(&rig).await;
    let mut other = Client::connect(&rig).await;
    let began = Instant::now();
    // Those of a quarter of a second may come at once.
    for n in 0..125 {
        client.say(json!({"pub": "news", "data": n, "id": n})).await;
    }
    // Somebody else is not held up.
    other.say(json!({"pub": "other", "data": 1, "id": "other"})).await;
    assert_eq!(other.hear().await["id"], "other");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    for n in 0..125 {
        let answer = client.hear().await;
        assert_eq!((&answer["ok"], &answer["id"]), (&json!("pub"), &json!(n)), "{answer}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "100 more than come at once, at 100/s: {took:?}");
    rig.stop().await;
}

#[tokio::test]
async fn who_makes_too_many_rooms_waits() {
    let rig = Rig::with(limited(|limits| limits.user.new_rooms_per_s = 4), false).await;
    let mut client = Client::connect(&rig).await;
    let began = Instant::now();
    let room = async |client: &mut Client, room: &str| {
        client.say(json!({"pub": room, "data": 1, "id": room})).await;
        assert_eq!(client.hear().await["ok"], "pub");
    };
    for n in 0..24 {
        room(&mut client, &format!("room-{n}")).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(700), "4 above the burst: {:?}", began.elapsed());
    rig.stop().await;

    let rig = Rig::with(limited(|limits| limits.user.new_rooms_per_s = 4), false).await;
    let mut client = Client::connect(&rig).await;
    let began = Instant::now();
    for _ in 0..24 {
        room(&mut client, "one room").await;
    }
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
    rig.stop().await;
}

/// Before `welcome` one mistake is answered; the second ends the connection.
#[tokio::test]
async fn who_does_not_connect_first_is_sent_away() {
    let rig = Rig::with(limited(|_| {}), false).await;
    rig.logic.refuse_anonymous();
    let mut client = Client::unwelcomed(&rig.url).await;
    client.say(json!({"sub": "news", "id": 1})).await;
    let error = client.hear().await;
    assert_eq!((&error["error"]["code"], &error["id"]), (&json!("unauthorized"), &json!(1)));
    client.send(Message::text("hello")).await;
    assert_eq!(client.hear().await["error"]["code"], "bad_frame");
    let bye = client.hear().await;
    assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&json!(4501), &json!(false)));
    assert_eq!(client.end().await.unwrap().0, close::UNAUTHORIZED);
    rig.stop().await;
}

/// Who says nothing at all is told why it is sent away, and that it may come back.
#[tokio::test]
async fn who_never_connects_is_sent_away_in_time() {
    let rig = Rig::with(limited(|_| {}), false).await;
    rig.logic.refuse_anonymous();
    let began = Instant::now();
    let mut client = Client::unwelcomed(&rig.url).await;
    let first = timeout(CONNECT_WITHIN + SOON, client.0.next()).await.expect("a word in time");
    let Some(Ok(Message::Text(text))) = first else { panic!("{first:?}") };
    // Times are counted in ticks of a tenth of a second.
    assert!(began.elapsed() + Duration::from_millis(200) >= CONNECT_WITHIN, "{:?}", began.elapsed());
    let bye: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bye["bye"]["code"], &bye["bye"]["reconnect"]), (&json!(4005), &json!(true)), "{bye}");
    assert_eq!(client.end().await.unwrap().0, close::CONNECT_TIMEOUT);
    rig.stop().await;
}

/// Pings are frames too, and halves of frames.
#[tokio::test]
async fn who_floods_before_welcome_is_not_read_for_long() {
    let rig = Rig::with(limited(|_| {}), false).await;
    rig.logic.refuse_anonymous();
    let mut client = Client::unwelcomed(&rig.url).await;
    let mut sent = 0;
    let flood = async {
        while client.0.send(Message::Ping(vec![b'x'; 125].into())).await.is_ok() {
            sent += 131;
        }
    };
    timeout(SOON, flood).await.expect("the connection ends");
    assert!(sent < 32 * 1024 * 1024, "what buffers of the system take: {sent}");
    while let Ok(Some(Ok(_))) = timeout(SOON, client.0.next()).await {}
    rig.stop().await;
}
