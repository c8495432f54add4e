//! What the client must remember across connections: publishes without an answer, in order; subscriptions and how far
//! each has come. Pure: frames in, frames and events out. It never touches a socket or a clock.

mod publish;
mod rooms;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use sluice_proto::wire::codec::{HistoryRange, PresentPage};
use sluice_proto::wire::{Bye, Drain, Welcome};
use tokio::sync::oneshot;

use crate::defaults::REQUESTS_MAX;
use crate::error::Error;
use crate::event::{Event, HistoryPage, Subscribed};
use crate::frame::{After, OutgoingFrame, PresenceField, ServerFrame, TokenField};
use crate::options::Position;
pub(crate) use publish::{Ask, Publish};
use rooms::Rooms;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A request that is not repeated when the connection ends.
#[derive(Debug)]
pub(crate) enum PendingRequest {
    Unsubscribe(String, Reply<()>),
    History {
        room: String,
        range: HistoryRange,
        limit: Option<u32>,
        reply: Reply<HistoryPage>,
    },
    Presence {
        room: String,
        after: Option<String>,
        limit: Option<u32>,
        reply: Reply<PresentPage>,
    },
    Ping(Reply<()>),
    /// The answer is the end of the token, milliseconds since 1970.
    Refresh(String, Reply<Option<i64>>),
}

/// Which connection a frame came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The one that is used.
    Active,
    /// One that was left behind by a move: only answers count.
    Old,
}

/// What a frame asks the driver to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing more.
    Nothing,
    /// A publish was answered `retry:true`: send nothing new, a `bye` will follow.
    Fenced,
    /// Fetch another token: the one in use ends within this.
    Renew(Duration),
    /// This token is in force.
    Keep(String),
    /// Move to another gateway.
    Move(Drain),
    /// A close will follow.
    Leave(Bye),
    /// The server says what makes no sense, or cannot serve a subscription now: connect anew.
    Reconnect(String),
}

#[derive(Debug, Default)]
pub(crate) struct ClientState {
    last_id: u64,
    /// By id, which is the order of sending.
    outbox: BTreeMap<u64, Publish>,
    /// All ids up to this one were sent on the active connection.
    sent_to: u64,
    /// Ids up to this one may have been sent on a connection before.
    old_to: u64,
    fenced: bool,
    rooms: Rooms,
    requests: HashMap<u64, PendingRequest>,
    /// Waiting for the reader.
    pub events: VecDeque<Event>,
    /// Tell of every step.
    pub(crate) detailed: bool,
}

impl ClientState {
    pub(crate) fn new(detailed: bool) -> Self {
        Self { detailed, ..Self::default() }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn publish(&mut self, publish: Publish) {
        let id = self.id();
        self.outbox.insert(id, publish);
    }

    /// The next publish to send on the active connection, oldest first.
    pub(crate) fn next_publish(&mut self) -> Option<String> {
        if self.fenced {
            return None;
        }
        // By id, which is the order of submission: also after a reconnect the oldest goes first.
        let (id, publish) = self.outbox.range(self.sent_to + 1..).next()?;
        self.sent_to = *id;
        Some(publish.frame(*id))
    }

    /// A new subscription; the frame to send when connected.
    pub(crate) fn subscribe(
        &mut self,
        room: String,
        at: Position,
        watches: bool,
        reply: Reply<Subscribed>,
    ) -> Option<String> {
        let id = self.id();
        self.rooms.open(room, (at, watches), id, reply)
    }

    /// The frame of a request. One too many is answered at once.
    pub(crate) fn request(&mut self, request: PendingRequest) -> Option<String> {
        // Bounded: answers may never come, and each waits for one.
        if self.requests.len() >= REQUESTS_MAX {
            request.fail(&Error::Busy);
            return None;
        }
        let id = self.id();
        if let PendingRequest::Unsubscribe(room, _) = &request
            // Closed here at once: a message on its way must not be delivered after this call.
            && self.rooms.close(room)
            && self.detailed
        {
            self.events.push_back(Event::Left { room: room.clone() });
        }
        let text = request.frame(id);
        self.requests.insert(id, request);
        Some(text)
    }

    /// A connection stands: everything unanswered is to be sent on it again; returns the subscriptions' frames.
    pub(crate) fn attach(&mut self, welcome: Welcome) -> Vec<String> {
        // Everything without an answer is sent again; its key makes that safe.
        self.sent_to = 0;
        // What was sent before may still be answered by the connection left behind.
        self.old_to = self.last_id;
        self.fenced = false;
        self.events.push_back(Event::Connected(welcome));
        let mut next = self.last_id;
        let frames = self.rooms.ask_all(|| {
            next += 1;
            next
        });
        self.last_id = next;
        if self.detailed {
            self.events.extend(self.rooms.asked(None));
        }
        frames
    }

    /// The `sub` of this room was sent.
    pub(crate) fn asked(&mut self, room: &str) {
        if self.detailed {
            self.events.extend(self.rooms.asked(Some(room)));
        }
    }

    /// The last connection ended: requests have lost their answers.
    pub(crate) fn detach(&mut self) {
        for (_, request) in self.requests.drain() {
            request.fail(&Error::Disconnected);
        }
    }

    /// A connection left behind ended: so have the requests that it was to answer.
    pub(crate) fn detach_old(&mut self) {
        let old_to = self.old_to;
        for (_, request) in self.requests.extract_if(|id, _| *id <= old_to) {
            request.fail(&Error::Disconnected);
        }
    }

    /// Nothing will ever be answered.
    pub(crate) fn end(&mut self, error: &Error) {
        for (_, publish) in std::mem::take(&mut self.outbox) {
            publish.fail(error);
        }
        for (_, request) in self.requests.drain() {
            request.fail(error);
        }
        self.rooms.end(error);
    }

    /// Whether a connection left behind may still bring something: publishes without an answer, requests,
    /// subscriptions that the new connection has not confirmed.
    pub(crate) fn needs_old(&self) -> bool {
        let request = self.requests.keys().any(|id| *id <= self.old_to);
        request || self.rooms.any_asked() || self.outbox.range(..=self.old_to).next().is_some()
    }

    pub(crate) fn frame(&mut self, text: &str, source: Source) -> Then {
        let frame = match ServerFrame::parse(text) {
            Ok(frame) => frame,
            Err(error) => return Then::Reconnect(error),
        };
        // Answers count whichever connection brings them.
        if frame.ok.is_some() || frame.error.is_some() {
            return self.answer(frame, source);
        }
        // Messages come by the new connection, which was asked from the last one seen.
        if source == Source::Old {
            return Then::Nothing;
        }
        if let Some(drain) = frame.drain {
            self.events.push_back(Event::Drain(drain.clone()));
            return Then::Move(drain);
        }
        if let Some(expiring) = frame.expiring {
            let within = Duration::from_millis(expiring.within_ms);
            self.events.push_back(Event::Expiring { within });
            return Then::Renew(within);
        }
        if let Some(bye) = frame.bye {
            self.events.push_back(Event::Bye(bye.clone()));
            return Then::Leave(bye);
        }
        if frame.skipped.is_some() || frame.msg.is_some() {
            self.events.extend(self.rooms.delivery(frame));
        } else if frame.unsubscribed.is_some() {
            self.events.extend(self.rooms.ended(frame));
        } else {
            self.events.extend(self.rooms.told(frame));
        }
        Then::Nothing
    }

    fn answer(&mut self, frame: ServerFrame, source: Source) -> Then {
        let Some(id) = frame.id else { return self.unsolicited(frame, source) };
        // Ids are never used twice, so the three kinds of answers cannot be confused.
        if self.outbox.contains_key(&id) {
            return self.published(id, frame, source);
        }
        if let Some(request) = self.requests.remove(&id) {
            return request.answer(frame);
        }
        match self.rooms.answer(id, frame) {
            Ok(event) => {
                // Who came and left meanwhile was told to nobody.
                let stale = event.as_ref().and_then(|event| self.rooms.stale_after(event));
                self.events
                    .extend(event.filter(|event| self.detailed || !matches!(event, Event::Subscribed(_))));
                self.events.extend(stale);
                Then::Nothing
            }
            Err(why) => Then::Reconnect(why),
        }
    }

    fn published(&mut self, id: u64, frame: ServerFrame, source: Source) -> Then {
        if let Some(error) = &frame.error
            && error.retry
        {
            // still unanswered; a move has sent it again already
            // The old connection's fence is history: its publishes are sent again already.
            let fences = source == Source::Active && !std::mem::replace(&mut self.fenced, true);
            return if fences { Then::Fenced } else { Then::Nothing };
        }
        // Both connections may answer the same publish: the first counts.
        let Some(publish) = self.outbox.remove(&id) else { return Then::Nothing };
        publish.answer(frame);
        Then::Nothing
    }

    fn unsolicited(&mut self, frame: ServerFrame, source: Source) -> Then {
        if source == Source::Active {
            let event = match frame.error {
                Some(error) => Some(Event::Error(error)),
                None => self.rooms.moved(frame),
            };
            self.events.extend(event);
        }
        Then::Nothing
    }
}

impl PendingRequest {
    fn frame(&self, id: u64) -> String {
        let frame = match self {
            Self::Unsubscribe(room, _) => OutgoingFrame { unsub: Some(room), ..OutgoingFrame::default() },
            Self::History { room, range, limit, .. } => {
                let frame = OutgoingFrame { history: Some(room), limit: *limit, ..OutgoingFrame::default() };
                match range {
                    HistoryRange::Newest => frame,
                    HistoryRange::Before(seq) => OutgoingFrame { before: Some(*seq), ..frame },
                    HistoryRange::After(seq) => OutgoingFrame { after: Some(After::Seq(*seq)), ..frame },
                }
            }
            Self::Presence { room, after, limit, .. } => {
                let after = after.as_deref().map(After::User);
                {
                    let presence = Some(PresenceField::Of(room));
                    OutgoingFrame { presence, after, limit: *limit, ..OutgoingFrame::default() }
                }
            }
            Self::Refresh(token, _) => {
                OutgoingFrame { refresh: Some(TokenField { token }), ..OutgoingFrame::default() }
            }
            Self::Ping(_) => OutgoingFrame { ping: Some(1), ..OutgoingFrame::default() },
        };
        OutgoingFrame { id, ..frame }.text()
    }

    fn answer(self, frame: ServerFrame) -> Then {
        if let Some(error) = frame.error {
            self.fail(&Error::Answer(error));
            return Then::Nothing;
        }
        // whoever asked may have gone
        match self {
            Self::Unsubscribe(_, reply) | Self::Ping(reply) => reply.send(Ok(())).ok(),
            Self::History { reply, .. } => {
                let more = frame.more();
                let messages = frame.messages.into_iter().filter_map(ServerFrame::message);
                reply.send(Ok(HistoryPage { messages: messages.collect(), more })).map_err(drop).ok()
            }
            Self::Presence { reply, .. } => {
                let ServerFrame { users, count, connections, more, .. } = frame;
                reply.send(Ok(PresentPage { users, count, connections, more })).map_err(drop).ok()
            }
            Self::Refresh(token, reply) => {
                reply.send(Ok(frame.expires_at)).ok();
                return Then::Keep(token);
            }
        };
        Then::Nothing
    }

    pub(crate) fn fail(self, error: &Error) {
        match self {
            Self::Unsubscribe(_, reply) | Self::Ping(reply) => reply.send(Err(error.clone())).ok(),
            Self::History { reply, .. } => reply.send(Err(error.clone())).map_err(drop).ok(),
            Self::Presence { reply, .. } => reply.send(Err(error.clone())).map_err(drop).ok(),
            Self::Refresh(_, reply) => reply.send(Err(error.clone())).map_err(drop).ok(),
        };
    }
}

#[cfg(test)]
mod tests;
