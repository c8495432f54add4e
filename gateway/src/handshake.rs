//! The upgrade from HTTP to WebSocket: bytes of a request in, bytes of a response out.
//!
//! Decides who may come in (path, Host, Origin, subprotocol, whether there is room) and finds the token. It does
//! not look into the token: logic does that after the upgrade. Pure; the shard reads, writes and keeps the
//! deadline.

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use sluice_lifecycle::Stage;
use sluice_proto::wire::{BEARER_SUBPROTOCOL, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};

use crate::defaults::{HANDSHAKE_BYTES_MAX, RETRY_AFTER_S};

/// Whether anybody may come in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everybody may come in.
    Open,
    /// No: this gateway stops.
    Draining(Stopping),
    /// No: `connections_max` is reached.
    Full,
}

/// How far the stop is that refuses an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    /// Where it stands, and in which state that is.
    pub stage: Stage,
    /// Seconds after which somebody serves here again, or elsewhere.
    pub retry_after_s: u64,
}

/// Which names may stand in a request, as the configuration has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Origins of pages, besides the gateway's own host.
    pub origins: &'a [String],
    /// What the gateway itself is called, without port; none: whatever it is called.
    pub hosts: &'a [String],
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The header is not complete.
    More,
    /// Send this, then close. `why` is one line for the log, without tokens.
    Refuse {
        /// The whole response.
        response: Vec<u8>,
        /// HTTP status.
        status: u16,
        /// Why, for the log.
        why: String,
    },
    /// Send this, then it is a WebSocket.
    Accept {
        /// The whole response.
        response: Vec<u8>,
        /// The token that came with the request.
        token: Option<String>,
        /// How many bytes the request had; what follows are frames.
        used: usize,
    },
}

/// Judges a request whose first bytes are `bytes`.
#[must_use]
pub fn judge(bytes: &[u8], admission: Admission, names: Names<'_>) -> Verdict {
    match Request::try_parse(bytes) {
        Ok(Some((used, request))) => match admit(&request, admission, names) {
            Ok((response, token)) => Verdict::Accept { response, token, used },
            Err(refusal) => refusal.into(),
        },
        Ok(None) if bytes.len() < HANDSHAKE_BYTES_MAX => Verdict::More,
        Ok(None) => {
            let body = format!("the request header is longer than {HANDSHAKE_BYTES_MAX} bytes");
            Refusal::new(431, "Request Header Fields Too Large", body).into()
        }
        Err(WsError::Protocol(ProtocolError::WrongHttpMethod)) => {
            let body = "only GET is understood here";
            Refusal::new(405, "Method Not Allowed", body).with("Allow", "GET").into()
        }
        Err(error) => Refusal::new(400, "Bad Request", error.to_string()).into(),
    }
}

struct Refusal {
    status: u16,
    reason: &'static str,
    headers: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: String,
}

impl Refusal {
    fn new(status: u16, reason: &'static str, body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, reason, headers: Vec::new(), content_type, body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Stopping> for Refusal {
    /// For programs: a balancer or a client that wants to know how long to stay away.
    fn from(stopping: Stopping) -> Self {
        let Stopping { stage, retry_after_s } = stopping;
        let body = serde_json::json!({
            "error": "this gateway stops",
            "state": stage.state().as_str(),
            "stage": stage.as_str(),
            "retry_after_s": retry_after_s,
        });
        let refusal = Self::new(503, "Service Unavailable", body.to_string());
        Self { content_type: "application/json", ..refusal.with("Retry-After", retry_after_s.to_string()) }
    }
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, reason, headers, content_type, body } = refusal;
        let mut text = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len() + 1;
        text.push_str(&format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"));
        text.push_str(&body);
        text.push('\n');
        Self::Refuse { response: text.into_bytes(), status, why: body }
    }
}

fn admit(
    request: &Request,
    admission: Admission,
    names: Names<'_>,
) -> Result<(Vec<u8>, Option<String>), Refusal> {
    let path = request.uri().path();
    if !matches!(path, "/" | "/ws") {
        let body = format!("nothing at {path:?}; connect to /ws");
        return Err(Refusal::new(404, "Not Found", body));
    }
    if !request.headers().contains_key(UPGRADE) {
        let body = "this is a WebSocket server: connect with a WebSocket client, for example `websocat ws://host:port/ws`, \
                    and send {\"sub\":\"news\"}";
        return Err(Refusal::new(426, "Upgrade Required", body).with("Upgrade", "websocket"));
    }
    admit_host(request.headers(), names.hosts)?;
    admit_origin(request.headers(), names.origins)?;
    match admission {
        Admission::Open => {}
        Admission::Draining(stopping) => return Err(stopping.into()),
        Admission::Full => return Err(come_back("this gateway has as many connections as it may have")),
    }
    let mut response = create_response(request).map_err(not_an_upgrade)?;
    let offered = Offer::read(request.headers());
    if offered.any {
        if !offered.ours {
            let body = format!("no known subprotocol offered; offer {SUBPROTOCOL} (or none)");
            return Err(Refusal::new(400, "Bad Request", body));
        }
        let name = http::HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    let token = bearer(request.headers()).or(offered.token);
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).map_err(not_an_upgrade)?;
    Ok((bytes, token))
}

fn come_back(body: &str) -> Refusal {
    Refusal::new(503, "Service Unavailable", body).with("Retry-After", RETRY_AFTER_S.to_string())
}

fn not_an_upgrade(error: WsError) -> Refusal {
    if matches!(error, WsError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)) {
        let body = "only version 13 of the WebSocket protocol is understood";
        return Refusal::new(426, "Upgrade Required", body).with(SEC_WEBSOCKET_VERSION_NAME, "13");
    }
    Refusal::new(400, "Bad Request", error.to_string())
}

/// As people write it; header names are case-insensitive.
const SEC_WEBSOCKET_VERSION_NAME: &str = "Sec-WebSocket-Version";

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A page whose name was made to point here after it was loaded (DNS rebinding) has an Origin that equals its Host: only
/// the name itself tells.
fn admit_host(headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    let called = text(headers, &HOST).unwrap_or_default();
    let once = headers.get_all(HOST).iter().count() == 1;
    let is_ours = |host: &String| host.eq_ignore_ascii_case(without_port(&called));
    if hosts.is_empty() || (once && hosts.iter().any(is_ours)) {
        return Ok(());
    }
    let body = format!(
        "{called:?} is no name of this gateway; connect to {}, or add the name to the setting `hosts` of the gateway",
        hosts.join(" or ")
    );
    Err(Refusal::new(421, "Misdirected Request", body))
}

/// `name` of `name` and of `name:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// No Origin: not a browser. Otherwise the gateway's own host, or an exact match of the list.
fn admit_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), Refusal> {
    let Some(origin) = text(headers, &ORIGIN) else { return Ok(()) };
    if headers.get_all(ORIGIN).iter().count() == 1 {
        let own = text(headers, &HOST).is_some_and(|host| {
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host.as_str())
        });
        if own || origins.contains(&origin) {
            return Ok(());
        }
    }
    let body = format!(
        "origin {origin:?} is not allowed; to allow it add it to the setting `origins` of the gateway, exactly as here"
    );
    Err(Refusal::new(403, "Forbidden", body))
}

/// What stands in `Sec-WebSocket-Protocol`.
#[derive(Default)]
struct Offer {
    any: bool,
    ours: bool,
    token: Option<String>,
}

impl Offer {
    fn read(headers: &HeaderMap) -> Self {
        let mut offer = Self::default();
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            let Ok(value) = value.to_str() else { continue };
            for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                offer.any = true;
                if entry == SUBPROTOCOL {
                    offer.ours = true;
                } else if let Some(token) = entry.strip_prefix(BEARER_SUBPROTOCOL) {
                    offer.token.get_or_insert_with(|| token.to_owned());
                }
            }
        }
        offer
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn refused(bytes: &[u8], admission: Admission, origins: &[String]) -> (u16, String) {
        let verdict = judge(bytes, admission, Names { origins, hosts: &[] });
        let Verdict::Refuse { response, status, .. } = verdict else { panic!("not refused: {verdict:?}") };
        (status, String::from_utf8(response).unwrap())
    }

    fn accepted(bytes: &[u8], origins: &[String]) -> (String, Option<String>) {
        let verdict = judge(bytes, Admission::Open, Names { origins, hosts: &[] });
        let Verdict::Accept { response, token, used } = verdict else { panic!("not accepted: {verdict:?}") };
        assert_eq!(used, bytes.len());
        (String::from_utf8(response).unwrap(), token)
    }

    #[test]
    fn a_plain_upgrade_is_accepted_in_whatever_pieces_it_comes() {
        let bytes = upgrade(&[]);
        for end in 0..bytes.len() {
            assert_eq!(judge(&bytes[..end], Admission::Open, Names::default()), Verdict::More);
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
    fn origins_match_exactly() {
        let list = vec!["https://app.example".to_owned()];
        for origin in ["https://app.example", "http://chat.example:8080"] {
            accepted(&upgrade(&[&format!("Origin: {origin}")]), &list);
        }
        for origin in ["null", "https://APP.example", "https://app.example.evil", "http://chat.example", ""] {
            let (status, response) =
                refused(&upgrade(&[&format!("Origin: {origin}")]), Admission::Open, &list);
            assert_eq!(status, 403, "{origin}");
            assert!(
                response.contains(&format!("{origin:?}")) && response.contains("`origins`"),
                "{response}"
            );
        }
    }

    #[test]
    fn where_names_are_listed_no_other_name_leads_here() {
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let names = Names { origins: &[], hosts: &hosts };
        let called = |host: &str| {
            // As a page of that name would: what it calls us is its own origin.
            let lines = format!("{}\r\nOrigin: http://{host}", UPGRADE_LINES.join("\r\n"));
            judge(
                format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n\r\n").as_bytes(),
                Admission::Open,
                names,
            )
        };
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(matches!(called(host), Verdict::Accept { .. }), "{host}");
        }
        let foreign =
            ["evil.example:8080", "127.0.0.1.evil.example", "localhost:evil", "x:127.0.0.1", "::1", ""];
        for host in foreign {
            let Verdict::Refuse { status, why, .. } = called(host) else { panic!("{host} was let in") };
            assert_eq!(status, 421, "{host}");
            assert!(
                why.contains(&format!("{host:?}")) && why.contains("localhost or") && why.contains("`hosts`")
            );
        }
        let twice = upgrade(&["Host: localhost"]);
        assert!(matches!(judge(&twice, Admission::Open, names), Verdict::Refuse { status: 421, .. }));
    }

    #[test]
    fn people_and_tools_get_a_helpful_answer() {
        assert_eq!(refused(&request(&[]), Admission::Open, &[]).0, 426);
        let stopping = Stopping { stage: Stage::Drain, retry_after_s: 4 };
        let (status, response) = refused(&upgrade(&[]), Admission::Draining(stopping), &[]);
        assert_eq!(status, 503);
        assert!(response.contains("Retry-After: 4\r\n") && response.contains("application/json"));
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["state"], &body["stage"]), (&"draining".into(), &"drain".into()), "{body}");
        assert_eq!(refused(&upgrade(&[]), Admission::Full, &[]).0, 503);
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
}
