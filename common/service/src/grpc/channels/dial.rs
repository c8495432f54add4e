//! Makes a channel: our connector, our deadlines, keepalive on both sides.

use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::{Caller, CallerChannel};
use crate::grpc::io::GuardedStream;
use crate::grpc::{CONNECT_WITHIN, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

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

/// A channel of its own to `address` (`host:port`), connected at the first call: for long streams, which
/// must not share a connection with unary calls (a connection that is going away is used for as long as
/// a stream is open on it).
///
/// # Errors
/// [`BadTarget`] when the address cannot be read.
pub fn dial(address: &str, caller: &Caller) -> Result<CallerChannel, BadTarget> {
    let channel = channel(address, &OpenConnections::default())?;
    Ok(InterceptedService::new(channel, caller.clone()))
}

pub(super) fn channel(address: &str, open: &OpenConnections) -> Result<Channel, BadTarget> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| BadTarget(address.into()))?
        // An address that swallows SYNs would hold a call for minutes.
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // Without a port the library would dial 80 and fail with words that name no mistake.
    let authority = endpoint.uri().authority().filter(|authority| authority.port().is_some());
    let authority = authority.ok_or_else(|| BadTarget(address.into()))?.to_string();
    // Weak: a channel that is kept does not count as a connection.
    let open = Arc::downgrade(&open.0);
    let connector = tower::service_fn(move |_: Uri| {
        let (authority, open) = (authority.clone(), open.clone());
        async move {
            let tcp = TcpStream::connect(authority).await?;
            // Calls are small; Nagle's algorithm would hold each for a delayed acknowledgement.
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(GuardedStream::new(tcp, b"", open.upgrade())))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}
