//! Requests as clients, browsers, proxies and attackers send them.

use super::*;
use crate::defaults::HANDSHAKE_BYTES_MAX;

fn request(lines: &[&str]) -> Vec<u8> {
    let mut text = String::from("GET /ws HTTP/1.1\r\nHost: chat.example:8080\r\n");
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

const UPGRADE_LINES: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn upgrade(more: &[&str]) -> Vec<u8> {
    request(&[&UPGRADE_LINES[..], more].concat())
}

fn names(origins: &[&str], hosts: &[&str]) -> Names {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Names::read(&owned(origins), &owned(hosts)).unwrap()
}

fn judged(bytes: &[u8], admission: Admission, names: &Names) -> Verdict {
    judge(bytes, None, Rules { names, proxies: &Proxies::default(), admission })
}

fn refused(bytes: &[u8], admission: Admission, origins: &[&str]) -> (u16, String) {
    let verdict = judged(bytes, admission, &names(origins, &[]));
    let Verdict::Refuse { refusal, .. } = verdict else { panic!("not refused: {verdict:?}") };
    (refusal.status, String::from_utf8(refusal.response(0)).unwrap())
}

fn accepted(bytes: &[u8], origins: &[&str]) -> (String, Option<String>) {
    let verdict = judged(bytes, Admission::Open, &names(origins, &[]));
    let Verdict::Accept { response, token, used, .. } = verdict else { panic!("not accepted: {verdict:?}") };
    assert_eq!(used, bytes.len());
    (String::from_utf8(response).unwrap(), token)
}

#[test]
fn a_plain_upgrade_is_accepted_in_whatever_pieces_it_comes() {
    let bytes = upgrade(&[]);
    for end in 0..bytes.len() {
        assert_eq!(judged(&bytes[..end], Admission::Open, &Names::default()), Verdict::More);
    }
    let (response, token) = accepted(&bytes, &[]);
    assert!(response.starts_with("HTTP/1.1 101"), "{response}");
    assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(!response.to_lowercase().contains("protocol:"));
    assert_eq!(token, None);
}

#[test]
fn the_token_comes_by_header_or_subprotocol() {
    let (_, token) = accepted(&upgrade(&["Authorization: Bearer a.b.c"]), &[]);
    assert_eq!(token.as_deref(), Some("a.b.c"));
    let lines = ["Sec-WebSocket-Protocol: sluice.v1.json, bearer.d.e.f"];
    let (response, token) = accepted(&upgrade(&lines), &[]);
    assert_eq!(token.as_deref(), Some("d.e.f"));
    assert!(response.contains("sluice.v1.json") && !response.contains("d.e.f"));
    let (status, _) = refused(&upgrade(&["Sec-WebSocket-Protocol: graphql-ws"]), Admission::Open, &[]);
    assert_eq!(status, 400);
}

#[test]
fn origins_match_as_origins() {
    let list = ["https://app.example/"];
    for origin in ["https://app.example", "https://APP.example:443", "http://chat.example:8080"] {
        accepted(&upgrade(&[&format!("Origin: {origin}")]), &list);
    }
    for origin in ["null", "https://app.example:8443", "https://app.example.evil", "http://chat.example", ""]
    {
        let (status, response) = refused(&upgrade(&[&format!("Origin: {origin}")]), Admission::Open, &list);
        assert_eq!(status, 403, "{origin}");
        assert!(response.contains(&format!("{origin:?}")) && response.contains("`origins`"), "{response}");
    }
}

#[test]
fn where_names_are_listed_no_other_name_leads_here() {
    let names = names(&[], &["localhost", "127.0.0.1", "[::1]"]);
    let called = |host: &str| {
        // As a page of that name would: what it calls us is its own origin.
        let lines = format!("{}\r\nOrigin: http://{host}", UPGRADE_LINES.join("\r\n"));
        let text = format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n\r\n");
        judged(text.as_bytes(), Admission::Open, &names)
    };
    for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
        assert!(matches!(called(host), Verdict::Accept { .. }), "{host}");
    }
    let foreign = ["evil.example:8080", "127.0.0.1.evil.example", "localhost:evil", "x:127.0.0.1", "::1", ""];
    for host in foreign {
        let Verdict::Refuse { refusal, .. } = called(host) else { panic!("{host} was let in") };
        assert_eq!(refusal.status, 421, "{host}");
        let why = refusal.why;
        assert!(
            why.contains(&format!("{host:?}")) && why.contains("localhost or") && why.contains("`hosts`")
        );
    }
    assert_eq!(refused(&upgrade(&["Host: localhost"]), Admission::Open, &[]).0, 400, "two names");
}

#[test]
fn people_and_tools_get_a_helpful_answer() {
    assert_eq!(refused(&request(&[]), Admission::Open, &[]).0, 426);
    let stopping = Stopping { stage: Stage::Drain, retry_after_s: 4 };
    let (status, response) = refused(&upgrade(&[]), Admission::Draining(stopping), &[]);
    assert_eq!(status, 503);
    assert!(response.contains("Retry-After: 4") && response.contains("application/json"));
    let body: serde_json::Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["stage"], &body["retry_after_s"]), (&"drain".into(), &4.into()), "{body}");
    assert_eq!(refused(&upgrade(&[]), Admission::Full, &[]).0, 503);
    let (status, response) = refused(&upgrade(&[]), Admission::Drained, &[]);
    assert!(status == 503 && response.contains("Retry-After") && response.contains("operator"), "{response}");
    assert_eq!(refused(b"POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", Admission::Open, &[]).0, 405);
    assert_eq!(refused(b"GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n", Admission::Open, &[]).0, 404);
    assert_eq!(refused(b"\x16\x03\x01\x02\x00 hello", Admission::Open, &[]).0, 400);
    let old = request(&["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8"]);
    let (status, response) = refused(&old, Admission::Open, &[]);
    assert_eq!(status, 426);
    assert!(response.contains("Sec-WebSocket-Version: 13"));
    let long = format!("GET /ws HTTP/1.1\r\nCookie: {}", "x".repeat(HANDSHAKE_BYTES_MAX));
    assert_eq!(refused(long.as_bytes(), Admission::Open, &[]).0, 431);
}

fn plain(first: &str, lines: &[&str]) -> Vec<u8> {
    let lines = [&UPGRADE_LINES[..], lines].concat().join("\r\n");
    format!("{first}\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[test]
fn all_lines_of_a_header_count() {
    let lines = [&["Connection: keep-alive", "Connection: Upgrade"][..], &UPGRADE_LINES[1..]].concat();
    accepted(&request(&lines), &[]);
    let lines = [&["Connection: keep-alive"][..], &UPGRADE_LINES[1..]].concat();
    assert_eq!(refused(&request(&lines), Admission::Open, &[]).0, 400);
    let offers = ["Sec-WebSocket-Protocol: other", "Sec-WebSocket-Protocol: sluice.v1.json"];
    assert!(accepted(&upgrade(&offers), &[]).0.contains("sluice.v1.json"));
}

#[test]
fn requests_with_two_readings_are_refused() {
    for lines in [
        &["Transfer-Encoding: chunked"][..],
        &["Transfer-Encoding: chunked", "Content-Length: 5"],
        &["Content-Length: 5"],
        &["Content-Length: 0", "Content-Length: 5"],
        &["Host: b"],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    ] {
        assert_eq!(refused(&upgrade(lines), Admission::Open, &[]).0, 400, "{lines:?}");
    }
    accepted(&upgrade(&["Content-Length: 0"]), &[]);
    for first in ["GET http://a/ws HTTP/1.1", "GET ws://a/ws HTTP/1.1", "GET * HTTP/1.1", "GET a:80 HTTP/1.1"]
    {
        assert_eq!(refused(&plain(first, &[]), Admission::Open, &[]).0, 400, "{first}");
    }
    let good = String::from_utf8(plain("GET /ws HTTP/1.1", &[])).unwrap();
    accepted(good.as_bytes(), &[]);
    assert_eq!(refused(good.replace("\r\n", "\n").as_bytes(), Admission::Open, &[]).0, 400);
    let one = good.replacen("Host: a\r\n", "Host: a\n", 1);
    assert_eq!(refused(one.as_bytes(), Admission::Open, &[]).0, 400, "one line is enough");
    assert_eq!(refused(good.replace("Host: a\r\n", "").as_bytes(), Admission::Open, &[]).0, 400);
}

#[test]
fn versions_methods_and_paths_are_answered_as_the_standard_says() {
    for first in ["GET / HTTP/1.1", "GET /ws/ HTTP/1.1", "GET /ws?room=a HTTP/1.1", "GET /ws/?a HTTP/1.1"] {
        accepted(&plain(first, &[]), &[]);
    }
    for (first, status) in [
        ("GET /ws HTTP/1.0", 426),
        ("GET /other HTTP/1.0", 404),
        ("GET /ws HTTP/3.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("HEAD /ws HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 405),
        ("GET /wss HTTP/1.1", 404),
        ("GET /ws/x HTTP/1.1", 404),
    ] {
        let (found, response) = refused(&plain(first, &[]), Admission::Open, &[]);
        assert_eq!(found, status, "{first}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.is_empty(), first.starts_with("HEAD"), "{first}: {body}");
        assert!(status != 426 || head.contains("Upgrade: websocket"));
        assert!(status != 405 || head.contains("Allow: GET"));
    }
}
