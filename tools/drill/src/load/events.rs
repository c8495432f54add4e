//! A client that reads one room by server-sent events, as a browser would: it sends back the last `id`, waits as `retry`
//! told, and knows by its last chunk whether a body is whole. Written from the description of the wire alone.

mod body;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use sluice_client::raw::{self, Stream};
use sluice_judge::record::ClientEvent;
use sluice_load::comeback::Comeback;
use sluice_load::server_frame::ServerFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::http::Uri;

use self::body::{Body, Dispatched};
use super::plan::ClientSpec;
use super::recorder::{OWN_WISH, Recorder};
use super::shared::{LoadPhase, LoadShared};
use crate::seed::Seed;

/// From the first byte sent to `welcome`.
const CONNECT: Duration = Duration::from_secs(10);
/// Before coming back to a server that said not to: the load goes on all the same.
const UNWANTED: Duration = Duration::from_secs(2);
/// Bytes of a head.
const HEAD_MAX: usize = 16 * 1024;

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

/// A stream whose head was 200.
struct Opened {
    stream: Stream,
    body: Body,
    url: String,
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

    /// Asks, and reads the head of the answer.
    async fn open(&self, url: &str) -> Result<Opened, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let dialled = raw::dial(&uri, &self.shared.endpoints.trust(), None).await;
        let mut stream = dialled.map_err(|error| error.to_string())?;
        let room = self.spec.rooms.first().map(String::as_str).unwrap_or_default();
        let mut request = format!("GET /sse?room={} HTTP/1.1\r\nHost: {host}\r\n", percent(room));
        if let Some(token) = self.shared.endpoints.token(&self.spec.user) {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if !self.last_id.is_empty() {
            request.push_str(&format!("Last-Event-ID: {}\r\n", self.last_id));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let count = stream.read_buf(&mut bytes).await.map_err(|error| error.to_string())?;
            if count == 0 || bytes.len() > HEAD_MAX {
                return Err("no answer of HTTP".to_owned());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(head.lines().next().unwrap_or_default().to_owned());
        }
        let body = Body::beginning(bytes.split_off(end));
        Ok(Opened { stream, body, url: url.to_owned() })
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
        if !std::mem::replace(&mut self.gathered, true) {
            self.shared.one_is_ready();
        }
        Ok(None)
    }

    /// What the request asked for. It was sent before `welcome` came, which names the connection.
    fn note_sub(&self, conn: u32) {
        for (room, held) in self.recorder.state.wanted() {
            let epoch = held.last.is_some().then_some(held.epoch);
            self.recorder.note(&ClientEvent::Sub { conn, room, after: held.last, epoch });
        }
    }

    fn keep(&mut self, event: &Dispatched) {
        if let Some(id) = &event.id {
            self.last_id.clone_from(id);
        }
    }
}

/// As it stands in a URL.
fn percent(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(one).collect()
}
