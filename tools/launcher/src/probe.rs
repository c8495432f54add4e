//! One short question to a server: an HTTP GET or POST, or a line over TCP. No connection is kept, no redirect followed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::defaults::PROBE_BYTES_MAX;

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not `http://host:port/…`.
    #[error("{0:?} is no address of the form http://host:port/path")]
    Address(String),
    /// Connecting, writing or reading failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// Not HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// GETs `http://host:port/path`.
///
/// # Errors
/// [`ProbeError`] when there is no HTTP answer within `timeout`; every status code is an answer.
pub async fn get(url: &str, timeout: Duration) -> Result<Answer, ProbeError> {
    ask(url, "GET", ("Accept", "*/*"), "", timeout).await
}

/// POSTs `body`, JSON, to `http://host:port/path`.
///
/// # Errors
/// As [`get`].
pub async fn post(url: &str, body: &str, timeout: Duration) -> Result<Answer, ProbeError> {
    ask(url, "POST", ("Content-Type", "application/json"), body, timeout).await
}

/// POSTs `body` with a header to `http://host:port/path`.
///
/// # Errors
/// As [`get`].
pub async fn post_with(
    url: &str,
    header: (&str, &str),
    body: &str,
    timeout: Duration,
) -> Result<Answer, ProbeError> {
    ask(url, "POST", header, body, timeout).await
}

/// POSTs nothing but a header to `http://host:port/path`.
///
/// # Errors
/// As [`get`].
pub async fn post_header(url: &str, header: (&str, &str), timeout: Duration) -> Result<Answer, ProbeError> {
    ask(url, "POST", header, "", timeout).await
}

async fn ask(
    url: &str,
    method: &str,
    (name, value): (&str, &str),
    body: &str,
    timeout: Duration,
) -> Result<Answer, ProbeError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| ProbeError::Address(url.to_owned()))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let length = body.len();
    // HTTP/1.0: the answer is neither chunked nor kept alive
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let bytes = within(timeout, exchange(&address, request.as_bytes(), |_| false)).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(ProbeError::NotHttp)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ProbeError::NotHttp)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Sends `request` (may be empty) and returns the first line of the answer.
pub(crate) async fn line(address: &str, request: &str, timeout: Duration) -> Result<String, ProbeError> {
    let bytes = exchange_until(address, request, |said| said.contains(&b'\n'), timeout).await?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Sends a command of Redis whose answer is a text of several lines, and returns it.
pub(crate) async fn bulk(address: &str, request: &str, timeout: Duration) -> Result<String, ProbeError> {
    let whole = |said: &[u8]| {
        let text = String::from_utf8_lossy(said);
        let Some((length, rest)) = text.split_once("\r\n") else { return false };
        // Something else than a text has one line.
        length
            .strip_prefix('$')
            .and_then(|length| length.parse::<usize>().ok())
            .is_none_or(|n| rest.len() >= n)
    };
    let bytes = exchange_until(address, request, whole, timeout).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends `request` and returns what came until it was `whole`, or ended.
pub(crate) async fn exchange_until(
    address: &str,
    request: &str,
    whole: impl Fn(&[u8]) -> bool,
    timeout: Duration,
) -> Result<Vec<u8>, ProbeError> {
    within(timeout, exchange(address, request.as_bytes(), whole)).await
}

async fn within(
    timeout: Duration,
    work: impl Future<Output = std::io::Result<Vec<u8>>>,
) -> Result<Vec<u8>, ProbeError> {
    Ok(tokio::time::timeout(timeout, work).await.map_err(|_| ProbeError::Late(timeout))??)
}

/// Reads until it is `whole`, else to the end.
async fn exchange(address: &str, request: &[u8], whole: impl Fn(&[u8]) -> bool) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    // Bounded: what listens there may be anything.
    let mut stream = stream.take(PROBE_BYTES_MAX);
    let mut answer = Vec::new();
    while stream.read_buf(&mut answer).await? > 0 {
        if whole(&answer) {
            break;
        }
    }
    Ok(answer)
}
