//! Serves HTTP to strangers with our own accept loop: every connection is a named task of a stage, and every wait for
//! the other end has a bound. Speaks HTTP/1.1, and HTTP/2 to whoever begins with its preface.
//!
//! The listener stays open through the stage: whoever comes late is told why by whoever answers, and not by the kernel.

mod io;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sluice_lifecycle::Scope;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use self::io::Opened;
use crate::grpc::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::listen::Bound;

/// A request's head must have arrived within this; also how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// Whoever takes no byte of an answer for so long is gone.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Connections served at once; the others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;
/// How long a stop still answers who is just about to ask on an open connection.
const LAST_REQUESTS: Duration = Duration::from_millis(50);
/// How long calls get to answer once they were given up.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// How long answers get to leave when all were given.
const LAST_BYTES: Duration = Duration::from_millis(250);
/// What a stop takes beside the time for calls.
pub const ENDING: Duration = Duration::from_millis(400);

const _: () = assert!(
    LAST_REQUESTS.as_millis() + LAST_ANSWERS.as_millis() + LAST_BYTES.as_millis() <= ENDING.as_millis()
);

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What is served, and how it ends.
#[derive(Debug, Clone)]
pub struct HttpServer {
    /// Answers requests; it finds [`Peer`] among their extensions.
    pub router: Router,
    /// Calls that are to be finished: whoever answers holds a token of it, until the last byte is handed over.
    pub calls: TaskTracker,
    /// Cancelled when calls have had their time: whoever answers says so now.
    pub give_up: CancellationToken,
    /// Time for calls from when the stage begins; [`ENDING`] less than the stage has.
    pub grace: Duration,
}

impl HttpServer {
    /// Starts serving. The accept loop, the connections and the calls are tasks of `scope`.
    pub fn serve(self, bound: Bound, scope: &Scope) {
        let done = CancellationToken::new();
        let serving = Serving { server: self, scope: scope.clone(), done, connections: TaskTracker::new() };
        scope.spawn("http-accept", accept(bound, Arc::new(serving)));
    }
}

struct Serving {
    server: HttpServer,
    scope: Scope,
    /// Connections have to go.
    done: CancellationToken,
    connections: TaskTracker,
}

impl Serving {
    /// Ends when the stage has begun and nothing is left to be answered, or it had its time.
    async fn over(&self) {
        let HttpServer { calls, give_up, grace, .. } = &self.server;
        self.scope.token().cancelled().await;
        calls.close();
        if !self.connections.is_empty() {
            sleep(LAST_REQUESTS).await;
        }
        if timeout(*grace, calls.wait()).await.is_err() {
            give_up.cancel();
            let _ = timeout(LAST_ANSWERS, calls.wait()).await;
        }
    }
}

async fn accept(bound: Bound, serving: Arc<Serving>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut over = std::pin::pin!(serving.over());
    loop {
        // The permit first: what is not accepted waits in the kernel and costs us nothing.
        let next = async { (Arc::clone(&free).acquire_owned().await, bound.accept().await) };
        let (permit, (tcp, from)) = tokio::select! {
            biased;
            () = &mut over => break,
            next = next => next,
        };
        let (open, of_connection) = (serving.connections.token(), Arc::clone(&serving));
        serving.scope.spawn_transient("http-connection", async move {
            connection(tcp, from, of_connection).await;
            drop((permit, open));
        });
    }
    serving.done.cancel();
}

async fn connection(tcp: TcpStream, from: SocketAddr, serving: Arc<Serving>) {
    let opened = tokio::select! {
        biased;
        () = serving.done.cancelled() => return,
        opened = timeout(HEAD_WITHIN, opened(tcp)) => opened,
    };
    let Ok(Some((stream, is_http2))) = opened else { return };
    if is_http2 {
        speak_http2(stream, from, &serving).await;
    } else {
        speak_http1(stream, from, &serving).await;
    }
}

/// Reads as far as it takes to tell the versions apart: a library would wait for that without a bound.
async fn opened(mut tcp: TcpStream) -> Option<(Opened, bool)> {
    let mut first = Vec::with_capacity(PREFACE.len());
    loop {
        let mut byte = [0];
        // The first bytes only: whoever speaks HTTP/1 differs at the second one at the latest.
        tcp.read_exact(&mut byte).await.ok()?;
        first.extend(byte);
        let is_http2 = first == PREFACE;
        if is_http2 || !PREFACE.starts_with(&first) {
            return Some((Opened::new(tcp, first, TAKEN_WITHIN), is_http2));
        }
    }
}

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Calls the router with a request, which knows where it came from.
macro_rules! service {
    ($serving:expr, $from:expr) => {{
        let (router, from) = ($serving.server.router.clone(), $from);
        service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(Peer(from));
            let answer = router.clone().call(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        })
    }};
}

/// Serves a connection until it ends, or has to.
macro_rules! until_done {
    ($serving:expr, $from:expr, $connection:expr) => {{
        let mut connection = std::pin::pin!($connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = $serving.done.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_BYTES, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(from = %$from, %error, "An HTTP connection broke.");
        }
    }};
}

async fn speak_http1(stream: Opened, from: SocketAddr, serving: &Serving) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper panics at it without the timer above.
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service!(serving, from));
    until_done!(serving, from, connection);
}

async fn speak_http2(stream: Opened, from: SocketAddr, serving: &Serving) {
    let connection = http2::Builder::new(StreamTasks(serving.scope.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service!(serving, from));
    until_done!(serving, from, connection);
}

/// Runs the streams of a connection as tasks of the stage, so that a late one is named.
#[derive(Clone)]
struct StreamTasks(Scope);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamTasks {
    fn execute(&self, stream: F) {
        self.0.spawn_transient("http-call", stream);
    }
}
