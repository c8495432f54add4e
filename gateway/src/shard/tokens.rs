//! Tokens of clients that are in: a new one that came, and the ends that come. What that means for the session is decided
//! there; here its rooms are left, its deadlines set and presence told.

use std::num::NonZero;

use sluice_proto::grpc::{AuthenticateReply, Grants as WireGrants};
use sluice_proto::ids::{RoomId, UserId};
use sluice_proto::wire::ErrorCode;
use sluice_proto::wire::codec;

use super::Shard;
use super::connection::Connection;
use crate::address::Address;
use crate::calls::Authenticated;
use crate::session::grants::Grants;
use crate::session::info::UserInfo;
use crate::session::machine::{Identity, NotIdentified};
use crate::session::todo::Todo;
use crate::status::change;
use crate::tick::{NEVER, Tick, tick_of};

/// When something of a connection's tokens is due.
pub(super) fn token_due(connection: &Connection, wall_ms: i64, now: Tick) -> Tick {
    connection.session.token_due_at().map_or(NEVER, |at| tick_of(at, wall_ms, now))
}

impl Shard {
    /// Logic's verdict on a token of a client that is known already.
    pub(super) fn vouched(&mut self, who: Address, result: Authenticated) {
        let result = identity(result)
            .and_then(|identity| self.not_revoked(identity))
            .map(|identity| Identity { grants: self.grants.share(identity.grants), ..identity });
        let wall_ms = self.shared.clock.now_ms();
        let todo =
            self.connections.with_session(who.slot, |session, out| session.vouched(result, wall_ms, out));
        if let Some(connection) = self.connections.get(who) {
            connection.deadlines.connect_by = NEVER;
            // It waited for this.
            connection.paused = true;
        }
        match todo {
            Some(Todo::Subscribe { room, after, epoch, watches, id }) => {
                self.subscribe(who, room, (after, epoch), watches, id);
            }
            Some(Todo::Regranted { changes_info }) => self.regranted(who, changes_info),
            Some(
                Todo::Nothing
                | Todo::Authenticate { .. }
                | Todo::Vouch { .. }
                | Todo::Publish(_)
                | Todo::Unsubscribe { .. }
                | Todo::History { .. }
                | Todo::Presence { .. },
            )
            | None => {}
        }
        self.set_token_deadline(who);
        self.settle(who);
    }

    /// Its grants are others: it leaves the rooms that they do not open.
    pub(super) fn regranted(&mut self, who: Address, changes_info: bool) {
        let Some(connection) = self.connections.get(who) else { return };
        let session = &connection.session;
        let rooms = connection.subscriptions.iter().map(|(room, _)| room);
        let lost: Vec<RoomId> = rooms.filter(|room| !session.may_read(room)).cloned().collect();
        for room in lost {
            self.end_subscription(who, &room, ErrorCode::Forbidden, "the new token does not grant this room");
        }
        if changes_info && let Some(change) = self.change(who, change::connected) {
            self.report(change);
        }
    }

    /// Something of its tokens may be due. Called with each of its deadlines, also with each ping: the wall clock may have
    /// jumped since the end of a token was made a tick.
    pub(super) fn on_token_deadline(&mut self, who: Address) {
        let now = self.connections.tick();
        self.set_token_deadline(who);
        if self.connections.get(who).is_none_or(|connection| connection.deadlines.expires_at > now) {
            return;
        }
        let wall_ms = self.shared.clock.now_ms();
        let ended =
            self.connections.with_session(who.slot, |session, out| session.on_token_due(wall_ms, out));
        for room in ended.into_iter().flatten() {
            self.end_subscription(who, &room, ErrorCode::Unauthorized, "the token for this room has expired");
        }
        self.set_token_deadline(who);
    }

    fn set_token_deadline(&mut self, who: Address) {
        let (now, wall_ms) = (self.connections.tick(), self.shared.clock.now_ms());
        if let Some(connection) = self.connections.get(who) {
            connection.deadlines.expires_at = token_due(connection, wall_ms, now);
        }
    }

    pub(super) fn end_subscription(&mut self, who: Address, room: &RoomId, code: ErrorCode, reason: &str) {
        let Some(had_joined) = self.views.unsubscribe(&mut self.connections, who, room.as_str()) else {
            return;
        };
        self.tell_unsubscribed(who, room, (code, reason), had_joined);
        self.follow_up();
    }

    /// The server has ended a subscription, and says so in its place: no message of the room follows.
    pub(super) fn tell_unsubscribed(
        &mut self,
        who: Address,
        room: &RoomId,
        (code, reason): (ErrorCode, &str),
        had_joined: bool,
    ) {
        self.connections.text(who.slot, |out| codec::unsubscribed(out, room, code, reason));
        if had_joined && let Some(change) = self.change(who, |about| change::left(about, room, false)) {
            self.report(change);
        }
    }
}

/// What a verdict says of a client.
pub(super) fn identity(result: Authenticated) -> Result<Identity, NotIdentified> {
    match result {
        Authenticated::Known(reply) => known(reply).ok_or(NotIdentified::Unavailable),
        Authenticated::Invalid(text) => Err(NotIdentified::Invalid(text)),
        Authenticated::Unavailable => Err(NotIdentified::Unavailable),
    }
}

fn known(reply: AuthenticateReply) -> Option<Identity> {
    let AuthenticateReply { user, anonymous, token, expires_at_ms, grants, info, issued_at_s, .. } = reply;
    let grants: WireGrants = grants.unwrap_or_default();
    Some(Identity {
        user: UserId::parse(&user).ok()?,
        grants: Grants::from(grants),
        anonymous,
        token: (!token.is_empty()).then_some(token),
        expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
        issued_at_s: NonZero::new(issued_at_s),
        info: UserInfo::of(info),
    })
}
