//! One short question to a server: an HTTP GET or POST, or bytes over TCP, in clear or over TLS. No connection is kept, no
//! redirect followed.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
    header: (&str, &str),
    body: &str,
    timeout: Duration,
) -> Result<Answer, ProbeError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| ProbeError::Address(url.to_owned()))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    http(&Way::clear(&address), method, path, header, body, timeout).await
}

/// How a server is reached.
pub(crate) struct Way<'a> {
    address: &'a str,
    tls: Option<&'a TlsConnector>,
    /// Whether the server speaks first, one line in clear.
    greets: bool,
}

impl<'a> Way<'a> {
    pub(crate) const fn clear(address: &'a str) -> Self {
        Self { address, tls: None, greets: false }
    }

    /// Over TLS, where there is a connector.
    pub(crate) const fn over(address: &'a str, tls: Option<&'a TlsConnector>) -> Self {
        Self { address, tls, greets: false }
    }

    /// The same to a server that says a line before TLS begins.
    pub(crate) const fn greeted(self) -> Self {
        Self { greets: true, ..self }
    }

    async fn exchange(&self, request: &[u8], whole: impl Fn(&[u8]) -> bool) -> std::io::Result<Vec<u8>> {
        let mut tcp = TcpStream::connect(self.address).await?;
        let Some(tls) = self.tls else { return talk(tcp, request, whole).await };
        // Byte by byte: what follows the line belongs to TLS.
        while self.greets && tcp.read_u8().await? != b'\n' {}
        let host = self.address.rsplit_once(':').map_or(self.address, |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        talk(tls.connect(name, tcp).await?, request, whole).await
    }
}

/// Asks over HTTP; every status code is an answer.
pub(crate) async fn http(
    way: &Way<'_>,
    method: &str,
    path: &str,
    (name, value): (&str, &str),
    body: &str,
    timeout: Duration,
) -> Result<Answer, ProbeError> {
    let (host, length) = (way.address, body.len());
    // HTTP/1.0: the answer is neither chunked nor kept alive
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let bytes = within(timeout, way.exchange(request.as_bytes(), |_| false)).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(ProbeError::NotHttp)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ProbeError::NotHttp)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Sends `request` (may be empty) and returns what came until it was `whole`, or ended.
pub(crate) async fn exchange(
    way: &Way<'_>,
    request: &str,
    whole: impl Fn(&[u8]) -> bool,
    timeout: Duration,
) -> Result<Vec<u8>, ProbeError> {
    within(timeout, way.exchange(request.as_bytes(), whole)).await
}

async fn within(
    timeout: Duration,
    work: impl Future<Output = std::io::Result<Vec<u8>>>,
) -> Result<Vec<u8>, ProbeError> {
    Ok(tokio::time::timeout(timeout, work).await.map_err(|_| ProbeError::Late(timeout))??)
}

/// Reads until it is `whole`, else to the end.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    whole: impl Fn(&[u8]) -> bool,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    // TLS keeps what is written until it is told.
    stream.flush().await?;
    // Bounded: what listens there may be anything.
    let mut stream = stream.take(PROBE_BYTES_MAX);
    let mut answer = Vec::new();
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) if whole(&answer) => break,
            Ok(_) => {}
            // A server that ends a connection of TLS without saying so has said what it had to say.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}
