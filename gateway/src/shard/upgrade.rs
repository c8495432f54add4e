//! The first seconds of a client: its request is read under a deadline, judged, answered, and what is
//! admitted becomes a connection of the shard.

use std::io;
use std::net::{IpAddr, TcpStream as StdStream};
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::shared::Shared;
use super::turn::ShardCell;
use crate::defaults::{HANDSHAKE_WITHIN, LINGER_WITHIN};
use crate::handshake::{Prefix, Reason, Refusal, Verdict, judge};
use crate::limits::Refused;
use crate::limits::table::Seat;

/// A socket whose upgrade was answered.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    pub(super) token: Option<String>,
    /// Frames that came together with the request.
    pub(super) rest: Vec<u8>,
    /// Its place in what its address uses.
    pub(super) seat: Option<Seat>,
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
            Verdict::Accept { response, token, used, client } => {
                // Behind a proxy that does not say whom it speaks for, nobody is counted by address.
                let counted = client.filter(|client| !shared.proxies.trusts(*client));
                let seat = match shared.usages.enter(counted) {
                    Ok(seat) => seat,
                    Err(refused) => return refuse(shared, stream, &above(refused), client).await,
                };
                // Under the same deadline: who takes no byte of the answer is not waited for either.
                stream.write_all(&response).await?;
                let rest = bytes.split_off(used);
                return Ok(Some(Upgraded { stream, token, rest, seat }));
            }
        }
        more(&mut stream, &mut bytes).await?;
    }
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
    mut stream: TcpStream,
    refusal: &Refusal,
    client: Option<IpAddr>,
) -> io::Result<Option<Upgraded>> {
    shared.refusals.refused(&shared.metrics, refusal, client);
    // Who does not wait for the answer has been counted all the same.
    if stream.write_all(&refusal.response()).await.is_ok() {
        // Only our half: closed with bytes unread, a reset would take the refusal with it.
        drop(SockRef::from(&stream).shutdown(std::net::Shutdown::Write));
        drop(timeout(LINGER_WITHIN, until_end(&mut stream)).await);
    }
    Ok(None)
}

/// Reads to the end, so that the refusal is not overtaken by a reset.
async fn until_end(stream: &mut TcpStream) {
    let mut waste = [0; 512];
    while matches!(stream.read(&mut waste).await, Ok(count) if count > 0) {}
}
