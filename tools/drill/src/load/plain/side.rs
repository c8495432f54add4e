//! A second connection of a client, for one message that went over the first already: the same key over two gateways is
//! one message. It subscribes to nothing.

use std::sync::Arc;
use std::time::Duration;

use sluice_checker::record::What;
use tokio::time::{Instant, timeout_at};

use super::super::diary::{Diary, OWN_WISH};
use super::super::letter::Letter;
use super::heard::{self, Heard, Whose};
use super::hearing::farewell;
use super::socket::{Socket, Turn};

/// All of it ends within this.
const BOUND: Duration = Duration::from_secs(10);

pub(super) async fn send_once_more(diary: Arc<Diary>, url: String, token: Option<String>, letter: Letter) {
    let until = Instant::now() + BOUND;
    let (mut socket, welcome) = match timeout_at(until, super::enter(&url, token.as_deref(), false)).await {
        Ok(Ok(entered)) => entered,
        Ok(Err(reason)) => return diary.failed(url, reason),
        Err(_) => return diary.failed(url, format!("no welcome within {BOUND:?}")),
    };
    let conn = diary.opened(url, welcome.instance, welcome.epoch);
    let (code, reason) = match timeout_at(until, ask(&diary, conn, &mut socket, &letter)).await {
        Ok(ended) => ended,
        Err(_) => (OWN_WISH, format!("no answer within {BOUND:?}")),
    };
    if code == OWN_WISH {
        socket.goodbye().await;
    }
    diary.note(&What::Closed { conn, code, reason });
}

/// Sends and waits for the answer; how the connection ends.
async fn ask(diary: &Diary, conn: u32, socket: &mut Socket, letter: &Letter) -> (Option<u16>, String) {
    let mut sent = false;
    loop {
        match socket.turn(!sent, true).await {
            Turn::Writable => {
                sent = true;
                diary.sends(conn, letter, false);
                if let Err(reason) = socket.put(heard::publish(letter)) {
                    return (None, reason);
                }
            }
            Turn::Text(text) => {
                let heard = match Heard::parse(&text) {
                    Ok(heard) => heard,
                    Err(reason) => return (OWN_WISH, reason),
                };
                farewell(diary, conn, &heard);
                if let (Whose::Publish(n), Some(outcome)) = (heard.whose(), heard.outcome()) {
                    diary.answered(conn, n, outcome, None);
                    return (OWN_WISH, "answered".to_owned());
                }
            }
            Turn::Close(code, reason) => return (code, reason),
            Turn::Broken(reason) => return (None, reason),
        }
    }
}
