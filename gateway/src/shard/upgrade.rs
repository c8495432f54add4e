//! The first seconds of a client: its request is read under a deadline, judged, answered, and what is
//! admitted becomes a connection of the shard. A ticket is issued, or taken, under the same deadline.

use std::io;
use std::net::{IpAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_proto::grpc::IssueTicketReply;
use sluice_proto::ids::Epoch;
use sluice_trace::Parent;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::authentications::epoch;
use super::event_stream::EventStream;
use super::shared::Shared;
use super::turn::ShardCell;
use crate::calls::{Authenticated, Issued};
use crate::defaults::{CALL_WITHIN, HANDSHAKE_WITHIN, LINGER_WITHIN, RETRY_AFTER_S, RETRY_SPREAD_MS};
use crate::handshake::{Cors, Credential, EventRequest, Prefix, Reason, Refusal, Verdict, judge};
use crate::limits::Refused;
use crate::limits::table::Seat;

/// A socket whose upgrade was answered.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    pub(super) token: Option<String>,
    /// It reads events, and has no answer yet.
    pub(super) events: Option<Box<EventStream>>,
    /// Who it is, where a ticket has said so.
    pub(super) verdict: Option<(Authenticated, Option<Epoch>)>,
    /// Frames that came together with the request.
    pub(super) rest: Vec<u8>,
    /// Its place in what its address uses.
    pub(super) seat: Option<Seat>,
    /// What its publishes are a part of.
    pub(super) parent: Parent,
}

/// Serves the upgrade of one client. The place it takes among the connections is given back unless it is admitted.
pub(super) async fn serve(cell: ShardCell, shared: Arc<Shared>, socket: StdStream) {
    let upgraded = timeout(HANDSHAKE_WITHIN, handshake(&shared, socket)).await;
    let entered = upgraded.map(|upgraded| upgraded.and_then(|upgraded| enter(&cell, upgraded)));
    if matches!(entered, Ok(Ok(true))) {
        shared.metrics.accepted.inc();
        return;
    }
    // A refusal has been counted by its own reason.
    if !matches!(entered, Ok(Ok(false))) {
        shared.refusals.abandoned(&shared.metrics);
    }
    shared.stats.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
}

/// `false`: there is nobody to enter.
fn enter(cell: &ShardCell, upgraded: Option<Upgraded>) -> io::Result<bool> {
    let Some(upgraded) = upgraded else { return Ok(false) };
    cell.turn(|shard| shard.enter(upgraded)).map(|()| true)
}

/// `None`: it was refused, or went away by itself.
async fn handshake(shared: &Arc<Shared>, socket: StdStream) -> io::Result<Option<Upgraded>> {
    let mut stream = TcpStream::from_std(socket)?;
    let peer = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
    let mut bytes = Vec::with_capacity(1024);
    // Before any byte is judged as HTTP: the header of a proxy is binary.
    let proxied = read_prefix(shared, &mut stream, peer, &mut bytes).await?;
    let from = match proxied {
        Ok(proxied) => proxied.or(peer),
        Err(why) => return refuse(shared, stream, &Refusal::malformed(why), peer).await,
    };
    loop {
        match judge(&bytes, from, shared.rules()) {
            Verdict::More => {}
            Verdict::Refuse { refusal, client } => return refuse(shared, stream, &refusal, client).await,
            Verdict::Answer(response) => return finish(stream, &response).await,
            Verdict::Accept { response, token, used, client, parent } => {
                let seat = match seat(shared, client) {
                    Ok(seat) => seat,
                    Err(refusal) => return refuse(shared, stream, &refusal, client).await,
                };
                // Under the same deadline: who takes no byte of the answer is not waited for either.
                stream.write_all(&response).await?;
                let rest = bytes.split_off(used);
                return Ok(Some(Upgraded { stream, token, events: None, verdict: None, rest, seat, parent }));
            }
            Verdict::Events { request, credential } => {
                return admit_stream(shared, stream, *request, credential).await;
            }
            Verdict::Ticket { token, cors, client } => {
                let response = match seat(shared, client) {
                    // Charged like a connection, which it lets in.
                    Ok(_seat) => ticket(shared, token).await,
                    Err(refusal) => Err(refusal),
                };
                return match response {
                    Ok(body) => {
                        shared.metrics.tickets_issued.inc();
                        finish(stream, &ticket_response(&body, &cors)).await
                    }
                    Err(refusal) => refuse(shared, stream, &refusal.of_ticket(&cors), client).await,
                };
            }
        }
        more(&mut stream, &mut bytes).await?;
    }
}

/// A place for one more connection of an address. Behind a proxy that does not say whom it speaks for, nobody is counted
/// by address.
fn seat(shared: &Arc<Shared>, client: Option<IpAddr>) -> Result<Option<Seat>, Refusal> {
    shared.usages.enter(client.filter(|client| !shared.proxies.trusts(*client))).map_err(above)
}

/// A stream is answered by the shard, when it is known who asks. What was sent behind the request is thrown away.
async fn admit_stream(
    shared: &Arc<Shared>,
    stream: TcpStream,
    request: EventRequest,
    credential: Credential,
) -> io::Result<Option<Upgraded>> {
    let client = request.client;
    let seat = match seat(shared, client) {
        Ok(seat) => seat,
        Err(refusal) => return refuse(shared, stream, &request.refused(refusal), client).await,
    };
    let (token, verdict) = match credential {
        Credential::Token(token) => (token, None),
        Credential::Ticket(ticket) => {
            // The first call of a gateway's life may have to ask for it; before the ticket, which is taken once.
            // And before it is known where revocations begin no verdict is believed.
            let (epoch, ()) = tokio::join!(epoch(shared), shared.revoked.begun(CALL_WITHIN));
            let verdict = match epoch {
                Some(_) => take(shared, ticket).await,
                None => Authenticated::Unavailable,
            };
            (None, Some((verdict, epoch)))
        }
    };
    let events = Some(Box::new(EventStream::new(request)));
    give_up_after(&stream, Duration::from_secs(shared.config.slow_timeout_s));
    let parent = Parent::default();
    Ok(Some(Upgraded { stream, token, events, verdict, rest: Vec::new(), seat, parent }))
}

/// No pong tells of a reader that vanished: the system has to notice that heartbeats are not taken. It waits twice as long
/// as a slow reader may, so that this one still hears why it is closed.
#[cfg(target_os = "linux")]
fn give_up_after(stream: &TcpStream, within: Duration) {
    drop(SockRef::from(stream).set_tcp_user_timeout(Some(within * 2)));
}

/// Elsewhere the system decides itself how long that is.
#[cfg(not(target_os = "linux"))]
const fn give_up_after(_: &TcpStream, _: Duration) {}

async fn take(shared: &Arc<Shared>, ticket: String) -> Authenticated {
    let _turn = shared.ticket_calls.acquire().await;
    let verdict = shared.calls.take_ticket(ticket).await;
    // Of a logic that is behind. The ticket is gone: its reader asks for another.
    if shared.revoked.believes(&verdict) { verdict } else { Authenticated::Unavailable }
}

async fn ticket(shared: &Arc<Shared>, token: String) -> Result<String, Refusal> {
    let _turn = shared.ticket_calls.acquire().await;
    match shared.calls.issue_ticket(token).await {
        Issued::Ticket(IssueTicketReply { ticket, expires_in_s }) => {
            Ok(json!({"ticket": ticket, "expires_in_s": expires_in_s}).to_string())
        }
        Issued::Invalid(why) => Err(Refusal::unauthorized(why)),
        Issued::Unavailable(why) => Err(Refusal::unavailable(Reason::Unchecked, &why, RETRY_AFTER_S)),
    }
}

fn ticket_response(body: &str, cors: &Cors) -> Vec<u8> {
    let length = body.len() + 1;
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-store\r\n{}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}\n",
        cors.headers()
    )
    .into_bytes()
}

/// Takes what stands before the request off the stream: the client's address, if a proxy says it.
async fn read_prefix(
    shared: &Arc<Shared>,
    stream: &mut TcpStream,
    peer: Option<IpAddr>,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<Option<IpAddr>, &'static str>> {
    loop {
        more(stream, bytes).await?;
        match shared.proxies.prefix(peer, bytes) {
            Prefix::More => {}
            Prefix::None => return Ok(Ok(None)),
            Prefix::Refused(why) => return Ok(Err(why)),
            Prefix::Proxy(used, from) => {
                bytes.drain(..used);
                return Ok(Ok(from));
            }
        }
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn above(refused: Refused) -> Refusal {
    match refused {
        Refused::Crowd(after_s) => {
            Refusal::unavailable(Reason::Crowd, "too many connect at once, come back", after_s)
        }
        Refused::AddressFull(after_s) => {
            Refusal::too_many(Reason::AddressFull, "too many connections from your address", after_s)
        }
        Refused::AddressRate(after_s) => {
            Refusal::too_many(Reason::AddressRate, "too many new connections from your address", after_s)
        }
    }
}

async fn refuse(
    shared: &Arc<Shared>,
    stream: TcpStream,
    refusal: &Refusal,
    client: Option<IpAddr>,
) -> io::Result<Option<Upgraded>> {
    shared.refusals.refused(&shared.metrics, refusal, client);
    // Who does not wait for the answer has been counted all the same.
    finish(stream, &refusal.response(rand::random_range(0..RETRY_SPREAD_MS))).await
}

/// The whole answer, and the end.
async fn finish(mut stream: TcpStream, response: &[u8]) -> io::Result<Option<Upgraded>> {
    if stream.write_all(response).await.is_ok() {
        // Only our half: closed with bytes unread, a reset would take the answer with it.
        drop(SockRef::from(&stream).shutdown(std::net::Shutdown::Write));
        drop(timeout(LINGER_WITHIN, until_end(&mut stream)).await);
    }
    Ok(None)
}

/// Reads to the end, so that the answer is not overtaken by a reset.
async fn until_end(stream: &mut TcpStream) {
    let mut waste = [0; 512];
    while matches!(stream.read(&mut waste).await, Ok(count) if count > 0) {}
}
