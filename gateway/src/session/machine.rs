//! The session machine: a frame or an event in, at most one thing to do out; replies go to a [`Sink`].
//!
//! Order of leaving, whatever the cause: what is read from now on is refused, what was accepted gets its
//! outcome, then `bye` ([`Session::take_bye`]). The driver then empties the queue to the socket and closes.
//! Never does I/O, never waits.

mod leaving;
mod publishing;
mod tokens;

use std::num::NonZero;
use std::sync::Arc;

use serde_json::value::RawValue;
use sluice_proto::ids::{Epoch, InstanceId, RoomId, UserId};
use sluice_proto::wire::codec::{self, Request};
use sluice_proto::wire::{ErrorCode, Welcome, WireError, WireLimits};

use self::publishing::PublishFrame;
use self::tokens::{Aside, Asking, RoomRequest};
use super::grants::Grants;
use super::info::UserInfo;
use super::todo::Todo;
use crate::defaults::{UNIDENTIFIED_BYTES_MAX, UNIDENTIFIED_FRAMES_MAX};
use crate::ending::Ending;
use crate::uplink::Link;

/// Where replies go: one call, one text frame.
pub trait Sink {
    /// Appends one frame whose payload `write` appends to the buffer it is given.
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>));
}

/// Bounds of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Publishes without outcome; when reached, the socket is not read.
    pub unanswered_max: usize,
    /// Bytes of publishes without outcome.
    pub unanswered_bytes_max: usize,
    /// Frames in a row that could not be understood before the connection is closed.
    pub bad_frames_max: u8,
    /// Added to the wall clock at reading: past it a publish must not be stored, milliseconds.
    pub not_after_ms: i64,
    /// A client is told of the end of its token so long before it, at most, milliseconds.
    pub expiring_ms: i64,
}

/// Who a client is, as logic said.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// What they may do.
    pub grants: Grants,
    /// Nobody vouched for them: they may still `connect`.
    pub anonymous: bool,
    /// For a new anonymous user: proves this identity at the next connection.
    pub token: Option<String>,
    /// When the token ends, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// In which second since 1970 it was issued, if it says so.
    pub issued_at_s: Option<NonZero<u32>>,
    /// What the token says to whoever is in a room with them.
    pub info: Option<UserInfo>,
}

/// Why a client could not be identified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotIdentified {
    /// The token is wrong; the text is for people.
    Invalid(String),
    /// Nobody could check it in time.
    Unavailable,
    /// The user has too many connections: after so many milliseconds there may be room.
    TooMany(u64),
}

/// What is kept of an [`Identity`].
#[derive(Debug, Clone)]
pub struct Known {
    /// The user.
    pub user: UserId,
    /// What they may do.
    pub grants: Grants,
    /// Nobody vouched for them: they may still `connect`.
    pub anonymous: bool,
    /// When the token ends, milliseconds since 1970.
    pub expires_at_ms: Option<NonZero<i64>>,
    /// In which second since 1970 it was issued, if it says so: it may be revoked.
    pub issued_at_s: Option<NonZero<u32>>,
    /// They are told of its end so long before it, tenths of a second; 0: they were, or are not. Beside a byte, where it
    /// makes no connection larger.
    pub told_before_ds: u16,
    /// What the token says to whoever is in a room with them.
    pub info: Option<UserInfo>,
}

impl From<Identity> for Known {
    /// The token is said once, and would be the largest part of an idle connection.
    fn from(identity: Identity) -> Self {
        let Identity { user, grants, anonymous, token: _, expires_at_ms, issued_at_s, info } = identity;
        let expires_at_ms = expires_at_ms.and_then(NonZero::new);
        Self { user, grants, anonymous, expires_at_ms, issued_at_s, told_before_ds: 0, info }
    }
}

/// Facts of the gateway that stand in `welcome`.
#[derive(Debug, Clone)]
pub struct WelcomeFacts {
    /// The instance id of this gateway.
    pub instance: InstanceId,
    /// Epoch of the store.
    pub epoch: Epoch,
    /// Seconds between pings.
    pub ping_s: u64,
    /// Limits of the wire.
    pub limits: WireLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionPhase {
    /// Waits for `connect`.
    Anyone,
    /// Logic is asked who this is.
    Checking,
    /// The client is identified.
    Open,
    /// `bye` was said.
    Left,
}

/// The state machine of a client on this gateway.
#[derive(Debug)]
pub struct Session {
    limits: Arc<SessionLimits>,
    link: Arc<Link>,
    phase: SessionPhase,
    identity: Option<Known>,
    /// What a token is looked at for, nothing while that of the upgrade is; and tokens of single rooms.
    aside: Option<Box<Aside>>,
    ending: Option<Box<(Ending, u64)>>,
    /// 256 and what one read brings at most.
    unanswered: u16,
    /// In a row; before `welcome` also those that are no `connect`.
    bad_frames: u8,
    /// Of what was read before `welcome`, then of publishes without an outcome: nobody has both.
    bytes: u32,
    minted: u64,
}

impl Session {
    /// A session that begins by asking logic about `token` (from the upgrade; `None` = about a new
    /// anonymous user). The driver makes that call and reports by [`Session::identified`].
    #[must_use]
    pub fn new(link: Arc<Link>, limits: Arc<SessionLimits>) -> Self {
        Self {
            limits,
            link,
            phase: SessionPhase::Checking,
            identity: None,
            aside: None,
            ending: None,
            unanswered: 0,
            bytes: 0,
            minted: 0,
            bad_frames: 0,
        }
    }

    /// What its publishes share with it.
    #[must_use]
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Who it is, once known.
    #[must_use]
    pub fn identity(&self) -> Option<&Known> {
        self.identity.as_ref()
    }

    /// Whether it waits for the client's `connect`.
    #[must_use]
    pub fn waits_for_connect(&self) -> bool {
        self.phase == SessionPhase::Anyone
    }

    /// Whether logic is asked who it is.
    #[must_use]
    pub fn is_being_checked(&self) -> bool {
        self.phase == SessionPhase::Checking
    }

    /// Publishes without outcome.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        usize::from(self.unanswered)
    }

    /// Whether the next frame may be taken. While false the socket is not read: that is how overload is
    /// answered. (A session that leaves goes on reading, to refuse.)
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        let room = usize::from(self.unanswered) < self.limits.unanswered_max
            && (self.bytes as usize) < self.limits.unanswered_bytes_max;
        match self.phase {
            SessionPhase::Checking | SessionPhase::Left => false,
            SessionPhase::Anyone => true,
            SessionPhase::Open => room || self.refuses(),
        }
    }

    fn refuses(&self) -> bool {
        self.ending.is_some() || self.link.fenced()
    }

    /// Logic's answer about the token. `anonymous_try`: no token was given, so a refusal only means that
    /// `connect` is needed.
    pub fn identified(
        &mut self,
        result: Result<Identity, NotIdentified>,
        anonymous_try: bool,
        facts: &WelcomeFacts,
        out: &mut impl Sink,
    ) {
        // It began to leave while logic was asked: `end` went on without the answer.
        if self.phase != SessionPhase::Checking {
            return;
        }
        let id = match self.take_asking() {
            Some(Asking::Connect(id)) => id,
            Some(Asking::Refresh(_) | Asking::Room(_)) | None => None,
        };
        match result {
            Ok(identity) => {
                let welcome = self.welcome(&identity, facts);
                out.frame(|buf| codec::welcome(buf, &welcome, id.as_deref()));
                if self.identity.is_none() {
                    // From here on they are those of publishes.
                    (self.bytes, self.bad_frames) = (0, 0);
                }
                self.identity = Some(identity.into());
                // Tokens of rooms were those of the user before.
                self.aside = None;
                self.phase = SessionPhase::Open;
            }
            Err(NotIdentified::Invalid(_)) if anonymous_try => self.phase = SessionPhase::Anyone,
            Err(NotIdentified::Invalid(text)) => {
                refuse(out, ErrorCode::Unauthorized, &text, false, id.as_deref());
                self.end(Ending::Unauthorized(text), 0);
            }
            Err(NotIdentified::Unavailable) => {
                let ending = Ending::Unchecked;
                refuse(out, ErrorCode::Unavailable, &ending.reason(), true, id.as_deref());
                self.end(ending, UNCHECKED_AGAIN_MS);
            }
            Err(NotIdentified::TooMany(again_ms)) => {
                let ending = Ending::TooMany;
                refuse(out, ErrorCode::Unavailable, &ending.reason(), true, id.as_deref());
                self.end(ending, again_ms);
            }
        }
    }

    fn welcome(&self, identity: &Identity, facts: &WelcomeFacts) -> Welcome {
        Welcome {
            session: self.link.session.to_string(),
            instance: facts.instance.to_string(),
            user: identity.user.to_string(),
            token: identity.token.clone(),
            epoch: facts.epoch.to_string(),
            ping_s: facts.ping_s,
            limits: facts.limits.clone(),
        }
    }

    /// A text frame came. Call it only while [`Session::wants_frames`].
    pub fn on_text(&mut self, text: &str, wall_ms: i64, out: &mut impl Sink) -> Todo {
        let decoded = codec::decode(text);
        let id = decoded.id.map(RawValue::get);
        let request = match decoded.request {
            Ok(request) => request,
            Err(refused) => {
                refuse(out, refused.code, &refused.message, false, id);
                if self.identity.is_none() {
                    self.not_connected();
                } else if refused.code == ErrorCode::BadFrame {
                    self.bad_frame();
                }
                return Todo::Nothing;
            }
        };
        // In a row: a client in development makes mistakes, one that speaks another protocol makes only those.
        if self.identity.is_some() {
            self.bad_frames = 0;
        }
        match (request, self.identity.clone()) {
            (Request::Connect(connect), identity) => {
                self.on_connect(connect.token, identity.is_some_and(|who| !who.anonymous), id, out)
            }
            (_, None) => {
                let text = r#"connect first: {"connect":{"token":"<jwt>"}}"#;
                refuse(out, ErrorCode::Unauthorized, text, false, id);
                self.not_connected();
                Todo::Nothing
            }
            (request, Some(who)) => self.on_request(request, &who, id, wall_ms, out),
        }
    }

    fn on_connect(&mut self, token: String, known: bool, id: Option<&str>, out: &mut impl Sink) -> Todo {
        // A new identity on a connection that leaves would never be said goodbye to.
        if self.ending.is_some() {
            refuse(out, ErrorCode::Unavailable, "this connection is closing", true, id);
            return Todo::Nothing;
        }
        if known {
            let text = r#"already connected as a user with a token; a new one goes into {"refresh":{"token":"<jwt>"}}"#;
            refuse(out, ErrorCode::BadRequest, text, false, id);
            return Todo::Nothing;
        }
        if token.is_empty() {
            let text = r#"connect needs a token: {"connect":{"token":"<jwt>"}}"#;
            refuse(out, ErrorCode::BadRequest, text, false, id);
            return Todo::Nothing;
        }
        self.ask(Asking::Connect(id.map(Box::from)));
        Todo::Authenticate { token }
    }

    fn on_request(
        &mut self,
        request: Request<'_>,
        who: &Known,
        id: Option<&str>,
        wall_ms: i64,
        out: &mut impl Sink,
    ) -> Todo {
        let todo = match request {
            Request::Publish { room, key, data, when } => {
                let publish = PublishFrame { room, key, data, when, id };
                return self.on_publish(publish, who, wall_ms, out);
            }
            // Needs no grant: what waits is the sender's own.
            Request::Cancel { room, key } => return self.on_cancel((room, key), who, id, wall_ms, out),
            // Also while leaving: it asks whether anybody is here, and changes nothing.
            Request::Ping => {
                out.frame(|buf| codec::ok_ping(buf, id));
                return Todo::Nothing;
            }
            Request::Refresh(_) | Request::Subscribe { token: Some(_), .. } if self.refuses() => {
                refuse(out, ErrorCode::Unavailable, CLOSING, true, id);
                return Todo::Nothing;
            }
            Request::Refresh(refresh) => return self.on_refresh(refresh.token, id, out),
            // Needs no grant: a token that has lost one must not hold anybody in a room.
            Request::Unsubscribe(room) => {
                self.forget_token_for(&room);
                Todo::Unsubscribe { room, id: id.map(Box::from) }
            }
            Request::Subscribe { room, after, epoch, watches, token: Some(token) }
                if !who.grants.may_subscribe(&who.user, &room) =>
            {
                let id = id.map(Box::from);
                self.ask(Asking::Room(RoomRequest { room, after, epoch, watches, id }));
                return Todo::Vouch { token, for_room: true };
            }
            Request::Subscribe { room, .. }
            | Request::History { room, .. }
            | Request::Presence { room, .. }
                if !self.may_read(&room) =>
            {
                forbid(out, &room, "sub", id);
                return Todo::Nothing;
            }
            // What its own token grants needs no other.
            Request::Subscribe { room, after, epoch, watches, token: _ } => {
                Todo::Subscribe { room, after, epoch, watches, id: id.map(Box::from) }
            }
            Request::History { room, range, limit } => {
                Todo::History { room, range, limit, id: id.map(Box::from) }
            }
            Request::Presence { room, after, limit } => {
                Todo::Presence { room, after, limit, id: id.map(Box::from) }
            }
            Request::Connect(_) => return Todo::Nothing,
        };
        if self.refuses() {
            refuse(out, ErrorCode::Unavailable, CLOSING, true, id);
            return Todo::Nothing;
        }
        todo
    }

    fn bad_frame(&mut self) {
        self.bad_frames = self.bad_frames.saturating_add(1);
        if self.bad_frames >= self.limits.bad_frames_max {
            self.end(Ending::BadFrames(self.bad_frames), 0);
        }
    }

    /// A frame before `welcome` that is no `connect`. The first may be a mistake and is answered.
    fn not_connected(&mut self) {
        self.bad_frames = self.bad_frames.saturating_add(1);
        if self.bad_frames >= UNIDENTIFIED_FRAMES_MAX {
            self.end(Ending::NotConnected, 0);
        }
    }

    /// Bytes came, whatever is in them. Before `welcome` only so many are read: pings and halves of frames too.
    pub fn on_bytes(&mut self, count: usize) {
        if self.identity.is_none() {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.bytes = self.bytes.saturating_add(count);
            if self.floods() {
                self.end(Ending::NotConnected, 0);
            }
        }
    }

    /// Whether more came before `welcome` than anybody needs: nothing of it is waited for any more.
    #[must_use]
    pub fn floods(&self) -> bool {
        self.identity.is_none() && self.bytes > UNIDENTIFIED_BYTES_MAX
    }
}

/// Milliseconds after which a token that could not be checked is worth another try.
const UNCHECKED_AGAIN_MS: u64 = 1_000;
const CLOSING: &str = "this connection is closing, come back";

fn refuse(out: &mut impl Sink, code: ErrorCode, message: &str, retry: bool, id: Option<&str>) {
    let error = WireError { code, message: message.to_owned(), retry };
    out.frame(|buf| codec::error(buf, &error, id));
}

fn forbid(out: &mut impl Sink, room: &RoomId, grant: &str, id: Option<&str>) {
    let message = format!("room {:?} needs grant {grant}", room.as_str());
    refuse(out, ErrorCode::Forbidden, &message, false, id);
}

#[cfg(test)]
mod tests;
