//! A second connection of a client, for one message that went over the first already: the same key over two gateways is
//! one message. It subscribes to nothing.

use std::sync::Arc;
use std::time::Duration;

use sluice_client::Trust;
use sluice_judge::record::ClientEvent;
use sluice_load::server_frame::ServerFrame;
use tokio::time::{Instant, timeout_at};

use super::super::message::OutgoingMessage;
use super::super::recorder::{OWN_WISH, Recorder};
use super::frame::{self, Meaning, Whose};
use super::socket::{Socket, Turn};

/// All of it ends within this.
const BOUND: Duration = Duration::from_secs(10);

pub(super) async fn send_once_more(
    recorder: Arc<Recorder>,
    url: String,
    token: Option<String>,
    trust: Trust,
    message: OutgoingMessage,
) {
    let until = Instant::now() + BOUND;
    let (mut socket, welcome) =
        match timeout_at(until, super::enter(&url, token.as_deref(), &trust, false)).await {
            Ok(Ok(entered)) => entered,
            Ok(Err(error)) => return recorder.failed(url, error.reason),
            Err(_) => return recorder.failed(url, format!("no welcome within {BOUND:?}")),
        };
    let conn = recorder.opened(url, welcome.instance, welcome.epoch);
    let (code, reason) = match timeout_at(until, ask(&recorder, conn, &mut socket, &message)).await {
        Ok(ended) => ended,
        Err(_) => (OWN_WISH, format!("no answer within {BOUND:?}")),
    };
    if code == OWN_WISH {
        socket.goodbye().await;
    }
    recorder.note(&ClientEvent::Closed { conn, code, reason });
}

/// Sends and waits for the answer; how the connection ends.
async fn ask(
    recorder: &Recorder,
    conn: u32,
    socket: &mut Socket,
    message: &OutgoingMessage,
) -> (Option<u16>, String) {
    let mut sent = false;
    loop {
        match socket.turn(!sent, true).await {
            Turn::Writable => {
                sent = true;
                // Before the bytes leave, as everywhere: nobody can have it earlier than its record says.
                recorder.sends(conn, message, false);
                if let Err(reason) = socket.put(frame::publish(message)) {
                    return (None, reason);
                }
            }
            Turn::Text(text) => {
                let frame = match ServerFrame::parse(&text) {
                    Ok(frame) => frame,
                    Err(reason) => return (OWN_WISH, reason),
                };
                // Messages come here as well if the server is wrong: the judge wants to see them.
                recorder.heard(conn, &frame);
                if let (Whose::Publish(n), Some(outcome)) = (frame.whose(), frame.outcome()) {
                    recorder.answered(conn, n, outcome, None);
                    return (OWN_WISH, "answered".to_owned());
                }
            }
            Turn::Close(code, reason) => return (code, reason),
            Turn::Broken(reason) => return (None, reason),
        }
    }
}
