//! A connection that reads and writes at once: a server that does not take our frames must not keep us from reading
//! its own. Everything here is cancel-safe, because nothing lives in a future.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Sink, Stream as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::raw::{Frame, Stream, translate};

#[derive(Debug)]
pub(crate) struct Wire {
    socket: WebSocketStream<Stream>,
    unsent: VecDeque<Message>,
    dirty: bool,
    /// Why nothing can be written any more.
    broken: Option<String>,
}

impl Wire {
    pub(crate) fn new(socket: WebSocketStream<Stream>) -> Self {
        Self { socket, unsent: VecDeque::new(), dirty: false, broken: None }
    }

    /// Queues a frame; the owner keeps the queue short by looking at [`Wire::unsent`].
    pub(crate) fn push(&mut self, text: String) {
        self.unsent.push_back(Message::text(text));
    }

    /// Queues a goodbye.
    pub(crate) fn push_close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.unsent.push_back(Message::Close(Some(frame)));
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Writes what is queued and, with `read`, returns the next frame. Without `read`, or when the queue was taken,
    /// returns `None` as soon as everything is written and there was something to write.
    pub(crate) async fn step(&mut self, read: bool) -> Option<Frame> {
        let had = self.unsent.len();
        poll_fn(|context| self.poll(context, read, had)).await
    }

    fn poll(&mut self, context: &mut Context<'_>, read: bool, had: usize) -> Poll<Option<Frame>> {
        // Writing and reading in one poll: a server that takes nothing must not stop us from
        // reading it.
        if self.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(context)
        {
            self.unsent.clear();
            self.broken = Some(error);
        }
        if let Some(error) = &self.broken {
            // A server that ended said why, and when to come back: that has arrived, and is read before the end is told.
            // It is kept for a reader that is behind.
            if !read {
                return Poll::Pending;
            }
            return match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(translate(Some(Ok(message))))),
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => {
                    Poll::Ready(Some(Frame::End(error.clone())))
                }
            };
        }
        if read && let Poll::Ready(item) = Pin::new(&mut self.socket).poll_next(context) {
            return Poll::Ready(Some(translate(item)));
        }
        // room for more from the outbox
        if had > 0 && self.unsent.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.unsent.is_empty() {
            // `start_send` without it would grow the library's buffer without bound.
            match socket.as_mut().poll_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(message) = self.unsent.pop_front() {
                self.dirty = true;
                if let Err(error) = socket.as_mut().start_send(message) {
                    return Poll::Ready(Err(error.to_string()));
                }
            }
        }
        // One flush for all that was queued.
        if self.dirty {
            match socket.poll_flush(context) {
                Poll::Ready(Ok(())) => self.dirty = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
