//! What a reader of events asks a gateway for: a ticket, and a stream of its rooms from where it stands.

use sluice_client::raw::{self, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::http::Uri;

use super::super::plan::ClientKind;
use super::EventReader;
use super::body::Body;

/// Bytes of a head.
const HEAD_MAX: usize = 16 * 1024;
/// Bytes of a ticket and what is around it.
const TICKET_MAX: usize = 16 * 1024;

/// A stream whose head was 200.
pub(super) struct Opened {
    pub stream: Stream,
    pub body: Body,
    pub url: String,
}

impl EventReader {
    /// Asks for the stream, and reads the head of the answer.
    pub(super) async fn open(&self, url: &str) -> Result<Opened, String> {
        let mut target = String::from("/sse?");
        for room in &self.spec.rooms {
            target.push_str(&format!("room={}&", percent(room)));
        }
        let mut lines = String::new();
        if self.spec.kind == ClientKind::EventSource {
            lines.push_str("Accept: text/event-stream\r\n");
            target.push_str(&format!("ticket={}&", percent(&self.ticket(url).await?)));
            // It is made anew for each ticket, so it knows no header of its own.
            target.push_str(&format!("last-event-id={}", percent(&self.last_id)));
        } else {
            lines.push_str(&self.authorization());
            if !self.last_id.is_empty() {
                lines.push_str(&format!("Last-Event-ID: {}\r\n", self.last_id));
            }
        }
        let (stream, rest) = self.ask(url, "GET", target.trim_end_matches('&'), &lines).await?;
        Ok(Opened { stream, body: Body::beginning(rest), url: url.to_owned() })
    }

    /// A ticket, which is good at any gateway: of another one, where that answers.
    async fn ticket(&self, url: &str) -> Result<String, String> {
        let other = self.shared.endpoints.url(self.gateway + 1);
        match self.ticket_of(&other).await {
            Ok(ticket) => Ok(ticket),
            Err(_) => self.ticket_of(url).await,
        }
    }

    async fn ticket_of(&self, url: &str) -> Result<String, String> {
        let lines = format!("{}Content-Length: 0\r\n", self.authorization());
        let (mut stream, mut body) = self.ask(url, "POST", "/ticket", &lines).await?;
        loop {
            let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            if let Some(ticket) = said.as_ref().and_then(|said| said.get("ticket")?.as_str()) {
                return Ok(ticket.to_owned());
            }
            let count = stream.read_buf(&mut body).await.map_err(|error| error.to_string())?;
            if count == 0 || body.len() > TICKET_MAX {
                return Err("no ticket in the answer".to_owned());
            }
        }
    }

    fn authorization(&self) -> String {
        let token = self.shared.endpoints.token(&self.spec.user);
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default()
    }

    /// One request on a connection of its own; the connection and what came behind the head, which was 200.
    async fn ask(
        &self,
        url: &str,
        method: &str,
        target: &str,
        lines: &str,
    ) -> Result<(Stream, Vec<u8>), String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let dialled = raw::dial(&uri, &self.shared.endpoints.trust(), None).await;
        let mut stream = dialled.map_err(|error| error.to_string())?;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
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
        let rest = bytes.split_off(end);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{target:.7}: {}", head.lines().next().unwrap_or_default()));
        }
        Ok((stream, rest))
    }
}

/// As it stands in a URL, and in an id.
fn percent(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~@".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(one).collect()
}

/// Where an id says that a room stands, and in which epoch. `several`: it names its rooms.
pub(super) fn position(id: &str, room: &str, several: bool) -> Option<(u64, String)> {
    let (epoch, positions) = id.split_once(':')?;
    let seq = if several {
        let name = percent(room);
        let mut named = positions.split(',').filter_map(|position| position.split_once('='));
        named.find(|(told, _)| *told == name)?.1
    } else {
        positions
    };
    Some((seq.parse().ok()?, epoch.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_each_room_stands() {
        let at = |seq, epoch: &str| Some((seq, epoch.to_owned()));
        assert_eq!(position("0f:58", "drill-1/r-2", false), at(58, "0f"));
        let several = "0f:drill-1%2Fr-2=58,sport=7";
        assert_eq!(position(several, "drill-1/r-2", true), at(58, "0f"));
        assert_eq!(position(several, "sport", true), at(7, "0f"));
        assert_eq!(position(several, "news", true), None);
        assert_eq!(position("", "news", true), None);
    }
}
