//! A WebSocket that reads and writes at once, so that a server that does not take our frames does not keep us from
//! reading its own. It knows nothing of what is said. Cancel-safe.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Sink, Stream as _};
use sluice_client::Trust;
use sluice_client::raw::{self, Stream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Largest frame read: a page of history of large messages.
const READ_MAX: usize = 24 * 1024 * 1024;
/// Buffer that reads begin with; for one that reads slowly it is also the kernel's, less so that the server feels it.
const READ_BUFFER: usize = 16 * 1024;
const SLOW_BUFFER: u32 = 4 * 1024;
/// Longest wait for the other side of a close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What a turn brought.
#[derive(Debug)]
pub(super) enum Turn {
    /// One frame may be put.
    Writable,
    /// A text frame.
    Text(Utf8Bytes),
    /// The server's close frame; `None` = without a code.
    Close(Option<u16>, String),
    /// Nothing more will come.
    Broken(String),
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnectError {
    pub reason: String,
    /// The server refused and told when it may be asked again.
    pub retry_after_s: Option<u64>,
}

impl From<String> for ConnectError {
    fn from(reason: String) -> Self {
        Self { reason, retry_after_s: None }
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    stream: WebSocketStream<Stream>,
    unflushed: bool,
}

impl Socket {
    /// Connects with a token; the reason when that fails.
    pub(super) async fn connect(
        url: &str,
        token: Option<&str>,
        trust: &Trust,
        slow: bool,
    ) -> Result<Self, ConnectError> {
        let receive_buffer = slow.then_some(SLOW_BUFFER);
        let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
        let stream = raw::dial(&uri, trust, receive_buffer).await.map_err(|error| error.to_string())?;
        let mut request = ClientRequestBuilder::new(uri);
        if let Some(token) = token {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(if slow { SLOW_BUFFER as usize } else { READ_BUFFER })
            .write_buffer_size(0)
            .max_message_size(Some(READ_MAX))
            .max_frame_size(Some(READ_MAX));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((stream, _)) => Ok(Self { stream, unflushed: false }),
            Err(WsError::Http(answer)) => {
                let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let reason = format!("HTTP {}: {}", answer.status().as_u16(), body.trim());
                let told = answer.headers().get(RETRY_AFTER).and_then(|told| told.to_str().ok());
                Err(ConnectError { reason, retry_after_s: told.and_then(|told| told.trim().parse().ok()) })
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// Writes what was put, reads if told to, and says when another frame may be put, if one waits.
    pub(super) async fn turn(&mut self, write: bool, read: bool) -> Turn {
        poll_fn(|context| self.poll(context, write, read)).await
    }

    fn poll(&mut self, context: &mut Context<'_>, write: bool, read: bool) -> Poll<Turn> {
        let mut stream = Pin::new(&mut self.stream);
        // Before reading: a frame that stays here is one that the server does not answer.
        if self.unflushed {
            match stream.as_mut().poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Turn::Broken(error.to_string())),
                Poll::Pending => {}
            }
        }
        if read && let Poll::Ready(item) = stream.as_mut().poll_next(context) {
            match translate(item) {
                Some(turn) => return Poll::Ready(turn),
                None => context.waker().wake_by_ref(), // a ping: look again
            }
        }
        if write {
            match stream.poll_ready(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Turn::Writable),
                Poll::Ready(Err(error)) => return Poll::Ready(Turn::Broken(error.to_string())),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Puts a frame, after [`Turn::Writable`].
    pub(super) fn put(&mut self, text: String) -> Result<(), String> {
        self.start(Message::text(text))
    }

    fn start(&mut self, message: Message) -> Result<(), String> {
        self.unflushed = true;
        Pin::new(&mut self.stream).start_send(message).map_err(|error| error.to_string())
    }

    /// Says goodbye and waits for the server's; what comes in between is dropped.
    pub(super) async fn goodbye(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let said = async {
            if !matches!(self.turn(true, false).await, Turn::Writable) {
                return;
            }
            if self.start(Message::Close(Some(frame))).is_ok() {
                while !matches!(self.turn(false, true).await, Turn::Broken(_)) {}
            }
        };
        timeout(CLOSE_WAIT, said).await.ok(); // one that does not answer is left
    }

    /// After the server's close frame: lets the answer to it go out.
    pub(super) async fn see_off(mut self) {
        let gone = async { while !matches!(self.turn(false, true).await, Turn::Broken(_)) {} };
        tokio::select! {
            () = gone => {}
            () = sleep(CLOSE_WAIT) => {}
        }
    }
}

/// `None` = nothing that is told.
fn translate(item: Option<Result<Message, WsError>>) -> Option<Turn> {
    match item {
        Some(Ok(Message::Text(text))) => Some(Turn::Text(text)),
        Some(Ok(Message::Close(Some(frame)))) => {
            Some(Turn::Close(Some(frame.code.into()), frame.reason.to_string()))
        }
        Some(Ok(Message::Close(None))) => Some(Turn::Close(None, "without a code".into())),
        Some(Ok(Message::Binary(_))) => {
            Some(Turn::Broken("a binary frame, which the protocol has not".into()))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => None,
        Some(Err(error)) => Some(Turn::Broken(error.to_string())),
        None => Some(Turn::Broken("the stream ended".into())),
    }
}
