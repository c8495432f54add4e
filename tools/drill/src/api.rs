//! The HTTP API of logic as a backend calls it: where it is, and calls over connections that are kept. One that was idle is
//! used again, also when the server has closed it meanwhile, which shows at the call. It repeats nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Idle connections kept to one server.
const IDLE_MAX: usize = 8;
/// Servers to which some are kept: each logic has another address when it is started again.
const SERVERS_MAX: usize = 8;

/// Where logics answer, as it is now: one that is started again has another port. And a key.
pub struct ApiAccess {
    urls: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    key: String,
}

impl fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiAccess").field("urls", &self.urls()).finish_non_exhaustive()
    }
}

impl ApiAccess {
    /// By who knows the URLs, `http://host:port`, and a key that is good for what is called.
    pub fn new(urls: impl Fn() -> Vec<String> + Send + Sync + 'static, key: impl Into<String>) -> Self {
        Self { urls: Box::new(urls), key: key.into() }
    }

    /// The URLs of now.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        (self.urls)()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub status: u16,
    /// The header, seconds.
    pub retry_after_s: Option<u64>,
    pub body: Bytes,
}

/// The connections that are idle, by the URL of their server.
#[derive(Default)]
pub(crate) struct Calls(Mutex<BTreeMap<String, Vec<Connection>>>);

/// One connection. What drives it is polled while a call is under way, and nobody else does.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

impl Calls {
    /// POSTs JSON to a path of the server at this URL; its whole answer, whatever it is.
    pub(crate) async fn post(&self, url: &str, path: &str, key: &str, body: String) -> Result<Said, String> {
        let host = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} is no http://host:port"))?;
        let request = Request::post(path)
            .header("host", host)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let mut connection = match self.idle(url) {
            Some(connection) => connection,
            None => Connection::open(host).await?,
        };
        let (head, body) = connection.ask(request).await?.into_parts();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after_s = header(RETRY_AFTER).and_then(|value| value.parse().ok());
        if !header(CONNECTION).is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.keep(url, connection);
        }
        Ok(Said { status: head.status.as_u16(), retry_after_s, body })
    }

    fn idle(&self, url: &str) -> Option<Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(url)?.pop()
    }

    fn keep(&self, url: &str, connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.contains_key(url) && idle.len() >= SERVERS_MAX {
            idle.clear(); // of servers that are gone, most likely
        }
        let kept = idle.entry(url.to_owned()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }
}

impl Connection {
    async fn open(host: &str) -> Result<Self, String> {
        let tcp = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(tcp)).await.map_err(|error| error.to_string())?;
        Ok(Self { sender, driver: Box::pin(driver) })
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let Self { sender, driver } = self;
        let answer = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            hyper::Result::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        tokio::pin!(answer);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            // It may have ended because it has the whole answer.
            _ = driver => answer.await,
        };
        answered.map_err(|error| format!("{error:?}"))
    }
}
