//! Makes a channel: our connector, our deadlines, keepalive on both sides, and TLS where we have an identity.

use std::io;
use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::{Caller, CallerChannel};
use crate::grpc::complaints::Complaints;
use crate::grpc::io::{GuardedStream, Wire};
use crate::grpc::{CONNECT_WITHIN, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::tls::{self, Identity, Reason, Role};

/// First byte of a TLS alert, which a server that wants TLS answers to whoever speaks without. A frame of HTTP/2
/// begins with the upper byte of its length: no first frame is that long.
const TLS_ALERT: u8 = 0x15;

/// The address is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host:port")]
pub struct BadTarget(pub String);

/// Counts open TCP connections.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(Arc<()>);

impl OpenConnections {
    /// How many are open now.
    pub(super) fn count(&self) -> usize {
        // One is the owner's; channels hold weak ones, connections strong ones.
        Arc::strong_count(&self.0).saturating_sub(1)
    }
}

/// A channel of its own to the `peer` at `address` (`host:port`), connected at the first call: for long streams,
/// which must not share a connection with unary calls (a connection that is going away is used for as long as
/// a stream is open on it).
///
/// # Errors
/// [`BadTarget`] when the address cannot be read.
pub fn dial(address: &str, peer: Role, caller: &Caller) -> Result<CallerChannel, BadTarget> {
    let channel = channel(address, peer, caller, &OpenConnections::default())?;
    Ok(InterceptedService::new(channel, caller.clone()))
}

pub(super) fn channel(
    address: &str,
    peer: Role,
    caller: &Caller,
    open: &OpenConnections,
) -> Result<Channel, BadTarget> {
    // Also with TLS: to tonic the connector's stream is what it is.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| BadTarget(address.into()))?
        // An address that swallows SYNs would hold a call for minutes. Holds for the handshake of TLS too.
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // Without a port the library would dial 80 and fail with words that name no mistake.
    let authority = endpoint.uri().authority().filter(|authority| authority.port().is_some());
    let address = authority.ok_or_else(|| BadTarget(address.into()))?.to_string();
    let link = Link { address, peer, complaints: caller.complaints.clone() };
    let identity = caller.identity.clone();
    // Weak: a channel that is kept does not count as a connection.
    let open = Arc::downgrade(&open.0);
    let connector = tower::service_fn(move |_: Uri| {
        let (link, identity, open) = (link.clone(), identity.clone(), open.clone());
        async move {
            let wire = link.connect(identity.as_ref()).await?;
            let stream = GuardedStream::new(wire, b"", open.upgrade());
            Ok::<_, io::Error>(TokioIo::new(stream.on_first_read(Box::new(move |first| link.heard(first)))))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The way to one peer.
#[derive(Clone)]
struct Link {
    address: String,
    peer: Role,
    complaints: Complaints<(String, Reason)>,
}

impl Link {
    async fn connect(&self, identity: Option<&Identity>) -> io::Result<Wire> {
        let tcp = TcpStream::connect(&self.address).await?;
        // Calls are small; Nagle's algorithm would hold each for a delayed acknowledgement.
        tcp.set_nodelay(true)?;
        let Some(identity) = identity else { return Ok(Wire::Plain(tcp)) };
        match identity.connect(tcp, self.peer).await {
            Ok(stream) => Ok(Wire::Tls(Box::new(stream))),
            Err(error) => {
                if let Some(reason) = tls::of_server(&error) {
                    self.complain(reason);
                }
                Err(error)
            }
        }
    }

    /// In TLS 1.3 a server refuses a client's certificate only after the client's handshake is done.
    fn heard(&self, first: Result<&[u8], &io::Error>) {
        match first {
            Ok([TLS_ALERT, ..]) => self.complain(Reason::OnlyTls),
            Ok(_) => {}
            Err(error) => {
                if let Some(reason) = tls::of_client(error) {
                    self.complain(reason);
                }
            }
        }
    }

    fn complain(&self, reason: Reason) {
        let Self { address, peer, complaints } = self;
        if let Some(times) = complaints.say((address.clone(), reason)) {
            tracing::warn!(peer = %peer, address, more_times = times, "The {peer} at {address} cannot be called: {}.", reason.text());
        }
    }
}
