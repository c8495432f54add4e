//! Tokens of a session that is open: a new one for all of it, one for a room beside it, and their ends. A new token never
//! makes somebody else of a session, and one that is refused ends nothing: the one before counts until its own end.

use std::num::NonZero;

use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::revocation::is_refused;
use sluice_proto::wire::ErrorCode;
use sluice_proto::wire::codec;

use super::{Identity, Known, NotIdentified, Session, SessionPhase, Sink, refuse};
use crate::defaults::{ROOMS_PER_CONNECTION_MAX, TOKEN_LIFE_PARTS, TOKEN_TOLD_MS_MIN};
use crate::ending::Ending;
use crate::session::todo::{RequestId, Todo};

/// A `sub` that came with a token of its own.
#[derive(Debug)]
pub(super) struct RoomRequest {
    pub(super) room: RoomId,
    pub(super) after: Option<Seq>,
    pub(super) epoch: Option<Result<Epoch, ()>>,
    pub(super) watches: bool,
    pub(super) id: RequestId,
}

/// What a token is looked at for.
#[derive(Debug)]
pub(super) enum Asking {
    /// To know who it is; the `id` of the `connect`.
    Connect(RequestId),
    /// To go on with other grants, until another end.
    Refresh(RequestId),
    /// To let it into one room.
    Room(RoomRequest),
}

/// What few sessions have, and most of them not for long: behind one pointer.
#[derive(Debug, Default)]
pub(super) struct Aside {
    asking: Option<Asking>,
    rooms: Vec<RoomToken>,
}

/// What is kept of a token that opens one room.
#[derive(Debug)]
struct RoomToken {
    room: RoomId,
    /// Its end, milliseconds since 1970.
    expires_at_ms: Option<i64>,
    /// In which second since 1970 it was issued, if it says so: it may be revoked while that of the connection is not.
    issued_at_s: Option<NonZero<u32>>,
}

impl Known {
    fn told_before_ms(&self) -> i64 {
        i64::from(self.told_before_ds) * 100
    }
}

impl Session {
    /// Logic is asked about a token from here on, and no frame is taken until it has answered.
    pub(super) fn ask(&mut self, asking: Asking) {
        self.aside.get_or_insert_default().asking = Some(asking);
        self.phase = SessionPhase::Checking;
    }

    /// The question has its answer, or nobody waits for it any more.
    pub(super) fn take_asking(&mut self) -> Option<Asking> {
        let asking = self.aside.as_mut()?.asking.take();
        self.tidy();
        asking
    }

    fn tidy(&mut self) {
        self.aside.take_if(|aside| aside.asking.is_none() && aside.rooms.is_empty());
    }

    /// Whether logic is asked about a token beside the one that it has.
    #[must_use]
    pub fn is_refreshed(&self) -> bool {
        let asking = self.aside.as_ref().and_then(|aside| aside.asking.as_ref());
        matches!(asking, Some(Asking::Refresh(_) | Asking::Room(_)))
    }

    /// Whether it may subscribe to a room, read its history and presence.
    #[must_use]
    pub fn may_read(&self, room: &RoomId) -> bool {
        self.identity.as_ref().is_some_and(|who| who.grants.may_subscribe(&who.user, room))
            || self.has_token_for(room)
    }

    fn has_token_for(&self, room: &RoomId) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.rooms.iter().any(|own| own.room == *room))
    }

    /// It is not in this room any more: its token for it does not count longer.
    pub fn forget_token_for(&mut self, room: &RoomId) {
        if let Some(aside) = &mut self.aside {
            aside.rooms.retain(|own| own.room != *room);
            self.tidy();
        }
    }

    pub(super) fn on_refresh(&mut self, token: String, id: Option<&str>, out: &mut impl Sink) -> Todo {
        if token.is_empty() {
            let text = r#"refresh needs a token: {"refresh":{"token":"<jwt>"}}"#;
            refuse(out, ErrorCode::BadRequest, text, false, id);
            return Todo::Nothing;
        }
        self.ask(Asking::Refresh(id.map(Box::from)));
        Todo::Vouch { token, for_room: false }
    }

    /// Logic's answer about a token beside the one that it has.
    pub fn vouched(
        &mut self,
        result: Result<Identity, NotIdentified>,
        wall_ms: i64,
        out: &mut impl Sink,
    ) -> Todo {
        // It began to leave while logic was asked: `bye` is its answer.
        if self.phase != SessionPhase::Checking {
            return Todo::Nothing;
        }
        self.phase = SessionPhase::Open;
        match self.take_asking() {
            Some(Asking::Refresh(id)) => {
                let identity = self.own(result, id.as_deref(), out);
                identity.map_or(Todo::Nothing, |identity| self.refreshed(identity, wall_ms, id, out))
            }
            Some(Asking::Room(request)) => {
                let identity = self.own(result, request.id.as_deref(), out);
                identity.map_or(Todo::Nothing, |identity| self.let_in(&identity, request, out))
            }
            Some(Asking::Connect(_)) | None => Todo::Nothing,
        }
    }

    /// The verdict, if it is for the user that this is; else it is answered why it is of no use.
    fn own(
        &self,
        result: Result<Identity, NotIdentified>,
        id: Option<&str>,
        out: &mut impl Sink,
    ) -> Option<Identity> {
        let user = self.identity.as_ref().map(|who| &who.user);
        match result {
            Ok(identity) if user == Some(&identity.user) => return Some(identity),
            Ok(identity) => {
                let text = format!(
                    "the token is for {:?}: another user needs another connection",
                    identity.user.as_str()
                );
                refuse(out, ErrorCode::Forbidden, &text, false, id);
            }
            Err(NotIdentified::Invalid(text)) => refuse(out, ErrorCode::Unauthorized, &text, false, id),
            Err(NotIdentified::Unavailable | NotIdentified::TooMany(_)) => {
                let text = "the token could not be checked now, send it again";
                refuse(out, ErrorCode::Unavailable, text, true, id);
            }
        }
        None
    }

    fn refreshed(&mut self, identity: Identity, wall_ms: i64, id: RequestId, out: &mut impl Sink) -> Todo {
        let ends_at_ms = identity.expires_at_ms;
        let known = Known::from(identity);
        let changes_info = self.identity.as_ref().is_some_and(|before| before.info != known.info);
        self.identity = Some(known);
        self.token_begins(wall_ms);
        out.frame(|buf| codec::ok_refresh(buf, ends_at_ms, id.as_deref()));
        Todo::Regranted { changes_info }
    }

    fn let_in(&mut self, identity: &Identity, request: RoomRequest, out: &mut impl Sink) -> Todo {
        let RoomRequest { room, after, epoch, watches, id } = request;
        if !identity.grants.may_subscribe(&identity.user, &room) {
            let text = format!("the token that came with it does not grant room {:?}", room.as_str());
            refuse(out, ErrorCode::Forbidden, &text, false, id.as_deref());
            return Todo::Nothing;
        }
        let rooms = &mut self.aside.get_or_insert_default().rooms;
        rooms.retain(|own| own.room != room);
        // As many as it may be subscribed to: those that it has left are forgotten.
        if rooms.len() >= ROOMS_PER_CONNECTION_MAX {
            let text = format!("a connection may subscribe to {ROOMS_PER_CONNECTION_MAX} rooms");
            refuse(out, ErrorCode::BadRequest, &text, false, id.as_deref());
            return Todo::Nothing;
        }
        let (expires_at_ms, issued_at_s) = (identity.expires_at_ms, identity.issued_at_s);
        rooms.push(RoomToken { room: room.clone(), expires_at_ms, issued_at_s });
        Todo::Subscribe { room, after, epoch, watches, id }
    }

    /// Its token counts from now on: it is told before the end, in time to fetch another.
    pub fn token_begins(&mut self, wall_ms: i64) {
        let most = self.limits.expiring_ms;
        if let Some(who) = &mut self.identity {
            let left = who.expires_at_ms.map_or(0, |at| at.get().saturating_sub(wall_ms));
            let told = most.min(left / TOKEN_LIFE_PARTS);
            let told = if told < TOKEN_TOLD_MS_MIN { 0 } else { told };
            who.told_before_ds = u16::try_from(told / 100).unwrap_or(u16::MAX);
        }
    }

    /// When something of its tokens is due next, milliseconds since 1970.
    #[must_use]
    pub fn token_due_at(&self) -> Option<i64> {
        if self.ending.is_some() || self.phase == SessionPhase::Left {
            return None;
        }
        let own = self
            .identity
            .as_ref()
            .and_then(|who| who.expires_at_ms.map(|at| at.get().saturating_sub(who.told_before_ms())));
        let rooms =
            self.aside.iter().flat_map(|aside| aside.rooms.iter().filter_map(|own| own.expires_at_ms));
        rooms.chain(own).min()
    }

    /// Does what is due: tells of the end of its token, or ends with it. Returns the rooms whose own tokens have ended, and
    /// which it may not stay in.
    pub fn on_token_due(&mut self, wall_ms: i64, out: &mut impl Sink) -> Vec<RoomId> {
        if let Some(who) = &mut self.identity
            && let Some(at) = who.expires_at_ms
        {
            let left = at.get().saturating_sub(wall_ms);
            if left <= 0 {
                self.end(Ending::TokenExpired, 0);
                return Vec::new();
            }
            if left <= who.told_before_ms() {
                // Once.
                who.told_before_ds = 0;
                out.frame(|buf| codec::expiring(buf, left.unsigned_abs()));
            }
        }
        self.take_room_tokens(|own| own.expires_at_ms.is_some_and(|at| at <= wall_ms))
    }

    /// Its tokens of single rooms that were issued up to this second are revoked. Returns the rooms that it may not stay in.
    pub fn revoke_room_tokens(&mut self, issued_until_s: u32) -> Vec<RoomId> {
        self.take_room_tokens(|own| is_refused(own.issued_at_s.map(NonZero::get), issued_until_s))
    }

    /// Those tokens of single rooms do not count longer. Returns the rooms that nothing else opens.
    fn take_room_tokens(&mut self, is_over: impl Fn(&RoomToken) -> bool) -> Vec<RoomId> {
        let Some(aside) = &mut self.aside else { return Vec::new() };
        let ended: Vec<RoomId> = aside.rooms.extract_if(.., |own| is_over(own)).map(|own| own.room).collect();
        self.tidy();
        ended.into_iter().filter(|room| !self.may_read(room)).collect()
    }
}
