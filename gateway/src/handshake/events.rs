//! What a reader of server-sent events asks for: `GET /sse?room=news&room=sport`, and where it goes on. Pure.
//!
//! A position is told as the `id` of events ([`crate::session::event`]) and comes back as `Last-Event-ID`: the seq of the
//! one room, or `room=seq` of each, with the epoch before them.

use std::net::IpAddr;

use form_urlencoded::parse;
use http::header::{ACCEPT, HeaderName};
use percent_encoding::percent_decode_str;
use sluice_proto::ids::{Epoch, RoomId, Seq};

use super::cors::Cors;
use super::head::Head;
use super::refusal::Refusal;
use super::{Credential, bearer};
use crate::defaults::{EVENT_ROOM_BYTES_MAX, EVENT_ROOMS_MAX};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A room to read, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAsked {
    /// The room.
    pub room: RoomId,
    /// The last position seen; `None` = from now.
    pub after: Option<Seq>,
    /// Epoch of `after`.
    pub epoch: Option<Epoch>,
}

/// A stream that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct EventRequest {
    /// What it reads, each room once.
    pub rooms: Vec<RoomAsked>,
    /// The head of the answer, if it is let in.
    pub head: Vec<u8>,
    /// Where the page comes from that reads the answer.
    pub cors: Cors,
    /// An `EventSource`: one that is to come back has to be told so by an event.
    pub event_source: bool,
    /// Where the client comes from.
    pub client: Option<IpAddr>,
}

impl EventRequest {
    /// The refusal as the answer to this request.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> Refusal {
        refusal.for_reader(&self.cors, self.event_source)
    }
}

/// An `EventSource` gives up for ever at any status but 200; it comes back after a stream that ends.
pub(super) fn is_event_source(head: &Head) -> bool {
    head.names(&ACCEPT, "text/event-stream")
}

/// Reads the request; the head of its answer is written when it is let in.
pub(super) fn read(
    head: &Head,
    cors: Cors,
    client: Option<IpAddr>,
) -> Result<(EventRequest, Credential), Refusal> {
    let mut asked = Query::default();
    let query = head.target.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in parse(query.as_bytes()) {
        asked.take(&name, &value)?;
    }
    if asked.rooms.is_empty() {
        return Err(Refusal::bad_request(
            "name the room: /sse?room=news, or several: /sse?room=news&room=sport",
        ));
    }
    let by_header = match head.headers.get_all(LAST_EVENT_ID).iter().count() {
        0 => None,
        1 => head.only(&LAST_EVENT_ID),
        _ => return Err(Refusal::bad_request("Last-Event-ID is there twice")),
    };
    // The header first: in the URL of a page stands where it began, and the browser goes on from there.
    let last = by_header.filter(|id| !id.is_empty()).or(asked.last_event_id).unwrap_or_default();
    go_on(&mut asked.rooms, &last)?;
    let credential = match (bearer(head), asked.ticket) {
        (Some(_), Some(_)) => {
            return Err(Refusal::bad_request("there is a token and a ticket: one of them says who asks"));
        }
        (None, Some(ticket)) => Credential::Ticket(ticket),
        (token, None) => Credential::Token(token),
    };
    let head_text = answer_head(&cors);
    let event_source = is_event_source(head);
    Ok((EventRequest { rooms: asked.rooms, head: head_text, cors, event_source, client }, credential))
}

fn answer_head(cors: &Cors) -> Vec<u8> {
    // no-transform and X-Accel-Buffering: a proxy that collects a body before it passes it on passes on nothing.
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n\
         X-Accel-Buffering: no\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{}\r\n",
        cors.headers()
    )
    .into_bytes()
}

#[derive(Default)]
struct Query {
    rooms: Vec<RoomAsked>,
    /// As they stand in an id.
    name_bytes: usize,
    ticket: Option<String>,
    last_event_id: Option<String>,
}

impl Query {
    fn take(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "room" => self.room(value),
            "ticket" => once(&mut self.ticket, name, value),
            "last-event-id" => once(&mut self.last_event_id, name, value),
            // It would be in the log of every proxy, and in the history of the browser.
            "token" | "access_token" | "authorization" => {
                let why = "a token never stands in a URL: send the header Authorization: Bearer, or where that \
                           cannot be, as in EventSource, a ticket that POST /ticket gives for it: ?ticket=…";
                Err(Refusal::bad_request(why))
            }
            // Refused, not passed over: a misspelt last-event-id would be a gap that nobody sees.
            _ => {
                let why = format!("/sse has no parameter {name:?}; it takes room, ticket and last-event-id");
                Err(Refusal::bad_request(why))
            }
        }
    }

    fn room(&mut self, name: &str) -> Result<(), Refusal> {
        let room = RoomId::parse_from_client(name).map_err(|why| Refusal::bad_request(why.to_string()))?;
        if self.rooms.iter().any(|asked| asked.room == room) {
            return Err(Refusal::bad_request(format!("room {name:?} is there twice")));
        }
        // All of it comes back as an id, in a header that has to fit into a request as well.
        self.name_bytes +=
            name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum::<usize>();
        if self.rooms.len() >= EVENT_ROOMS_MAX || self.name_bytes > EVENT_ROOM_BYTES_MAX {
            let why = format!(
                "a stream has at most {EVENT_ROOMS_MAX} rooms, with {EVENT_ROOM_BYTES_MAX} bytes of names as they \
                 stand in a URL: open another one, or a WebSocket"
            );
            return Err(Refusal::bad_request(why));
        }
        self.rooms.push(RoomAsked { room, after: None, epoch: None });
        Ok(())
    }
}

fn once(field: &mut Option<String>, name: &str, value: &str) -> Result<(), Refusal> {
    match field.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad_request(format!("{name} is there twice"))),
    }
}

/// Sets where each room goes on, by an id; an empty one says nothing. A room that it does not name begins now.
fn go_on(rooms: &mut [RoomAsked], id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Ok(());
    }
    let (epoch, positions) = match id.split_once(':') {
        Some((epoch, positions)) => match Epoch::parse(epoch) {
            Some(epoch) => (Some(epoch), positions),
            None => return Err(unreadable(id)),
        },
        None => (None, id),
    };
    if let ([only], Some(seq)) = (&mut *rooms, seq(positions)) {
        (only.after, only.epoch) = (Some(seq), epoch);
        return Ok(());
    }
    for position in positions.split(',') {
        let (name, at) = position.split_once('=').ok_or_else(|| unreadable(id))?;
        let name = percent_decode_str(name).decode_utf8().map_err(|_| unreadable(id))?;
        let seq = seq(at).ok_or_else(|| unreadable(id))?;
        // Most likely misspelt: the room that was meant would begin now, and nobody would see the gap.
        let Some(asked) = rooms.iter_mut().find(|asked| asked.room.as_str() == name) else {
            let why = format!("the last event id names room {name:?}, which is not asked for");
            return Err(Refusal::bad_request(why));
        };
        if asked.after.is_some() {
            return Err(unreadable(id));
        }
        (asked.after, asked.epoch) = (Some(seq), epoch);
    }
    Ok(())
}

/// Digits and nothing else: the library would take a sign too.
fn seq(text: &str) -> Option<Seq> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn unreadable(id: &str) -> Refusal {
    Refusal::bad_request(format!(
        "the last event id {:?} cannot be read: send back the id of an event, or write the last seq you have, \
         for example 58, with several rooms news=58,sport=7, and its epoch in front, 0123456789abcdef:58",
        &id[..id.floor_char_boundary(80)]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::event::Positions;

    fn request(target: &str, lines: &str) -> Result<(EventRequest, Credential), String> {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = Head::read(text.as_bytes()).unwrap().unwrap();
        read(&head, Cors::default(), None).map_err(|refusal| refusal.why)
    }

    /// A room, and the position and epoch it goes on from.
    type Asked = (String, Option<Seq>, Option<u64>);

    fn asked(target: &str, id: &str) -> Result<Vec<Asked>, String> {
        let lines = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
        let (request, _) = request(target, &lines)?;
        let of = |asked: RoomAsked| (asked.room.to_string(), asked.after, asked.epoch.map(|epoch| epoch.0));
        Ok(request.rooms.into_iter().map(of).collect())
    }

    #[test]
    fn rooms_and_where_they_go_on() {
        let one = |after, epoch| Ok(vec![("news".to_owned(), after, epoch)]);
        assert_eq!(asked("/sse?room=news", ""), one(None, None));
        assert_eq!(asked("/sse?room=news", "41"), one(Some(41), None));
        assert_eq!(asked("/sse?room=news", "000000000000001f:0"), one(Some(0), Some(0x1f)));
        assert_eq!(asked("/sse?room=news", "news=41"), one(Some(41), None));
        assert_eq!(asked("/sse?room=news&last-event-id=7", ""), one(Some(7), None));
        assert_eq!(asked("/sse?room=news&last-event-id=7", "9"), one(Some(9), None), "the browser went on");
        let two = asked("/sse?room=a+b&room=%C3%A9", "000000000000001f:%C3%A9=7,a%20b=58").unwrap();
        assert_eq!(two, [("a b".into(), Some(58), Some(0x1f)), ("é".into(), Some(7), Some(0x1f))]);
        let new = asked("/sse?room=a&room=b", "000000000000001f:b=7").unwrap();
        assert_eq!(new, [("a".into(), None, None), ("b".into(), Some(7), Some(0x1f))]);
    }

    #[test]
    fn an_id_that_was_told_is_read_back() {
        let rooms = ["a,b=c:d é%", "@ann", "x"].map(|name| RoomId::parse(name).unwrap());
        let mut told = Positions::default();
        for (room, seq) in rooms.iter().zip([u64::MAX, 0, 3]) {
            told.add(room, Some(Epoch(5)), Some(seq));
        }
        let id = told.told().unwrap().to_string();
        let target = "/sse?room=a%2Cb%3Dc%3Ad+%C3%A9%25&room=@ann&room=x";
        let after: Vec<_> = asked(target, &id).unwrap().into_iter().map(|(_, after, _)| after).collect();
        assert_eq!(after, [Some(u64::MAX), Some(0), Some(3)], "{id}");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_write() {
        let many: String = (0..=EVENT_ROOMS_MAX).map(|n| format!("&room=r{n}")).collect();
        let long: String = (0..20).map(|n| format!("&room={n}{}", "%20x".repeat(60))).collect();
        for (target, id, why) in [
            ("/sse", "", "name the room"),
            ("/sse?", "", "name the room"),
            ("/sse?room=", "", "room is empty"),
            ("/sse?room=a*", "", "\"*\""),
            ("/sse?room=a&room=a", "", "twice"),
            ("/sse?rom=a", "", "no parameter \"rom\""),
            ("/sse?room=a&token=x", "", "never stands in a URL"),
            ("/sse?room=a&ticket=1&ticket=2", "", "twice"),
            ("/sse?room=a", "x", "cannot be read"),
            ("/sse?room=a", "-1", "cannot be read"),
            ("/sse?room=a", "+1", "cannot be read"),
            ("/sse?room=a", "18446744073709551616", "cannot be read"),
            ("/sse?room=a", "1f:58", "cannot be read"),
            ("/sse?room=a", "000000000000001f:", "cannot be read"),
            ("/sse?room=a", "a=1,a=2", "cannot be read"),
            ("/sse?room=a", "b=1", "not asked for"),
            ("/sse?room=a&room=b", "58", "cannot be read"),
            (&format!("/sse?{}", &many[1..]), "", "at most"),
            (&format!("/sse?{}", &long[1..]), "", "at most"),
        ] {
            let refused = asked(target, id).expect_err(target);
            assert!(refused.contains(why), "{target} {id}: {refused}");
        }
    }

    #[test]
    fn who_asks_is_said_by_a_token_or_a_ticket() {
        let credential = |target, lines: &str| request(target, lines).map(|(_, credential)| credential);
        let bearer = "Authorization: Bearer a.b.c\r\n";
        assert_eq!(credential("/sse?room=a", ""), Ok(Credential::Token(None)));
        assert_eq!(credential("/sse?room=a", bearer), Ok(Credential::Token(Some("a.b.c".into()))));
        assert_eq!(credential("/sse?room=a&ticket=7", ""), Ok(Credential::Ticket("7".into())));
        assert!(credential("/sse?room=a&ticket=7", bearer).is_err());
        let source = |lines: &str| request("/sse?room=a", lines).map(|(request, _)| request.event_source);
        assert_eq!(source("Accept: text/event-stream\r\n"), Ok(true));
        assert_eq!(source("Accept: */*\r\n"), Ok(false), "curl");
    }
}
