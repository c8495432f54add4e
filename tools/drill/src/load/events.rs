//! A client that reads rooms by server-sent events, as `curl` would with a token, or as a browser with a ticket: it sends
//! back the last `id`, waits as `retry` told, and knows by its last chunk whether a body is whole. Written from the
//! description of the wire alone.

mod ask;
mod body;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_judge::record::ClientEvent;
use sluice_load::comeback::Comeback;
use sluice_load::server_frame::ServerFrame;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use self::ask::{Opened, position};
use self::body::Dispatched;
use super::plan::ClientSpec;
use super::recorder::{OWN_WISH, Recorder};
use super::shared::{LoadPhase, LoadShared};
use crate::seed::Seed;

/// From the first byte sent to `welcome`.
const CONNECT: Duration = Duration::from_secs(10);
/// Before coming back to a server that said not to: the load goes on all the same.
const UNWANTED: Duration = Duration::from_secs(2);

/// What outlives a connection.
struct EventReader {
    shared: Arc<LoadShared>,
    spec: ClientSpec,
    recorder: Arc<Recorder>,
    rng: SmallRng,
    /// Which gateway is next.
    gateway: usize,
    comeback: Comeback,
    gathered: bool,
    /// The last id that came.
    last_id: String,
}

/// Lives until the load ends.
pub(super) async fn live(shared: Arc<LoadShared>, spec: ClientSpec, recorder: Arc<Recorder>) {
    let rng = Seed(shared.plan.seed).stream("event readers", spec.client);
    let gateway = spec.client as usize;
    let (comeback, last_id) = (Comeback::default(), String::new());
    let mut reader = EventReader { shared, spec, recorder, rng, gateway, comeback, gathered: false, last_id };
    reader.live().await;
    reader.recorder.note(&ClientEvent::End);
}

impl EventReader {
    async fn live(&mut self) {
        while self.shared.phase() < LoadPhase::End {
            let url = self.shared.endpoints.url(self.gateway);
            let opened = timeout(CONNECT, self.open(&url)).await;
            let told = match opened.unwrap_or_else(|_| Err(format!("no answer within {CONNECT:?}"))) {
                Ok(opened) => self.read(opened).await,
                Err(reason) => {
                    self.comeback.failed();
                    self.recorder.failed(url, reason);
                    None
                }
            };
            let gateways = self.shared.endpoints.count();
            let pause = self.comeback.pause(told, gateways, self.rng.random());
            let (turn, at) =
                self.comeback.choose(self.gateway + 1, gateways, (Instant::now() + pause).into_std());
            self.gateway = turn;
            tokio::select! {
                () = sleep_until(Instant::from_std(at)) => {}
                () = self.shared.reaches(LoadPhase::End) => {}
            }
        }
    }

    /// Reads until the end; when to come back, if that was told.
    async fn read(&mut self, opened: Opened) -> Option<Duration> {
        let Opened { mut stream, mut body, url } = opened;
        let mut conn = None;
        let mut told = None;
        let mut code = None;
        let ended = loop {
            while let Some(event) = body.next() {
                match self.on_event(&event, &mut conn, &url) {
                    Ok(parted) => {
                        told = parted.as_ref().map_or(told, |(_, again)| Some(*again));
                        code = parted.map_or(code, |(code, _)| code);
                    }
                    Err(reason) => body.fails(reason),
                }
            }
            // Only the end of the body says that nothing was cut off.
            if let Some(end) = body.end() {
                break end;
            }
            tokio::select! {
                biased;
                () = self.shared.reaches(LoadPhase::End) => {
                    if let Some(conn) = conn {
                        self.recorder.closed(conn, OWN_WISH, "goodbye");
                    }
                    return None;
                }
                read = stream.read_buf(body.buffer()) => match read {
                    Ok(0) => body.ends(),
                    Ok(_) => {}
                    Err(error) => body.fails(error.to_string()),
                }
            }
        };
        let Some(conn) = conn else {
            self.comeback.failed();
            self.recorder.failed(url, ended.err().unwrap_or_else(|| "an end before welcome".to_owned()));
            return told;
        };
        match ended {
            Ok(()) => self.recorder.closed(conn, code, "the body is whole"),
            Err(reason) => self.recorder.closed(conn, None, &reason),
        }
        told
    }

    /// What an event means; after a `drain` or `bye` the code of the end, and when to come back.
    fn on_event(
        &mut self,
        event: &Dispatched,
        conn: &mut Option<u32>,
        url: &str,
    ) -> Result<Option<(Option<u16>, Duration)>, String> {
        if event.data.is_empty() {
            self.keep(event);
            return Ok(None);
        }
        let frame = ServerFrame::parse(&event.data)?;
        let Some(conn) = *conn else {
            // A gateway that stops says so to whom it does not let in.
            if let Some(bye) = &frame.bye {
                return Ok(Some((Some(bye.code), Duration::from_millis(bye.reconnect_ms.unwrap_or(0)))));
            }
            let welcome = frame.welcome.ok_or("something before welcome")?;
            let number = self.recorder.moved(url.to_owned(), welcome.instance, welcome.epoch);
            self.comeback.connected();
            self.note_sub(number);
            *conn = Some(number);
            return Ok(None);
        };
        if self.recorder.heard(conn, &frame) {
            self.keep(event);
            let drain = frame.drain.map(|drain| (None, Duration::from_millis(drain.reconnect_ms)));
            let bye = frame.bye.map(|bye| {
                let again = bye.reconnect_ms.map_or(UNWANTED, Duration::from_millis);
                (Some(bye.code), if bye.reconnect { again } else { UNWANTED })
            });
            return Ok(bye.or(drain));
        }
        let room = frame.room.as_deref().unwrap_or_default();
        let asked = self.recorder.state.held(room).is_some_and(|held| !held.live);
        if frame.ok.as_deref() != Some("sub") || !self.recorder.confirmed(conn, &frame, asked) {
            return Err("a frame that nobody knows".to_owned());
        }
        self.keep(event);
        if !self.gathered && self.recorder.state.is_live() {
            self.gathered = true;
            self.shared.one_is_ready();
        }
        Ok(None)
    }

    /// What the request asked for. It was sent before `welcome` came, which names the connection. By the id, not by what
    /// came: of several rooms it is told after the messages it is about, and those come again.
    fn note_sub(&self, conn: u32) {
        let several = self.spec.rooms.len() > 1;
        for room in &self.spec.rooms {
            let (after, epoch) = position(&self.last_id, room, several).unzip();
            self.recorder.note(&ClientEvent::Sub { conn, room: room.clone(), after, epoch });
        }
    }

    fn keep(&mut self, event: &Dispatched) {
        if let Some(id) = &event.id {
            self.last_id.clone_from(id);
        }
    }
}
