//! The upgrade from HTTP to WebSocket: bytes of a request in, bytes of a response out.
//!
//! Decides who may come in (path, Host, Origin, subprotocol, whether there is room) and finds the token and where the
//! client comes from. It does not look into the token: logic does that after the upgrade. Pure; the shard reads,
//! writes and keeps the deadline.

mod head;
mod names;
mod proxies;
mod refusal;

use std::net::IpAddr;

use http::Method;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use sluice_lifecycle::Stage;
use sluice_proto::wire::{BEARER_SUBPROTOCOL, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use self::head::Head;
pub use self::names::Names;
pub use self::proxies::{Prefix, Proxies};
pub use self::refusal::{Reason, Refusal};
use crate::defaults::RETRY_AFTER_S;

/// Whether anybody may come in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everybody may come in.
    Open,
    /// No: this gateway stops.
    Draining(Stopping),
    /// No: an operator drains this gateway.
    Drained,
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

/// What a request is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Names that may stand in it.
    pub names: &'a Names,
    /// Proxies that are believed.
    pub proxies: &'a Proxies,
    /// Whether anybody may come in.
    pub admission: Admission,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The header is not complete.
    More,
    /// Send its response, then close.
    Refuse {
        /// Why; without tokens.
        refusal: Refusal,
        /// Where the client comes from, as far as that is known.
        client: Option<IpAddr>,
    },
    /// Send this, then it is a WebSocket.
    Accept {
        /// The whole response.
        response: Vec<u8>,
        /// The token that came with the request.
        token: Option<String>,
        /// How many bytes the request had; what follows are frames.
        used: usize,
        /// Where the client comes from.
        client: Option<IpAddr>,
    },
}

/// Judges a request whose first bytes are `bytes`, sent by `peer`.
#[must_use]
pub fn judge(bytes: &[u8], peer: Option<IpAddr>, rules: Rules<'_>) -> Verdict {
    let head = match Head::read(bytes) {
        Ok(Some(head)) => head,
        Ok(None) => return Verdict::More,
        Err(refusal) => return Verdict::Refuse { refusal, client: peer },
    };
    let client = peer.map(|peer| rules.proxies.client(peer, &head));
    match admit(&head, rules) {
        Ok((response, token)) => Verdict::Accept { response, token, used: head.used, client },
        // A body after HEAD would be read as the answer to the next request.
        Err(refusal) if *head.method == Method::HEAD => {
            Verdict::Refuse { refusal: refusal.without_body(), client }
        }
        Err(refusal) => Verdict::Refuse { refusal, client },
    }
}

fn admit(head: &Head, rules: Rules<'_>) -> Result<(Vec<u8>, Option<String>), Refusal> {
    admit_request(head)?;
    admit_upgrade(head)?;
    // Of two Hosts a proxy may have judged the other one.
    let Some(host) = head.only(&HOST) else {
        return Err(Refusal::bad_request("the request needs one Host"));
    };
    // Before the origin, which is judged by it.
    admit_host(&host, rules.names)?;
    admit_origin(head, &host, rules.names)?;
    // After what is wrong for good: who can never come in must not be told to come back.
    match rules.admission {
        Admission::Open => {}
        Admission::Draining(stopping) => return Err(stopping.into()),
        Admission::Drained => {
            let why = "an operator moves all clients to other gateways: connect to one of them";
            return Err(Refusal::unavailable(Reason::Draining, why, RETRY_AFTER_S));
        }
        Admission::Full => {
            let why = "this gateway has as many connections as it may have";
            return Err(Refusal::unavailable(Reason::Full, why, RETRY_AFTER_S));
        }
    }
    if head.only(&SEC_WEBSOCKET_VERSION).as_deref() != Some("13") {
        let body = "only version 13 of the WebSocket protocol is understood";
        return Err(upgrade_required(body).with("Sec-WebSocket-Version", "13"));
    }
    let Some(key) = head.only(&SEC_WEBSOCKET_KEY) else {
        return Err(Refusal::bad_request("the request needs one Sec-WebSocket-Key"));
    };
    // None offered: somebody by hand. Only unknown ones: it would not understand what is sent.
    let offered = Offer::read(head);
    // Refused and not ignored: a browser closes a connection whose answer names none of its offers.
    if offered.any && !offered.ours {
        let body = format!("no known subprotocol offered; offer {SUBPROTOCOL} (or none)");
        return Err(Refusal::new(Reason::Subprotocol, 400, "Bad Request", body));
    }
    let protocol =
        if offered.any { format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n") } else { String::new() };
    // Only our own is named back: the token among those offered must not come into logs by the answer.
    let accept = derive_accept_key(key.as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    );
    // The header first: who can set it, which a browser cannot, means it.
    Ok((response.into_bytes(), bearer(head).or(offered.token)))
}

/// Method, target and body.
fn admit_request(head: &Head) -> Result<(), Refusal> {
    if *head.method != Method::GET {
        let body = "only GET is understood here";
        return Err(Refusal::new(Reason::Method, 405, "Method Not Allowed", body).with("Allow", "GET"));
    }
    if !head.target.starts_with('/') {
        return Err(Refusal::bad_request("the request must name a path, not a whole URL"));
    }
    let path = head.target.split('?').next().unwrap_or_default();
    if !matches!(path, "/" | "/ws" | "/ws/") {
        let body = format!("nothing at {path:?}; connect to /ws");
        return Err(Refusal::new(Reason::Path, 404, "Not Found", body));
    }
    // What follows an upgrade are frames: a body between them is read differently by different servers.
    // Some clients send `Content-Length: 0`, which is no body.
    let empty = head.entries(&CONTENT_LENGTH).all(|length| length == "0");
    if head.headers.contains_key(TRANSFER_ENCODING) || !empty {
        return Err(Refusal::bad_request("an upgrade has no body: no Transfer-Encoding, no Content-Length"));
    }
    Ok(())
}

fn admit_upgrade(head: &Head) -> Result<(), Refusal> {
    // In HTTP/1.0 there is no upgrade, whatever the header says.
    if head.minor == 0 || !head.names(&UPGRADE, "websocket") {
        let body = "this is a WebSocket server: connect with a WebSocket client, for example \
                    `websocat ws://host:port/ws`, and send {\"sub\":\"news\"}";
        return Err(upgrade_required(body));
    }
    if !head.names(&CONNECTION, "upgrade") {
        return Err(Refusal::bad_request("an upgrade needs Connection: Upgrade"));
    }
    Ok(())
}

fn upgrade_required(body: &str) -> Refusal {
    Refusal::new(Reason::NotWebSocket, 426, "Upgrade Required", body).with("Upgrade", "websocket")
}

/// A page whose name was made to point here after it was loaded (DNS rebinding) has an Origin that equals its Host: only
/// the name itself tells.
fn admit_host(host: &str, names: &Names) -> Result<(), Refusal> {
    if names.is_called(host) {
        return Ok(());
    }
    let hosts = names.hosts();
    let body = format!(
        "{host:?} is no name of this gateway; connect to {hosts}, or add the name to the setting `hosts` of the gateway"
    );
    Err(Refusal::new(Reason::Host, 421, "Misdirected Request", body))
}

/// No Origin: not a browser. Otherwise the gateway's own, or one of the list.
fn admit_origin(head: &Head, host: &str, names: &Names) -> Result<(), Refusal> {
    if !head.headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let origin = head.only(&ORIGIN).unwrap_or_default();
    if names.lets_in(&origin, host) {
        return Ok(());
    }
    let body = format!(
        "origin {origin:?} is not allowed; to allow it add it to the setting `origins` of the gateway, exactly as here"
    );
    Err(Refusal::new(Reason::Origin, 403, "Forbidden", body))
}

/// What stands in `Sec-WebSocket-Protocol`.
#[derive(Default)]
struct Offer {
    any: bool,
    ours: bool,
    token: Option<String>,
}

impl Offer {
    fn read(head: &Head) -> Self {
        let mut offer = Self::default();
        for entry in head.entries(&SEC_WEBSOCKET_PROTOCOL) {
            offer.any = true;
            if entry == SUBPROTOCOL {
                offer.ours = true;
            } else if let Some(token) = entry.strip_prefix(BEARER_SUBPROTOCOL) {
                offer.token.get_or_insert_with(|| token.to_owned());
            }
        }
        offer
    }
}

fn bearer(head: &Head) -> Option<String> {
    let value = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests;
