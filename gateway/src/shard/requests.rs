//! What a client asks for: publishes and subscriptions go to the home of their room, questions go to logic.

use std::time::Duration;

use sluice_proto::grpc::{RoomPage, StatusChange};
use sluice_proto::ids::{Epoch, RoomId, Seq};
use sluice_proto::wire::codec::{self, HistoryRange};
use sluice_proto::wire::{ErrorCode, WireError};

use super::Shard;
use crate::address::Address;
use crate::defaults::ROOMS_PER_CONNECTION_MAX;
use crate::limits::{Charge, OPENED_ROOM, OTHER_FRAME};
use crate::session::info::UserInfo;
use crate::session::todo::{RequestId, Todo};
use crate::status::change;
use crate::subscription::AlreadySubscribed;
use crate::tick::{NEVER, ticks};

/// An epoch that differs from every store's.
pub(super) const NO_EPOCH: Epoch = Epoch(0);

impl Shard {
    /// Does what a session asks for.
    pub(super) fn perform(&mut self, who: Address, todo: Todo) {
        self.charge(who, &todo);
        match todo {
            Todo::Nothing => {}
            Todo::Authenticate { token } | Todo::Vouch { token, .. } => self.authenticate(who, token),
            Todo::Regranted { changes_info } => self.regranted(who, changes_info),
            Todo::Publish(publish) => self.publish(publish),
            Todo::Subscribe { room, after, epoch, watches, id } => {
                self.subscribe(who, room, (after, epoch), watches, id);
            }
            Todo::Unsubscribe { room, id } => self.unsubscribe(who, &room, id),
            Todo::History { room, range, limit, id } => self.history(who, room, (range, limit), id),
            Todo::Presence { room, after, limit, id } => self.presence(who, room, (after, limit), id),
        }
    }

    /// Charges what was asked for to the client: above its rate it is not read for a while.
    fn charge(&mut self, who: Address, todo: &Todo) {
        let charge = match todo {
            Todo::Publish(_) => Charge::Publish,
            Todo::Subscribe { .. } | Todo::Vouch { for_room: true, .. } => Charge::Subscribe,
            Todo::History { .. } | Todo::Presence { .. } | Todo::Vouch { for_room: false, .. } => {
                Charge::Question
            }
            // Answered already: a `ping`, or what was refused.
            Todo::Nothing => return self.charge_other_frame(who),
            Todo::Authenticate { .. } | Todo::Unsubscribe { .. } | Todo::Regranted { .. } => return,
        };
        self.charge_as(who, charge);
    }

    pub(super) fn charge_as(&mut self, who: Address, charge: Charge) {
        let Some(connection) = self.connections.get(who) else { return };
        let (user, address) = (connection.user_seat.as_ref(), connection.address_seat.as_ref());
        let wait = self.shared.usages.charge(user, address, charge);
        self.throttle(who, wait, charge.label());
    }

    /// Charges a frame that no rate of a user is for: each costs an answer, or the reading of it.
    pub(super) fn charge_other_frame(&mut self, who: Address) {
        let Some(connection) = self.connections.get(who) else { return };
        let wait = self.shared.usages.other_frame(&connection.other_frames);
        self.throttle(who, wait, OTHER_FRAME);
    }

    fn charge_opened_room(&mut self, who: Address) {
        let Some(connection) = self.connections.get(who) else { return };
        let wait = self.shared.usages.opened_room(connection.user_seat.as_ref());
        self.throttle(who, wait, OPENED_ROOM);
    }

    /// Does not read from a connection for so long.
    fn throttle(&mut self, who: Address, wait: Duration, label: &'static str) {
        let now = self.connections.tick();
        let Some(connection) = self.connections.get(who).filter(|_| !wait.is_zero()) else { return };
        let until = now.saturating_add(ticks(wait));
        let deadlines = &mut connection.deadlines;
        // `NEVER` is the greatest tick: as a maximum it would win, and the client would not be read again.
        deadlines.read_at = if deadlines.read_at == NEVER { until } else { deadlines.read_at.max(until) };
        self.shared.metrics.throttled(label);
        self.connections.arm(who.slot);
    }

    pub(super) fn subscribe(
        &mut self,
        who: Address,
        room: RoomId,
        (after, epoch): (Option<Seq>, Option<Result<Epoch, ()>>),
        watches: bool,
        id: RequestId,
    ) {
        let Some(connection) = self.connections.get(who) else { return };
        // A room it has already is told so below, also when there is no place for another.
        if connection.subscriptions.get(room.as_str()).is_none()
            && connection.subscriptions.len() >= ROOMS_PER_CONNECTION_MAX
        {
            let text = format!("a connection may subscribe to {ROOMS_PER_CONNECTION_MAX} rooms");
            self.refuse(who, ErrorCode::BadRequest, text, false, id);
            self.charge_other_frame(who);
            return;
        }
        let epoch = epoch.map(|read| read.unwrap_or(NO_EPOCH));
        let echo = id.clone();
        let from = (after, epoch);
        match self.views.subscribe(&mut self.connections, who, room.clone(), from, (watches, id)) {
            Ok(true) => self.charge_opened_room(who),
            Ok(false) => {}
            Err(AlreadySubscribed) => {
                let text = format!("already subscribed to {:?}; unsub first", room.as_str());
                self.refuse(who, ErrorCode::AlreadySubscribed, text, false, echo);
                self.charge_other_frame(who);
                return;
            }
        }
        self.follow_up();
    }

    fn unsubscribe(&mut self, who: Address, room: &RoomId, id: RequestId) {
        let Some(had_joined) = self.views.unsubscribe(&mut self.connections, who, room.as_str()) else {
            let text = format!("not subscribed to {:?}", room.as_str());
            self.refuse(who, ErrorCode::NotSubscribed, text, false, id);
            self.charge_other_frame(who);
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

    pub(super) fn refuse(
        &mut self,
        who: Address,
        code: ErrorCode,
        message: String,
        retry: bool,
        id: RequestId,
    ) {
        let error = WireError { code, message, retry };
        self.connections.text(who.slot, |out| codec::error(out, &error, id.as_deref()));
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
            info: identity.info.as_ref().map_or("", UserInfo::as_str),
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
