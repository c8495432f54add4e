//! A bare connection: text out, frames in, nothing resent, nothing resumed. For tests and for the curious; [`crate::Client`]
//! is built on the same handshake.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use http::Uri;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};

use crate::defaults::{READ_BUFFER, READ_BYTES_MAX};
pub use crate::tls::Trust;

/// A connection, with or without TLS.
pub type Stream = MaybeTlsStream<TcpStream>;

/// How to knock.
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// `ws://host:port/path`, or `wss://` with TLS.
    pub url: String,
    /// Which authorities may have signed the server's certificate.
    pub trust: Trust,
    /// Presented as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Offered subprotocols.
    pub subprotocols: Vec<String>,
    /// Further headers, for example `Origin`.
    pub headers: Vec<(String, String)>,
    /// Size of the kernel's receive buffer, bytes: small for a reader that shall be slow.
    pub receive_buffer: Option<u32>,
}

impl Handshake {
    /// A handshake without token, subprotocol or headers.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// With a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With one more subprotocol.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be used.
    #[error("{0:?} is no address of the form ws://host:port/path or wss://host:port/path")]
    Address(String),
    /// TCP failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// TLS failed; says why and what mends it.
    #[error("{0}")]
    Tls(String),
    /// The server answered the handshake with an HTTP error.
    #[error("HTTP {status}: {body}")]
    Status {
        /// Status code.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after_s: Option<u64>,
        /// What it said.
        body: String,
    },
    /// The handshake failed otherwise.
    #[error("{0}")]
    Handshake(String),
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// A ping; it is answered by itself.
    Ping,
    /// A pong.
    Pong,
    /// The server's close frame.
    Close {
        /// Its code; 1005 when there was none.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// Nothing more will come; empty after a clean close, else what broke.
    End(String),
}

/// A bare connection.
#[derive(Debug)]
pub struct Socket(WebSocketStream<Stream>);

impl Socket {
    /// Connects and finishes the handshake.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(handshake: &Handshake) -> Result<Self, ConnectError> {
        connect(handshake).await.map(Self)
    }

    /// Sends a text frame; returns when it is handed to the system.
    ///
    /// # Errors
    /// What broke.
    pub async fn send(&mut self, text: impl Into<String>) -> Result<(), String> {
        self.put(Message::text(text.into())).await
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// What broke.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        self.put(Message::binary(bytes)).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// What broke.
    pub async fn ping(&mut self) -> Result<(), String> {
        self.put(Message::Ping(Bytes::new())).await
    }

    /// Sends a close frame; read on until [`Frame::End`].
    ///
    /// # Errors
    /// What broke.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), String> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.0.close(Some(frame)).await.map_err(|error| error.to_string())
    }

    async fn put(&mut self, message: Message) -> Result<(), String> {
        self.0.send(message).await.map_err(|error| error.to_string())
    }

    /// The next frame, pings and pongs included. Cancel-safe.
    pub async fn frame(&mut self) -> Frame {
        translate(self.0.next().await)
    }

    /// The next frame that is no ping or pong. Cancel-safe.
    pub async fn next(&mut self) -> Frame {
        loop {
            match self.frame().await {
                Frame::Ping | Frame::Pong => {}
                frame @ (Frame::Text(_) | Frame::Binary(_) | Frame::Close { .. } | Frame::End(_)) => {
                    return frame;
                }
            }
        }
    }

    /// The next text frame as JSON; `Err` with whatever came instead. Cancel-safe.
    ///
    /// # Errors
    /// The frame that is not JSON text.
    pub async fn json(&mut self) -> Result<serde_json::Value, Frame> {
        match self.next().await {
            Frame::Text(text) => serde_json::from_str(&text).map_err(|_| Frame::Text(text)),
            other @ (Frame::Binary(_) | Frame::Ping | Frame::Pong | Frame::Close { .. } | Frame::End(_)) => {
                Err(other)
            }
        }
    }

    /// The TCP connection beneath, for tests that cut it.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.0.get_ref().get_ref()
    }
}

pub(crate) fn translate(item: Option<Result<Message, WsError>>) -> Frame {
    match item {
        Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
        Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.to_vec()),
        Some(Ok(Message::Ping(_))) => Frame::Ping,
        Some(Ok(Message::Pong(_) | Message::Frame(_))) => Frame::Pong,
        Some(Ok(Message::Close(frame))) => match frame {
            Some(frame) => Frame::Close { code: frame.code.into(), reason: frame.reason.to_string() },
            None => Frame::Close { code: 1005, reason: String::new() },
        },
        // The library says an orderly end by an error.
        Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) | None => Frame::End(String::new()),
        Some(Err(error)) => Frame::End(error.to_string()),
    }
}

pub(crate) async fn connect(handshake: &Handshake) -> Result<WebSocketStream<Stream>, ConnectError> {
    let Handshake { url, trust, receive_buffer, .. } = handshake;
    let uri: Uri = url.parse().map_err(|_| ConnectError::Address(url.clone()))?;
    let stream = dial(&uri, trust, *receive_buffer).await?;
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(token) = &handshake.token {
        request = request.with_header("Authorization", format!("Bearer {token}"));
    }
    for (name, value) in &handshake.headers {
        request = request.with_header(name, value);
    }
    for name in &handshake.subprotocols {
        request = request.with_sub_protocol(name);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Frames are written at once; the library would else hold them until its buffer is full.
        .write_buffer_size(0)
        .max_message_size(Some(READ_BYTES_MAX))
        .max_frame_size(Some(READ_BYTES_MAX));
    let upgraded = client_async_with_config(request, stream, Some(config)).await;
    upgraded.map(|(socket, _)| socket).map_err(|error| refusal(&error))
}

/// Connects to where a URL leads, with TLS if it says `wss`; the WebSocket handshake is the caller's. `receive_buffer`:
/// size of the kernel's, bytes.
///
/// # Errors
/// [`ConnectError`], `Status` and `Handshake` excepted.
pub async fn dial(uri: &Uri, trust: &Trust, receive_buffer: Option<u32>) -> Result<Stream, ConnectError> {
    let wrong = || ConnectError::Address(uri.to_string());
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
    // The ports are those of the URL standard.
    let (is_secure, usual) = match uri.scheme_str() {
        Some("ws") => (false, 80),
        Some("wss") => (true, 443),
        Some(_) | None => return Err(wrong()),
    };
    let port = uri.port_u16().unwrap_or(usual);
    let address = lookup_host((host, port)).await?.next().ok_or_else(wrong)?;
    let tcp = connect_tcp(address, receive_buffer).await?;
    if !is_secure {
        return Ok(MaybeTlsStream::Plain(tcp));
    }
    trust.handshake(host, tcp).await.map(MaybeTlsStream::Rustls).map_err(ConnectError::Tls)
}

async fn connect_tcp(address: SocketAddr, receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before the connection is made: the window is agreed on in the handshake.
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn refusal(error: &WsError) -> ConnectError {
    let WsError::Http(response) = error else { return ConnectError::Handshake(error.to_string()) };
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    ConnectError::Status {
        status: response.status().as_u16(),
        retry_after_s: retry_after.and_then(|text| text.parse().ok()),
        body: body.trim().to_owned(),
    }
}
