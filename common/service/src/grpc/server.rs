//! Serves gRPC with our own accept loop: every connection and every call is a named task of a stage.
//!
//! tonic's own server waits without limit for a TCP connection that never says a word, and leaves its tasks
//! detached. Here a connection has a deadline for its preface, is told to go away at a token, has a bounded
//! time to finish, and is named when it was given up. Message sizes are set by the services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sluice_lifecycle::Scope;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use super::access::Access;
use super::health::Health;
use super::io::{GuardedStream, Wire};
use super::peers::{Peer, Peers};
use super::strangers::{Stranger, Strangers};
use super::{HANDSHAKE_WITHIN, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, PREFACE_WITHIN, TIME_HEADER};
use crate::clock::Clock;
use crate::listen::Bound;
use crate::tls::{self, Reason, Roles};

/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How every TLS client begins: a record of the handshake.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];
/// Connections served at once; the others wait in the kernel's queue. Peers are instances, not clients.
const CONNECTIONS_MAX: usize = 4096;
/// A connection without a call in flight is closed this long after GOAWAY, also when the other end is silent;
/// a living one closes after a round trip.
const IDLE_WITHIN: Duration = Duration::from_millis(250);
/// Calls at once on one connection: 16 lanes, reads and heads of one gateway stay far below.
const CALLS_MAX: u32 = 1024;

/// Bytes a client may send on one call before it waits for us: one message of the largest size.
const CALL_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The same for a connection: publish batches of several lanes travel at once.
const CONNECTION_WINDOW_BYTES: u32 = 4 * CALL_WINDOW_BYTES;

/// What is served, and how it ends.
///
/// A call lives as long as its client waits for it: when the client gives up, or its connection breaks, the
/// handler's future is dropped. What must come to its end whatever the client does belongs in a task or a
/// [`Batcher`](crate::batcher::Batcher).
#[derive(Debug, Clone)]
pub struct GrpcServer {
    /// The services, without the health service.
    pub routes: Routes,
    /// What the health service says; its watchers are ended at `goaway`.
    pub health: Health,
    /// Who may call.
    pub access: Access,
    /// Where connections are registered.
    pub peers: Peers,
    /// When cancelled, the listener closes and every connection gets GOAWAY: calls in flight go on, new ones
    /// go elsewhere. The scope's own token does the same.
    pub goaway: CancellationToken,
    /// Time for calls in flight after `goaway`; then their connection is dropped and named.
    pub grace: Duration,
}

impl GrpcServer {
    /// Starts serving. The accept loop, the connections and the calls are tasks of `scope`.
    pub fn serve(self, bound: Bound, scope: &Scope) {
        let serving = Arc::new(Serving { server: self, scope: scope.clone() });
        scope.spawn("grpc-accept", accept(bound, serving));
    }
}

struct Serving {
    server: GrpcServer,
    scope: Scope,
}

impl Serving {
    /// Ends when connections have to go.
    async fn going_away(&self) {
        let stage = self.scope.token();
        tokio::select! {
            () = self.server.goaway.cancelled() => {}
            () = stage.cancelled() => {}
        }
    }
}

async fn accept(bound: Bound, serving: Arc<Serving>) {
    let (free, strangers) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Strangers::default());
    {
        let mut going_away = std::pin::pin!(serving.going_away());
        loop {
            // The permit first: what is not accepted waits in the kernel and costs us nothing.
            let next = async { (Arc::clone(&free).acquire_owned().await, bound.accept().await) };
            let (permit, (tcp, from)) = tokio::select! {
                biased;
                () = &mut going_away => break,
                next = next => next,
            };
            // Closed at once: all that say nothing would take every permit, and the links of services with them.
            let Some(stranger) = strangers.enter(from.ip()) else {
                serving.server.access.refuse(Reason::TooMany, from);
                continue;
            };
            let connection = connection(tcp, from, stranger, Arc::clone(&serving));
            serving.scope.spawn_transient("grpc-connection", async move {
                connection.await;
                drop(permit);
            });
        }
    }
    // The listener closes before watchers end, or they would come straight back.
    drop(bound);
    // A health watch is a call without an end: it would hold its connection for the whole grace.
    serving.server.health.end_watches().await;
    // A task of a scope lives until its stage.
    serving.scope.token().cancelled().await;
}

async fn connection(tcp: TcpStream, from: SocketAddr, stranger: Stranger, serving: Arc<Serving>) {
    let local_addr = tcp.local_addr().ok();
    let Some((wire, roles)) = opened(tcp, from, &serving).await else { return };
    drop(stranger);
    let info = TcpConnectInfo { local_addr, remote_addr: Some(from) };
    let mut open = Open { peer: Arc::new(serving.server.peers.connect(from.to_string())), given_up: true };
    let service = {
        let (peer, routes, access) =
            (Arc::clone(&open.peer), serving.server.routes.clone(), serving.server.access.clone());
        service_fn(move |mut request: http::Request<Incoming>| {
            let checked = access.check(roles.as_ref(), request.uri().path(), from);
            // Who may not call says nothing either: the stop of the last logic waits for who drains.
            let call = checked.map(|()| {
                peer.says_in(request.headers());
                request.extensions_mut().insert(info.clone());
                routes.clone().call(request)
            });
            async move {
                let mut answer = match call {
                    Ok(call) => call.await?,
                    Err(status) => status.into_http(),
                };
                // When it is answered, not when it was asked: whoever compares clocks knows both of its own times.
                answer.headers_mut().insert(TIME_HEADER, Clock::system().now_ms().into());
                Ok::<_, std::convert::Infallible>(answer)
            }
        })
    };
    let calls = TaskTracker::new();
    let mut connection = std::pin::pin!(
        http2::Builder::new(CallTasks { scope: serving.scope.clone(), in_flight: calls.clone() })
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(CALLS_MAX)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .serve_connection(TokioIo::new(GuardedStream::new(wire, PREFACE, ())), service)
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = serving.going_away() => {
            // Sends GOAWAY; hyper ends the connection when its calls have ended, but not one that
            // is silent.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                // A silent other end never answers the GOAWAY: without calls nothing is lost.
                () = idle(&calls) => Ok(()),
                // Leaves it given up.
                () = sleep(serving.server.grace) => return,
            }
        }
    };
    // From here on the drop is an end, not a loss.
    open.given_up = false;
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "A gRPC connection broke.");
    }
}

/// As [`secure`], in time; `None` also when everybody leaves.
async fn opened(tcp: TcpStream, from: SocketAddr, serving: &Serving) -> Option<(Wire, Option<Roles>)> {
    let secured = tokio::select! {
        biased;
        () = serving.going_away() => return None,
        // hyper itself waits without limit for a connection that never says a word.
        secured = timeout(PREFACE_WITHIN, secure(tcp, from, &serving.server.access)) => secured,
    };
    let secured = secured.ok().flatten();
    if secured.is_none() {
        tracing::debug!(%from, "A connection that does not speak HTTP/2 was closed.");
    }
    secured
}

/// The handshake, where there is one, and the first words of HTTP/2; `None`: this connection is of no use, and it was
/// said why if that is somebody's fault. With TLS, also which services the other end is.
async fn secure(tcp: TcpStream, from: SocketAddr, access: &Access) -> Option<(Wire, Option<Roles>)> {
    let (mut wire, roles) = match access.identity() {
        None => (Wire::Plain(tcp), None),
        Some(identity) => match timeout(HANDSHAKE_WITHIN, identity.accept(tcp)).await.ok()? {
            Ok((_, roles)) if roles.is_empty() => {
                access.refuse(Reason::OtherRole, from);
                return None;
            }
            Ok((stream, roles)) => (Wire::Tls(Box::new(stream)), Some(roles)),
            Err(error) => {
                if let Some(reason) = tls::of_client(&error) {
                    access.refuse(reason, from);
                }
                return None;
            }
        },
    };
    let mut preface = [0; PREFACE.len()];
    // Read by hand, so the bytes are given to hyper again.
    wire.read_exact(&mut preface).await.ok()?;
    if preface.starts_with(&TLS_HANDSHAKE) {
        access.refuse(Reason::OnlyTls, from);
    }
    (preface == *PREFACE).then_some((wire, roles))
}

/// Ends when no call has been in flight for a while, counted from now.
async fn idle(calls: &TaskTracker) {
    calls.close();
    loop {
        calls.wait().await;
        // A call may be on its way that was sent before the GOAWAY was read.
        sleep(IDLE_WITHIN).await;
        if calls.is_empty() {
            return;
        }
    }
}

/// Runs the calls of a connection as tasks of the stage, so that a late one is named.
#[derive(Clone)]
struct CallTasks {
    scope: Scope,
    in_flight: TaskTracker,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for CallTasks {
    fn execute(&self, call: F) {
        self.scope.spawn_transient("grpc-call", self.in_flight.track_future(call));
    }
}

/// Names a connection that is dropped before it has ended, by its grace or by the end of the stage.
struct Open {
    peer: Arc<Peer>,
    given_up: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let (true, Some(peer)) = (self.given_up, self.peer.state()) {
            let who = peer.instance.as_ref().map_or("unknown", |instance| instance.as_str());
            tracing::warn!(
                peer = who,
                from = peer.address,
                "A gRPC connection did not end in time and was dropped."
            );
        }
    }
}
