//! Subscriptions: where each began, how far it has come, what the server was asked. Pure.

use std::collections::BTreeMap;

use sluice_proto::wire::{ErrorCode, WireError};

use super::Reply;
use crate::error::Error;
use crate::event::{Event, Subscribed};
use crate::frame::{self, ServerFrame};
use crate::options::Position;

#[derive(Debug)]
struct FollowedRoom {
    /// Where to (re)start; after the first answer always a seq and its epoch.
    position: Position,
    /// It is also told who comes and goes.
    watches: bool,
    /// The `sub` without an answer on the active connection.
    asked: Option<u64>,
    /// Who waits for the first answer.
    reply: Option<Reply<Subscribed>>,
}

#[derive(Debug, Default)]
pub(super) struct Rooms(BTreeMap<String, FollowedRoom>);

impl Rooms {
    /// A new subscription and its frame; a second one to the same room is refused here, as the server would.
    pub(super) fn open(
        &mut self,
        name: String,
        (position, watches): (Position, bool),
        id: u64,
        reply: Reply<Subscribed>,
    ) -> Option<String> {
        if self.0.contains_key(&name) {
            let message = format!("already subscribed to {name:?}");
            let error = WireError { code: ErrorCode::AlreadySubscribed, message, retry: false };
            reply.send(Err(Error::Answer(error))).ok();
            return None;
        }
        let text = frame::subscribe(&name, &position, watches, id);
        self.0.insert(name, FollowedRoom { position, watches, asked: Some(id), reply: Some(reply) });
        Some(text)
    }

    /// Whether there was one.
    pub(super) fn close(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// What is asked: of this room, or of all.
    pub(super) fn asked<'a>(&'a self, name: Option<&'a str>) -> impl Iterator<Item = Event> + 'a {
        let asked = self
            .0
            .iter()
            .filter(move |(room, at)| at.asked.is_some() && name.is_none_or(|name| name == *room));
        asked.map(|(room, at)| Event::Asked { room: room.clone(), from: at.position.clone() })
    }

    /// The frames that resume every subscription on a new connection.
    pub(super) fn ask_all(&mut self, mut id: impl FnMut() -> u64) -> Vec<String> {
        let ask = |(name, room): (&String, &mut FollowedRoom)| {
            let id = id();
            // Until the answer comes, messages of the room are not taken: they may be of before.
            room.asked = Some(id);
            frame::subscribe(name, &room.position, room.watches, id)
        };
        self.0.iter_mut().map(ask).collect()
    }

    pub(super) fn any_asked(&self) -> bool {
        self.0.values().any(|room| room.asked.is_some())
    }

    pub(super) fn end(&mut self, error: &Error) {
        for (_, room) in std::mem::take(&mut self.0) {
            room.reply.map(|reply| reply.send(Err(error.clone())));
        }
    }

    /// The answer to a `sub`; `Err` when it can be had only later.
    pub(super) fn answer(&mut self, id: u64, frame: ServerFrame) -> Result<Option<Event>, String> {
        let asked = self.0.iter().find(|(_, room)| room.asked == Some(id));
        let Some(name) = asked.map(|(name, _)| name.clone()) else { return Ok(None) };
        if let Some(error) = frame.error {
            // A store that is away for a moment: a new connection asks again, from the same
            // position.
            return if error.retry { Err(error.message) } else { Ok(self.refused(name, error)) };
        }
        let Some(room) = self.0.get_mut(&name) else { return Ok(None) };
        room.asked = None;
        let Some(at) = subscribed(frame) else { return Err("an answer to sub lacks its position".into()) };
        room.position = Position::In { after: at.after, epoch: at.epoch.clone() };
        match room.reply.take() {
            Some(reply) => {
                reply.send(Ok(at.clone())).ok(); // whoever asked may have gone
                Ok(Some(Event::Subscribed(at)))
            }
            None => Ok(Some(Event::Resumed(at))),
        }
    }

    fn refused(&mut self, name: String, error: WireError) -> Option<Event> {
        match self.0.remove(&name)?.reply {
            Some(reply) => {
                reply.send(Err(Error::Answer(error))).ok();
                None
            }
            None => Some(Event::Unsubscribed { room: name, error }),
        }
    }

    /// The server has ended a subscription. A `sub` that is on its way asks for a new one.
    pub(super) fn ended(&mut self, frame: ServerFrame) -> Option<Event> {
        let (name, message) = (frame.unsubscribed?, frame.reason.unwrap_or_default());
        if self.0.get(&name)?.asked.is_some() {
            return None;
        }
        let code = frame.code.unwrap_or(ErrorCode::NotSubscribed);
        self.refused(name, WireError { code, message, retry: false })
    }

    /// After this a room that is watched has to be asked about again.
    pub(super) fn stale_after(&self, event: &Event) -> Option<Event> {
        let Event::Resumed(at) = event else { return None };
        let watches = self.0.get(&at.room).is_some_and(|room| room.watches);
        watches.then(|| Event::Stale { room: at.room.clone() })
    }

    /// Who came into a room or left it, if that is watched.
    pub(super) fn told(&self, frame: ServerFrame) -> Option<Event> {
        let ServerFrame { join, leave, stale, user, at, info, .. } = frame;
        let name = join.as_ref().or(leave.as_ref()).or(stale.as_ref())?;
        // An event of before, after an `unsub`.
        self.0.get(name).filter(|room| room.watches && room.asked.is_none())?;
        if let Some(room) = stale {
            return Some(Event::Stale { room });
        }
        let (user, at_ms) = (user?, at?);
        Some(match (join, leave) {
            (Some(room), _) => Event::UserJoined { room, user, at_ms, info },
            (None, Some(room)) => Event::UserLeft { room, user, at_ms },
            (None, None) => return None,
        })
    }

    /// An `ok` of `sub` that nobody asked for: the room has a new epoch.
    pub(super) fn moved(&mut self, frame: ServerFrame) -> Option<Event> {
        let at = subscribed(frame)?;
        let room = self.0.get_mut(&at.room)?;
        room.position = Position::In { after: at.after, epoch: at.epoch.clone() };
        Some(Event::Resumed(at))
    }

    /// A message or a skip, if it belongs to a subscription that stands.
    pub(super) fn delivery(&mut self, frame: ServerFrame) -> Option<Event> {
        let name = frame.msg.as_ref().or(frame.skipped.as_ref())?;
        // Before the answer to `sub` its position is not known, so nothing can be said to follow
        // it.
        let room = self.0.get_mut(name).filter(|room| room.asked.is_none())?;
        let Position::In { after, .. } = &mut room.position else { return None };
        if frame.skipped.is_some() {
            let (from, to) = (frame.from.and_then(|from| from.as_u64())?, frame.to?);
            *after = to;
            return Some(Event::Skipped { room: frame.skipped?, from, to });
        }
        let message = frame.message()?;
        let expected = *after + 1;
        // The server's promise; told to the reader and not repaired, as that would hide it.
        if message.seq != expected {
            return Some(Event::OutOfOrder { expected, message });
        }
        *after = message.seq;
        Some(Event::Message(message))
    }
}

fn subscribed(frame: ServerFrame) -> Option<Subscribed> {
    Some(Subscribed {
        room: frame.room?,
        after: frame.after?,
        head: frame.head?,
        epoch: frame.epoch?,
        recovered: frame.recovered?,
    })
}
