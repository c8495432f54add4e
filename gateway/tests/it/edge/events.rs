//! Readers of server-sent events: sessions as others are, on another transport.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_gateway::config::Config;
use sluice_lifecycle::{Stage, StageOutcome};
use sluice_proto::grpc::ChangeKind;
use sluice_testing::eventually;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::event_reader::{Reader, address, answer};
use super::rig::{Client, Rig, SOON};

const NEWS: &str = "/sse?room=news";

/// Publishes and hears that it is stored.
async fn publish(client: &mut Client, room: &str, key: &str) {
    client.say(json!({"pub": room, "data": {"k": key}, "key": key})).await;
    assert_eq!(client.hear().await["ok"], "pub");
}

#[tokio::test]
async fn a_reader_hears_messages_and_resumes_where_it_was() {
    let rig = Rig::start(2, false).await;
    let mut writer = Client::connect(&rig).await;
    let mut reader = Reader::open(&rig, NEWS, &[]).await;
    let ok = reader.hears("ok").await;
    assert_eq!((&ok["ok"], &ok["after"], &ok["recovered"]), (&json!("sub"), &json!(0), &json!(true)));
    assert_eq!(reader.id, "0000000000000007:0", "also before any message");
    publish(&mut writer, "news", "one").await;
    let message = reader.hears("").await;
    assert_eq!((&message["msg"], &message["data"]["k"]), (&json!("news"), &json!("one")));
    assert_eq!(reader.id, "0000000000000007:1");
    for key in ["two", "three"] {
        publish(&mut writer, "news", key).await;
    }
    let mut reader = reader.resume(&rig, NEWS).await;
    let ok = reader.hears("ok").await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&json!(1), &json!(true)));
    assert_eq!(reader.seqs("news", 2).await, [2, 3]);
    assert_eq!(reader.id, "0000000000000007:3");
    // By hand: the seq alone.
    let mut by_hand = Reader::open(&rig, "/sse?room=news&last-event-id=2", &[]).await;
    by_hand.hears("ok").await;
    assert_eq!(by_hand.seqs("news", 1).await, [3]);
    assert!(rig.stop().await.is_clean());
}

#[tokio::test]
async fn another_history_is_told_also_to_who_is_there() {
    let rig = Rig::start(1, false).await;
    rig.logic.store("news", 5);
    let mut early = Reader::open(&rig, NEWS, &["Last-Event-ID: 00000000000000ff:3"]).await;
    let ok = early.hears("ok").await;
    assert_eq!((&ok["after"], &ok["recovered"]), (&json!(5), &json!(false)));
    assert_eq!(early.id, "0000000000000007:5");
    rig.logic.restore();
    let told = early.hears("ok").await;
    assert_eq!((&told["recovered"], &told["epoch"]), (&json!(false), &json!("0000000000000008")));
    assert_eq!(early.id, "0000000000000008:5");
    rig.stop().await;
}

#[tokio::test]
async fn what_retention_removed_is_an_event() {
    let rig = Rig::start(1, false).await;
    rig.logic.store("news", 10);
    rig.logic.trim(6);
    let mut reader = Reader::open(&rig, NEWS, &["Last-Event-ID: 2"]).await;
    assert_eq!(reader.hears("ok").await["recovered"], true);
    let skipped = reader.hears("skipped").await;
    assert_eq!((&skipped["from"], &skipped["to"]), (&json!(3), &json!(5)));
    assert_eq!(reader.id, "0000000000000007:5");
    assert_eq!(reader.seqs("news", 5).await, [6, 7, 8, 9, 10]);
    rig.stop().await;
}

/// Its id names all rooms, so that a browser, which keeps one, resumes all of them.
#[tokio::test]
async fn a_reader_of_several_rooms_resumes_each() {
    let rig = Rig::start(2, false).await;
    rig.logic.store("a b", 3);
    rig.logic.store("news", 5);
    let target = "/sse?room=news&room=a+b";
    let mut reader = Reader::open(&rig, target, &["Last-Event-ID: news=1,a%20b=1"]).await;
    let mut seqs = [Vec::new(), Vec::new()];
    while seqs[0].len() < 4 || seqs[1].len() < 2 {
        let event = reader.hear().await;
        if event.name.is_empty() {
            seqs[usize::from(event.data["msg"] == "a b")].push(event.data["seq"].as_u64().unwrap());
        }
    }
    assert_eq!(seqs, [vec![2, 3, 4, 5], vec![2, 3]]);
    let mut writer = Client::connect(&rig).await;
    publish(&mut writer, "a b", "k").await;
    assert_eq!(reader.seqs("a b", 1).await, [4]);
    // It stands behind what it is about, and may come with the next bytes.
    publish(&mut writer, "news", "k").await;
    assert_eq!(reader.seqs("news", 1).await, [6]);
    assert!(reader.id.ends_with("a%20b=4,news=5") || reader.id.ends_with("a%20b=4,news=6"), "{}", reader.id);
    let known = if reader.id.ends_with('6') { 6 } else { 5 };
    let mut again = reader.resume(&rig, target).await;
    for _ in 0..2 {
        let ok = again.hears("ok").await;
        let after = if ok["room"] == "news" { known } else { 4 };
        assert_eq!((&ok["after"], &ok["recovered"]), (&json!(after), &json!(true)), "{ok}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn who_may_not_read_a_room_or_is_nobody_has_an_answer_of_http() {
    let rig = Rig::start(1, false).await;
    rig.logic.grant(&["news"]);
    let refused = answer(&rig, "GET /sse?room=news&room=secret", &["Authorization: Bearer ann"]).await;
    assert!(
        refused.starts_with("HTTP/1.1 403 ") && refused.contains("\"secret\" needs grant sub"),
        "{refused}"
    );
    let refused = answer(&rig, &format!("GET {NEWS}"), &["Authorization: Bearer bad"]).await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("the token is bad"), "{refused}");
    let mut reader = Reader::open(&rig, NEWS, &["Authorization: Bearer ann"]).await;
    reader.hears("ok").await;
    rig.logic.refuse_anonymous();
    let refused = answer(&rig, &format!("GET {NEWS}"), &[]).await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("a token is needed"), "{refused}");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_request_for_a_stream_is_refused_with_what_to_do() {
    let rig = Rig::start(1, false).await;
    for (line, lines, status, why) in [
        ("HEAD /sse?room=news", "", "405", "Allow: GET"),
        ("POST /sse?room=news", "", "405", "Allow: GET"),
        ("DELETE /sse?room=news", "", "405", "Allow: GET"),
        ("GET /sse", "", "400", "name the room"),
        ("GET /sse?room=news", "Last-Event-ID: yesterday", "400", "cannot be read"),
        ("GET /sse?room=news", "Last-Event-ID: sport=1", "400", "not asked for"),
        ("GET /sse?room=news&token=ann", "", "400", "never stands in a URL"),
        ("GET /sse?room=news", "Content-Length: 3", "400", "no body"),
        ("GET /sse?room=news", "Origin: https://evil.example", "403", "`origins`"),
        ("GET /sses?room=news", "", "404", "/sse?room=news"),
    ] {
        let lines: Vec<&str> = if lines.is_empty() { Vec::new() } else { vec![lines] };
        let text = answer(&rig, line, &lines).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(why), "{line}: {text}");
        if line.starts_with("HEAD") {
            assert!(text.ends_with("\r\n\r\n"), "a body after HEAD: {text}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_page_that_is_let_in_may_read_the_answer() {
    let origins = vec!["https://app.example".to_owned()];
    let rig = Rig::with(Config { shards: 1, origins, ..Config::default() }, false).await;
    let (origin, allowed) =
        ("Origin: https://app.example", "Access-Control-Allow-Origin: https://app.example");
    let reader = Reader::open(&rig, NEWS, &[origin]).await;
    assert!(reader.head.contains(allowed) && reader.head.contains("Vary: Origin"), "{}", reader.head);
    for line in ["GET /sse?room=", "GET /sse?room=news&ticket=none"] {
        let refused = answer(&rig, line, &[origin]).await;
        assert!(refused.starts_with("HTTP/1.1 4") && refused.contains(allowed), "{refused}");
    }
    for (target, method) in [("/sse?room=news", "GET"), ("/ticket", "POST")] {
        let asks = [origin, "Access-Control-Request-Headers: authorization"];
        let preflight = answer(&rig, &format!("OPTIONS {target}"), &asks).await;
        assert!(preflight.starts_with("HTTP/1.1 204 ") && preflight.contains(allowed), "{preflight}");
        assert!(preflight.contains(&format!("Access-Control-Allow-Methods: {method}\r\n")), "{preflight}");
        assert!(preflight.contains("authorization"), "{preflight}");
        let foreign = answer(&rig, &format!("OPTIONS {target}"), &["Origin: https://evil.example"]).await;
        assert!(foreign.starts_with("HTTP/1.1 403 ") && !foreign.contains("Access-Control"), "{foreign}");
    }
    drop(reader);
    rig.stop().await;
}

/// Each has what was stored before the stop, is told why and when to come back, and a body that is whole.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_gateway_that_stops_have_their_last_record() {
    const READERS: usize = 200;
    let rig = Rig::start(2, true).await;
    let mut readers = Vec::new();
    for n in 0..READERS {
        let target = if n % 4 == 0 { "/sse?room=news&room=sport" } else { NEWS };
        let mut reader = Reader::open(&rig, target, &[]).await;
        for _ in 0..1 + usize::from(n % 4 == 0) {
            reader.hears("ok").await;
        }
        readers.push(reader);
    }
    let mut writer = Client::connect(&rig).await;
    publish(&mut writer, "news", "last").await;
    let stopping = tokio::spawn(rig.clone().stop());
    for (n, reader) in readers.iter_mut().enumerate() {
        assert_eq!(reader.seqs("news", 1).await, [1]);
        for (name, code) in [("drain", json!(null)), ("bye", json!(1012))] {
            let event = reader.hear().await;
            let said = &event.data[name];
            assert_eq!((event.name.as_str(), &said["code"]), (name, &code), "{said}");
            assert_eq!(event.retry_ms, said["reconnect_ms"].as_u64(), "as a browser is told");
        }
        reader.end().await;
        let id = if n % 4 == 0 { "0000000000000007:news=1,sport=0" } else { "0000000000000007:1" };
        assert_eq!(reader.id, id);
    }
    drop(writer);
    let report = stopping.await.unwrap();
    assert_eq!(report.outcome(Stage::Drain), Some(&StageOutcome::Done), "{report:?}");
}

/// No time for paced closes, and one whose token is still being looked at: an end in order all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_time_leaves_no_body_cut() {
    let mut config = Config { shards: 1, ..Config::default() };
    config.shutdown.stages.drain_ms = 0;
    let rig = Rig::with(config, true).await;
    let mut reader = Reader::open(&rig, NEWS, &[]).await;
    reader.hears("ok").await;
    rig.logic.hold_tokens(true);
    let waiting = {
        let rig = rig.clone();
        tokio::spawn(
            async move { answer(&rig, &format!("GET {NEWS}"), &["Authorization: Bearer ann"]).await },
        )
    };
    let asked = async || rig.logic.asked().0.concat().contains(&"ann".to_owned());
    eventually("its token is looked at", SOON, asked).await;
    rig.clone().stop().await;
    reader.hears("drain").await;
    assert_eq!(reader.hears("bye").await["bye"]["code"], 1012);
    reader.end().await;
    let refused = waiting.await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
}

/// By any other status a browser would give up for ever.
#[tokio::test]
async fn an_event_source_that_comes_too_late_is_told_when_to_come_back() {
    let rig = Rig::start(1, false).await;
    rig.around_closed();
    let by_hand = answer(&rig, &format!("GET {NEWS}"), &["Accept: */*"]).await;
    assert!(by_hand.starts_with("HTTP/1.1 503 ") && by_hand.contains("Retry-After: "), "{by_hand}");
    let mut reader = Reader::ask(&rig, NEWS, &["Accept: text/event-stream"]).await;
    assert!(reader.head.starts_with("HTTP/1.1 200 "), "{}", reader.head);
    let event = reader.hear().await;
    let bye = &event.data["bye"];
    assert_eq!((&bye["code"], &bye["reason"]), (&json!(1012), &json!("restart")));
    assert_eq!(event.retry_ms, bye["reconnect_ms"].as_u64());
    reader.end().await;
    rig.stop().await;
}

/// As with a WebSocket: it falls back to pages, at its own pace, and misses nothing.
#[tokio::test]
async fn who_reads_slowly_misses_nothing() {
    const MESSAGES: u64 = 300;
    let rig = Rig::start(1, false).await;
    let mut reader = Reader::open(&rig, NEWS, &[]).await;
    reader.hears("ok").await;
    let mut writer = Client::connect(&rig).await;
    let large = "x".repeat(40_000);
    for seq in 1..=MESSAGES {
        writer.say(json!({"pub": "news", "data": large, "key": format!("k{seq}")})).await;
        assert_eq!(writer.hear().await["seq"], seq);
    }
    let queued = rig.status()["queued_bytes"].as_u64().unwrap();
    assert!(queued < 1_000_000, "its queue is bounded: {queued}");
    let all: Vec<u64> = (1..=MESSAGES).collect();
    assert_eq!(reader.seqs("news", all.len()).await, all);
    publish(&mut writer, "news", "live").await;
    assert_eq!(reader.seqs("news", 1).await, [MESSAGES + 1]);
    rig.stop().await;
}

#[tokio::test]
async fn who_takes_no_byte_is_closed_and_resumes() {
    let rig = Rig::with(Config { shards: 1, slow_timeout_s: 1, ..Config::default() }, false).await;
    let mut reader = Reader::open(&rig, NEWS, &[]).await;
    reader.hears("ok").await;
    let mut writer = Client::connect(&rig).await;
    let large = "x".repeat(60_000);
    let mut stored = 0;
    while stored < 400 {
        stored += 1;
        writer.say(json!({"pub": "news", "data": large, "key": format!("k{stored}")})).await;
        assert_eq!(writer.hear().await["ok"], "pub");
    }
    eventually("it is closed", 2 * SOON, async || rig.status()["event_streams"] == 0).await;
    let mut seen = 0;
    for event in reader.rest().await.iter().filter(|event| event.name.is_empty()) {
        seen += 1;
        assert_eq!(event.data["seq"], seen, "contiguous to its end");
    }
    assert!((1..stored).contains(&seen), "{seen}");
    assert_eq!(reader.id, format!("0000000000000007:{seen}"));
    let mut again = reader.resume(&rig, NEWS).await;
    again.hears("ok").await;
    let rest: Vec<u64> = (seen + 1..=stored).collect();
    assert_eq!(again.seqs("news", rest.len()).await, rest);
    rig.stop().await;
}

#[tokio::test]
async fn silence_is_broken_by_comments_and_a_reader_is_counted_and_present() {
    let rig = Rig::with(Config { shards: 1, ping_every_s: 1, ..Config::default() }, false).await;
    let mut reader = Reader::open(&rig, NEWS, &["Authorization: Bearer ann"]).await;
    reader.hears("ok").await;
    eventually("it is counted", SOON, async || rig.status()["event_streams"] == 1).await;
    assert_eq!((&rig.status()["connections"], &rig.status()["subscriptions"]), (&json!(1), &json!(1)));
    let about = |kind: ChangeKind| {
        move |report: &sluice_proto::grpc::StatusRequest| {
            report.changes.iter().any(|change| change.kind() == kind && change.user == "ann")
        }
    };
    rig.logic.until_report(about(ChangeKind::Connected)).await;
    rig.logic.until_report(about(ChangeKind::Joined)).await;
    reader.until_comment().await;
    drop(reader);
    rig.logic.until_report(about(ChangeKind::Left)).await;
    rig.logic.until_report(about(ChangeKind::Disconnected)).await;
    eventually("it is gone", SOON, async || rig.status()["event_streams"] == 0).await;
    rig.stop().await;
}

/// What a client sends behind its request is thrown away, and costs nobody else.
#[tokio::test]
async fn what_a_reader_sends_is_for_nobody() {
    let rig = Rig::start(1, false).await;
    let lines = ["X-Pad: 1\r\n\r\nGET /sse?room=sport HTTP/1.1\r\nHost: a"];
    let mut reader = Reader::open(&rig, NEWS, &lines).await;
    reader.hears("ok").await;
    let mut writer = Client::connect(&rig).await;
    publish(&mut writer, "news", "k").await;
    assert_eq!(reader.seqs("news", 1).await, [1]);
    assert_eq!(rig.status()["connections"], 2);
    rig.stop().await;
}

/// The program that people try it with, where there is one: its exit says that the body was whole.
#[tokio::test]
async fn curl_reads_a_stream_to_its_end() {
    let rig = Rig::start(1, false).await;
    let url = format!("http://{}{NEWS}", address(&rig));
    let curl = Command::new("curl")
        .args(["-sS", "-N", "-H", "Authorization: Bearer ann", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut curl = match curl {
        Ok(curl) => curl,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return println!("There is no curl here.");
        }
        Err(error) => panic!("{error}"),
    };
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let mut until = async |part: &str| {
        let begun = Instant::now();
        loop {
            let line = timeout(SOON, lines.next_line()).await.expect("in time").unwrap().expect("a line");
            if line.contains(part) {
                return line;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{part}");
        }
    };
    until(r#"data: {"ok":"sub","room":"news""#).await;
    let mut writer = Client::connect(&rig).await;
    publish(&mut writer, "news", "k").await;
    until(r#"data: {"msg":"news","seq":1,"from":"anon-"#).await;
    let stopping = tokio::spawn(rig.stop());
    until("event: bye").await;
    let status = timeout(2 * SOON, curl.wait()).await.unwrap().unwrap();
    let mut said = String::new();
    curl.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert!(status.success(), "{status}: {said}");
    drop(writer);
    stopping.await.unwrap();
}
