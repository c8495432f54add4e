//! What clients ask for first: a WebSocket, a stream of events, or a ticket for one. Bytes of a request in, bytes of a
//! response out.
//!
//! Decides who may come in (path, Host, Origin, subprotocol, whether there is room) and finds the token and where the
//! client comes from. It does not look into the token: logic does that after the upgrade. Pure; the shard reads,
//! writes and keeps the deadline.

mod cors;
mod events;
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
use sluice_trace::Parent;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use self::cors::Cors;
pub use self::events::{EventRequest, RoomAsked};
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
        /// What it is a part of.
        parent: Parent,
    },
    /// A stream of events, if who asks may read it: its head is answered when that is known.
    Events {
        /// What it asks for.
        request: Box<EventRequest>,
        /// Who asks.
        credential: Credential,
    },
    /// A ticket for this token.
    Ticket {
        /// The token that came with the request.
        token: String,
        /// Where the page comes from that reads the answer.
        cors: Cors,
        /// Where the client comes from.
        client: Option<IpAddr>,
    },
    /// Send this, then close: a browser asks whether it may ask.
    Answer(Vec<u8>),
}

/// What says who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token; without one it is an anonymous user.
    Token(Option<String>),
    /// A ticket, which stands for a token once.
    Ticket(String),
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    WebSocket,
    Events,
    Ticket,
}

impl Place {
    fn of(path: &str) -> Result<Self, Refusal> {
        match path {
            "/" | "/ws" | "/ws/" => Ok(Self::WebSocket),
            "/sse" | "/sse/" => Ok(Self::Events),
            "/ticket" | "/ticket/" => Ok(Self::Ticket),
            _ => {
                let body = format!("nothing at {path:?}; connect to /ws, or read events at /sse?room=news");
                Err(Refusal::new(Reason::Path, 404, "Not Found", body))
            }
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::WebSocket | Self::Events => Method::GET,
            Self::Ticket => Method::POST,
        }
    }
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
    match admit(&head, rules, client) {
        Ok(verdict) => verdict,
        // A body after HEAD would be read as the answer to the next request.
        Err(refusal) if *head.method == Method::HEAD => {
            Verdict::Refuse { refusal: refusal.without_body(), client }
        }
        Err(refusal) => Verdict::Refuse { refusal, client },
    }
}

fn admit(head: &Head, rules: Rules<'_>, client: Option<IpAddr>) -> Result<Verdict, Refusal> {
    let place = admit_request(head)?;
    if place == Place::WebSocket {
        admit_upgrade(head)?;
    }
    // Of two Hosts a proxy may have judged the other one.
    let Some(host) = head.only(&HOST) else {
        return Err(Refusal::bad_request("the request needs one Host"));
    };
    // Before the origin, which is judged by it.
    admit_host(&host, rules.names)?;
    let cors = admit_origin(head, &host, rules.names)?;
    if place == Place::WebSocket {
        admit_now(rules.admission)?;
        return accept_upgrade(head, client);
    }
    // From here on the page may read why.
    answer(head, place, &cors, rules.admission, client).map_err(|refusal| {
        let waits = place == Place::Events && events::is_event_source(head);
        refusal.for_reader(&cors, waits)
    })
}

/// A stream of events or a ticket.
fn answer(
    head: &Head,
    place: Place,
    cors: &Cors,
    admission: Admission,
    client: Option<IpAddr>,
) -> Result<Verdict, Refusal> {
    if *head.method == Method::OPTIONS {
        return Ok(Verdict::Answer(cors.preflight(place.method().as_str())));
    }
    if head.minor == 0 {
        let body = "HTTP/1.0 has no chunks, by which a stream says that it is whole: in nginx set \
                    `proxy_http_version 1.1`";
        return Err(Refusal::new(Reason::Malformed, 505, "HTTP Version Not Supported", body));
    }
    if place == Place::Events {
        // Read first: who asks for what cannot be must not be told to come back.
        let (request, credential) = events::read(head, cors.clone(), client)?;
        admit_now(admission)?;
        return Ok(Verdict::Events { request: Box::new(request), credential });
    }
    let Some(token) = bearer(head) else {
        let why = "a ticket is for a token: send the header Authorization: Bearer <jwt>";
        return Err(Refusal::unauthorized(why));
    };
    admit_now(admission)?;
    Ok(Verdict::Ticket { token, cors: cors.clone(), client })
}

/// After what is wrong for good: who can never come in must not be told to come back.
fn admit_now(admission: Admission) -> Result<(), Refusal> {
    match admission {
        Admission::Open => Ok(()),
        Admission::Draining(stopping) => Err(stopping.into()),
        Admission::Drained => {
            let why = "an operator moves all clients to other gateways: connect to one of them";
            Err(Refusal::unavailable(Reason::Draining, why, RETRY_AFTER_S))
        }
        Admission::Full => {
            let why = "this gateway has as many connections as it may have";
            Err(Refusal::unavailable(Reason::Full, why, RETRY_AFTER_S))
        }
    }
}

fn accept_upgrade(head: &Head, client: Option<IpAddr>) -> Result<Verdict, Refusal> {
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
    let token = bearer(head).or(offered.token);
    let parent = Parent::of(&head.headers);
    Ok(Verdict::Accept { response: response.into_bytes(), token, used: head.used, client, parent })
}

/// Method, target and body.
fn admit_request(head: &Head) -> Result<Place, Refusal> {
    let path = head.target.split('?').next().unwrap_or_default();
    let place = if head.target.starts_with('/') { Place::of(path) } else { Ok(Place::WebSocket) };
    let method = place.as_ref().map_or(Method::GET, |place| place.method());
    let preflight = *head.method == Method::OPTIONS && place.as_ref().is_ok_and(|at| *at != Place::WebSocket);
    if *head.method != method && !preflight {
        let body = format!("only {method} is understood here");
        let refusal = Refusal::new(Reason::Method, 405, "Method Not Allowed", body);
        return Err(refusal.with("Allow", method.as_str()));
    }
    if !head.target.starts_with('/') {
        return Err(Refusal::bad_request("the request must name a path, not a whole URL"));
    }
    let place = place?;
    // What follows an upgrade are frames: a body between them is read differently by different servers.
    // Some clients send `Content-Length: 0`, which is no body.
    let empty = head.entries(&CONTENT_LENGTH).all(|length| length == "0");
    if head.headers.contains_key(TRANSFER_ENCODING) || !empty {
        let why = match place {
            Place::WebSocket => "an upgrade has no body: no Transfer-Encoding, no Content-Length",
            Place::Events => "this request has no body: no Transfer-Encoding, no Content-Length",
            Place::Ticket => "this request has no body: the token stands in the header Authorization: Bearer",
        };
        return Err(Refusal::bad_request(why));
    }
    Ok(place)
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
fn admit_origin(head: &Head, host: &str, names: &Names) -> Result<Cors, Refusal> {
    if !head.headers.contains_key(ORIGIN) {
        return Ok(Cors::default());
    }
    let origin = head.only(&ORIGIN).unwrap_or_default();
    if names.lets_in(&origin, host) {
        return Ok(Cors::of(&origin));
    }
    // Short enough to stand in the log as a whole.
    let body = format!(
        "origin {origin:?} is not allowed: add it, exactly so, to `origins` of the gateway (sluice dev: --origin)"
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
