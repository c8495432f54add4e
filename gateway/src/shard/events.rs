//! Streams of server-sent events: how they are answered, subscribed, refused, and told their position. A stream is a
//! session like any other; what differs is how its frames are written, and that nothing it sends is read.

use bytes::Bytes;
use sluice_proto::wire::Bye;
use sluice_proto::wire::close;

use super::Shard;
use super::connection::ConnectionPhase;
use crate::address::Address;
use crate::defaults::RETRY_SPREAD_MS;
use crate::handshake::{Reason, Refusal, RoomAsked};
use crate::session::event::{self, Positions};
use crate::session::machine::{Identity, NotIdentified};
use crate::session::todo::Todo;

impl Shard {
    /// Whether a connection waits for the head of its answer.
    pub(super) fn waits_for_head(&mut self, who: Address) -> bool {
        let events = self.connections.get(who).and_then(|connection| connection.events.as_ref());
        events.is_some_and(|events| !events.is_answered())
    }

    /// Logic has said who asks for a stream: its head is written, or it is refused as a request of HTTP is. `None`: it was
    /// refused, and nobody has to be told anything more.
    pub(super) fn open_stream(
        &mut self,
        who: Address,
        verdict: Result<Identity, NotIdentified>,
    ) -> Option<(Identity, Vec<RoomAsked>)> {
        let connection = self.connections.get(who)?;
        let request = connection.events.as_ref()?.request()?;
        let admitted = verdict.map_err(|why| not_identified(&why)).and_then(|identity| {
            let forbidden = request
                .rooms
                .iter()
                .find(|asked| !identity.grants.may_subscribe(&identity.user, &asked.room));
            match forbidden {
                None => Ok(identity),
                Some(asked) => {
                    let why = format!("room {:?} needs grant sub", asked.room.as_str());
                    Err(Refusal::forbidden(why))
                }
            }
        });
        let identity = match admitted {
            Ok(identity) => identity,
            Err(refusal) => {
                self.refuse_stream(who, refusal);
                return None;
            }
        };
        let request = connection.events.as_mut()?.take_request()?;
        // A crowd whose gateway was killed comes back by this: not all at once.
        let retry_ms = RETRY_SPREAD_MS / 2 + rand::random_range(0..RETRY_SPREAD_MS);
        self.connections.append(who.slot, request.head.into());
        self.connections.append(who.slot, event::chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
        self.shared.metrics.event_streams_opened.inc();
        Some((identity, request.rooms))
    }

    /// Subscribes a stream to what it asked for.
    pub(super) fn subscribe_stream(&mut self, who: Address, rooms: Vec<RoomAsked>) {
        for RoomAsked { room, after, epoch } in rooms {
            let epoch = epoch.map(Ok);
            self.perform(who, Todo::Subscribe { room, after, epoch, watches: false, id: None });
        }
    }

    /// Says goodbye to a stream whose head was not written: as a refused request.
    pub(super) fn refuse_unanswered(&mut self, who: Address, bye: &Bye) {
        let after_s = bye.reconnect_ms.map(|ms| ms.div_ceil(1_000).max(1));
        let refusal = match (after_s, bye.code) {
            (Some(after_s), code) if code == self.shared.config.drain.close_code => {
                Refusal::unavailable(Reason::Draining, &bye.reason, after_s)
            }
            (Some(after_s), _) => Refusal::unavailable(Reason::Unchecked, &bye.reason, after_s),
            (None, close::UNAUTHORIZED) => Refusal::unauthorized(bye.reason.clone()),
            (None, _) => Refusal::malformed(&bye.reason),
        };
        self.refuse_stream(who, refusal);
    }

    /// The whole answer to a stream that is not opened, and the end of its connection.
    fn refuse_stream(&mut self, who: Address, refusal: Refusal) {
        let Some(connection) = self.connections.get(who) else { return };
        let request = connection.events.as_mut().and_then(|events| events.take_request());
        // Answered already: a second answer would stand in the middle of a stream.
        let Some(request) = request else { return };
        connection.session.leave();
        let refusal = request.refused(refusal);
        let address = request.client;
        self.shared.refusals.refused(&self.shared.metrics, &refusal, address);
        self.detach(who, false);
        let spread_ms = rand::random_range(0..RETRY_SPREAD_MS);
        self.connections.append(who.slot, refusal.response(spread_ms).into());
        if let Some(connection) = self.connections.get(who) {
            connection.closed = true;
            connection.phase = ConnectionPhase::Closing;
        }
        self.settle(who);
    }

    /// Tells a reader of several rooms where it stands, if something was appended since. Before each write, so that it
    /// is once for all that goes out together.
    pub(super) fn append_id(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        let owes = connection.events.as_ref().is_some_and(|events| events.owes_id());
        if !owes {
            return;
        }
        let mut positions = Positions::default();
        for (room, entry) in connection.subscriptions.iter() {
            let (epoch, seq) = self.views.position(entry);
            positions.add(room, epoch, seq);
        }
        // Not yet: some rooms are of another history, as a store was restored. Until then it keeps the id it has.
        let Some(positions) = positions.told() else { return };
        if let Some(events) = &mut connection.events {
            events.forget_id();
        }
        let id: Bytes = event::id_alone(&positions);
        self.connections.append(slot, id);
    }
}

fn not_identified(why: &NotIdentified) -> Refusal {
    match why {
        NotIdentified::Invalid(text) => Refusal::unauthorized(text.clone()),
        NotIdentified::Unavailable => {
            Refusal::unavailable(Reason::Unchecked, "the token could not be checked now", 1)
        }
        NotIdentified::TooMany(again_ms) => {
            let after_s = again_ms.div_ceil(1_000).max(1);
            Refusal::too_many(Reason::UserFull, "too many connections of this user", after_s)
        }
    }
}
