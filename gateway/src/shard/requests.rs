//! What a client asks for: publishes and subscriptions go to the home of their room, questions go to logic.

use std::sync::Arc;

use sluice_proto::grpc::{AuthenticateReply, Grants as WireGrants, RoomPage, StatusChange};
use sluice_proto::ids::{Epoch, RoomId, Seq, UserId};
use sluice_proto::wire::codec::{self, HistoryRange};
use sluice_proto::wire::{ErrorCode, WireError};
use tokio::time::{Instant, sleep};

use super::Shard;
use super::shared::Shared;
use super::turn::ShardCell;
use crate::address::Address;
use crate::calls::Authenticated;
use crate::defaults::{AUTHENTICATE_AGAIN, CALL_WITHIN, CONNECT_WITHIN, ROOMS_PER_CONNECTION_MAX};
use crate::limits::{Charge, TooMany};
use crate::session::grants::Grants;
use crate::session::machine::{Identity, NotIdentified};
use crate::session::todo::{RequestId, Todo};
use crate::status::change;
use crate::tick::{NEVER, tick_of, ticks};

/// An epoch that differs from every store's.
const NO_EPOCH: Epoch = Epoch(0);

impl Shard {
    /// Does what a session asks for.
    pub(super) fn perform(&mut self, who: Address, todo: Todo) {
        self.charge(who, &todo);
        match todo {
            Todo::Nothing => {}
            Todo::Authenticate { token } => self.authenticate(who, token),
            Todo::Publish(publish) => self.publish(publish),
            Todo::Subscribe { room, after, epoch, id } => self.subscribe(who, room, after, epoch, id),
            Todo::Unsubscribe { room, id } => self.unsubscribe(who, &room, id),
            Todo::History { room, range, limit, id } => self.history(who, room, (range, limit), id),
            Todo::Presence { room, after, limit, id } => self.presence(who, room, (after, limit), id),
        }
    }

    /// Charges what was asked for to the client: above its rate it is not read for a while.
    fn charge(&mut self, who: Address, todo: &Todo) {
        let charge = match todo {
            Todo::Publish(_) => Charge::Publish,
            Todo::Subscribe { .. } => Charge::Subscribe,
            Todo::History { .. } | Todo::Presence { .. } => Charge::Question,
            Todo::Nothing | Todo::Authenticate { .. } | Todo::Unsubscribe { .. } => return,
        };
        self.charge_as(who, charge);
    }

    pub(super) fn charge_as(&mut self, who: Address, charge: Charge) {
        let now = self.connections.tick();
        let Some(connection) = self.connections.get(who) else { return };
        let (user, address) = (connection.user_seat.as_ref(), connection.address_seat.as_ref());
        let wait = self.shared.usages.charge(user, address, charge);
        if wait.is_zero() {
            return;
        }
        let until = now.saturating_add(ticks(wait));
        let deadlines = &mut connection.deadlines;
        // `NEVER` is the greatest tick: as a maximum it would win, and the client would not be read again.
        deadlines.read_at = if deadlines.read_at == NEVER { until } else { deadlines.read_at.max(until) };
        self.shared.metrics.throttled(charge.label());
        self.connections.arm(who.slot);
    }

    fn take_user_seat(&mut self, who: Address, identity: Identity) -> Result<Identity, NotIdentified> {
        let Some(connection) = self.connections.get(who) else { return Ok(identity) };
        // Who was somebody else before gives up that place first.
        connection.user_seat = None;
        match self.shared.usages.identify(&identity.user) {
            Ok(seat) => {
                connection.user_seat = Some(seat);
                Ok(identity)
            }
            Err(TooMany(again)) => {
                let again_ms = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
                Err(NotIdentified::TooMany(again_ms.max(1_000)))
            }
        }
    }

    fn subscribe(
        &mut self,
        who: Address,
        room: RoomId,
        after: Option<Seq>,
        epoch: Option<Result<Epoch, ()>>,
        id: RequestId,
    ) {
        let Some(connection) = self.connections.get(who) else { return };
        // A room it has already is told so below, also when there is no place for another.
        if connection.subscriptions.get(room.as_str()).is_none()
            && connection.subscriptions.len() >= ROOMS_PER_CONNECTION_MAX
        {
            let text = format!("a connection may subscribe to {ROOMS_PER_CONNECTION_MAX} rooms");
            self.refuse(who, ErrorCode::BadRequest, text, false, id);
            return;
        }
        let epoch = epoch.map(|read| read.unwrap_or(NO_EPOCH));
        let echo = id.clone();
        if !self.views.subscribe(&mut self.connections, who, room.clone(), (after, epoch), id) {
            let text = format!("already subscribed to {:?}; unsub first", room.as_str());
            self.refuse(who, ErrorCode::AlreadySubscribed, text, false, echo);
            return;
        }
        self.follow_up();
    }

    fn unsubscribe(&mut self, who: Address, room: &RoomId, id: RequestId) {
        let Some(had_joined) = self.views.unsubscribe(&mut self.connections, who, room.as_str()) else {
            let text = format!("not subscribed to {:?}", room.as_str());
            self.refuse(who, ErrorCode::NotSubscribed, text, false, id);
            return;
        };
        self.connections.text(who.slot, |out| codec::ok_unsub(out, room, id.as_deref()));
        if had_joined && let Some(change) = self.change(who, |about| change::left(about, room, false)) {
            self.report(change);
        }
        self.follow_up();
    }

    pub(super) fn unavailable(&mut self, who: Address, id: RequestId) {
        self.refuse(who, ErrorCode::Unavailable, "no answer in time, ask again".to_owned(), true, id);
    }

    fn refuse(&mut self, who: Address, code: ErrorCode, message: String, retry: bool, id: RequestId) {
        let error = WireError { code, message, retry };
        self.connections.text(who.slot, |out| codec::error(out, &error, id.as_deref()));
    }

    /// Asks logic about a token; an empty one asks for a new anonymous user.
    pub(super) fn authenticate(&mut self, who: Address, token: String) {
        let by = self.connections.tick().saturating_add(ticks(CONNECT_WITHIN));
        if let Some(connection) = self.connections.get(who) {
            // The call itself ends in time; this is for what it may leave open.
            connection.deadlines.connect_by = by.saturating_add(ticks(CONNECT_WITHIN));
        }
        self.connections.arm(who.slot);
        let shared = self.shared.clone();
        let anonymous_try = token.is_empty();
        self.local(async move |cell: ShardCell| {
            let result = shared.calls.authenticate(token, CONNECT_WITHIN).await;
            let epoch = until_epoch(&shared).await;
            cell.turn(|shard| shard.authenticated(who, result, anonymous_try, epoch));
        });
    }

    fn authenticated(
        &mut self,
        who: Address,
        result: Authenticated,
        anonymous_try: bool,
        epoch: Option<Epoch>,
    ) {
        // Before it is somebody else: the one who leaves is reported by the name it had.
        let former = self.change(who, change::disconnected_by_change);
        let result = if epoch.is_some() { identity(result) } else { Err(NotIdentified::Unavailable) };
        let result = result.and_then(|identity| self.take_user_seat(who, identity));
        let facts = self.shared.welcome_facts(epoch.unwrap_or(NO_EPOCH));
        let expires_ms = result.as_ref().ok().and_then(|identity| identity.expires_at_ms);
        let known = result.is_ok();
        self.connections.with_session(who.slot, |session, out| {
            // Logic took its time: the slot may be another's by now.
            if session.link().address == who {
                session.identified(result, anonymous_try, &facts, out);
            }
        });
        let wall_ms = self.shared.clock.now_ms();
        let now = self.connections.tick();
        let Some(connection) = self.connections.get(who) else { return };
        if known {
            connection.deadlines.connect_by = NEVER;
            connection.deadlines.expires_at = expires_ms.map_or(NEVER, |at| tick_of(at, wall_ms, now));
            let rooms: Vec<RoomId> = connection.joined_rooms().cloned().collect();
            for change in former.into_iter().chain(self.change(who, change::connected)) {
                self.report(change);
            }
            for room in rooms {
                if let Some(change) = self.change(who, |about| change::joined(about, &room)) {
                    self.report(change);
                }
            }
        } else {
            // It may try another token, but not hold its place without one.
            connection.deadlines.connect_by = now.saturating_add(ticks(CONNECT_WITHIN));
        }
        // It waited for this.
        if let Some(connection) = self.connections.get(who) {
            connection.paused = true;
        }
        self.settle(who);
    }

    /// A change of this connection for presence, if it is known who it is.
    pub(super) fn change(
        &mut self,
        who: Address,
        change: impl FnOnce(&change::About<'_>) -> StatusChange,
    ) -> Option<StatusChange> {
        let connection = self.connections.get(who)?;
        let identity = connection.session.identity()?;
        let about = change::About {
            session: connection.session.link().session,
            user: &identity.user,
            since_ms: connection.since_ms,
        };
        Some(change(&about))
    }
}

/// Where a page of history goes on, if the room has more in its direction: pages also end by their bytes.
pub(super) fn more_of(page: &RoomPage, backward: bool) -> Option<HistoryRange> {
    let (first, last) = (page.messages.first()?.seq, page.messages.last()?.seq);
    if backward {
        (first > page.oldest).then_some(HistoryRange::Before(first))
    } else {
        (last < page.head).then_some(HistoryRange::After(last))
    }
}

fn identity(result: Authenticated) -> Result<Identity, NotIdentified> {
    match result {
        Authenticated::Known(reply) => known(reply).ok_or(NotIdentified::Unavailable),
        Authenticated::Invalid(text) => Err(NotIdentified::Invalid(text)),
        Authenticated::Unavailable => Err(NotIdentified::Unavailable),
    }
}

fn known(reply: AuthenticateReply) -> Option<Identity> {
    let AuthenticateReply { user, anonymous, token, expires_at_ms, grants } = reply;
    let grants: WireGrants = grants.unwrap_or_default();
    Some(Identity {
        user: UserId::parse(&user).ok()?,
        grants: Grants::from(grants),
        anonymous,
        token: (!token.is_empty()).then_some(token),
        expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
    })
}

/// A `welcome` needs the store's epoch: the first one of a gateway's life may have to ask for it.
async fn until_epoch(shared: &Arc<Shared>) -> Option<Epoch> {
    let by = Instant::now() + CONNECT_WITHIN;
    loop {
        if let Some(epoch) = shared.calls.epoch().get() {
            return Some(epoch);
        }
        if Instant::now() >= by {
            return None;
        }
        if !shared.calls.answers(CALL_WITHIN).await {
            sleep(AUTHENTICATE_AGAIN).await;
        }
    }
}
