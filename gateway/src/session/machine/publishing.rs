//! Publishes of a session: counted when they are accepted, answered once. Those for later and their cancels are the same
//! to it: they have a key, an outcome and a place in the order.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use sluice_proto::ids::{Key, RoomId};
use sluice_proto::limits::DELAY_MS_MAX;
use sluice_proto::wire::ErrorCode;
use sluice_proto::wire::codec::{self, When};
use sluice_trace::Span;

use super::{Known, Session, SessionPhase, Sink, forbid, refuse};
use crate::session::todo::Todo;
use crate::uplink::{Answered, Later, Outcome, Publish};

const NOT_SENT: &str = "not stored, this connection is closing: come back and send it again";
const UNKNOWN: &str = "no answer in time, it may be stored: come back and send it again with the same key";

/// The fields of a frame `pub`.
pub(super) struct PublishFrame<'a> {
    pub(super) room: RoomId,
    pub(super) key: Option<Key>,
    pub(super) data: &'a RawValue,
    pub(super) when: When,
    pub(super) id: Option<&'a str>,
}

impl Session {
    pub(super) fn on_publish(
        &mut self,
        frame: PublishFrame<'_>,
        who: &Known,
        wall_ms: i64,
        out: &mut impl Sink,
    ) -> Todo {
        let PublishFrame { room, key, data, when, id } = frame;
        if !who.grants.may_publish(&room) {
            forbid(out, &room, "pub", id);
            return Todo::Nothing;
        }
        let Ok(later) = later(when, wall_ms) else {
            let text = format!("at is more than {DELAY_MS_MAX} ms (30 days) ahead");
            refuse(out, ErrorCode::BadRequest, &text, false, id);
            return Todo::Nothing;
        };
        // Behind the fence nothing may be stored before what has to be sent again (A5).
        // After what is wrong for good: that has the same answer on the next connection.
        if self.refuses() {
            refuse(out, ErrorCode::NotSent, NOT_SENT, true, id);
            return Todo::Nothing;
        }
        // Once, before the lane: its retries must carry the same key (A4).
        let key = key.unwrap_or_else(|| {
            self.minted += 1;
            Key::mint(self.link.session, self.minted)
        });
        let data = Bytes::copy_from_slice(data.get().as_bytes());
        self.accept((room, key, data, later), who, id, wall_ms)
    }

    /// In the lane of the publish, so that it does not overtake it.
    pub(super) fn on_cancel(
        &mut self,
        (room, key): (RoomId, Key),
        who: &Known,
        id: Option<&str>,
        wall_ms: i64,
        out: &mut impl Sink,
    ) -> Todo {
        if self.refuses() {
            refuse(out, ErrorCode::NotSent, NOT_SENT, true, id);
            return Todo::Nothing;
        }
        self.accept((room, key, Bytes::new(), Some(Later::Cancel)), who, id, wall_ms)
    }

    fn accept(
        &mut self,
        (room, key, data, later): (RoomId, Key, Bytes, Option<Later>),
        who: &Known,
        id: Option<&str>,
        wall_ms: i64,
    ) -> Todo {
        let publish = Publish {
            link: Arc::clone(&self.link),
            room,
            sender: who.user.clone(),
            key,
            data,
            later: later.map(Box::new),
            id: id.map(Box::from),
            // From the reading on: what waits in the lane uses it up too (A11).
            not_after_ms: wall_ms.saturating_add(self.limits.not_after_ms),
            taken_at: None,
            span: Span::default(),
        };
        // Counted before the lane has it: from here on it must have an outcome, whatever happens.
        self.unanswered = self.unanswered.saturating_add(1);
        self.bytes = self.bytes.saturating_add(cost(&publish));
        Todo::Publish(publish)
    }

    /// The outcome of one of its publishes.
    pub fn answered(&mut self, answered: &Answered, out: &mut impl Sink) {
        let Answered { publish, outcome } = answered;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(cost(publish));
        // `bye` was said: a frame after it would be taken for one of the next connection.
        if self.phase == SessionPhase::Left {
            return;
        }
        let (room, id) = (&publish.room, publish.id.as_deref());
        // A minted key is of no use to the client: what begins with `~` is refused from it (A4).
        let key = (!publish.key.is_minted()).then_some(&publish.key);
        match outcome {
            Outcome::Stored { seq, .. } | Outcome::Duplicate { seq } => {
                out.frame(|buf| codec::ok_pub(buf, room, *seq, key, id));
            }
            // Here it is: a cancel takes it.
            Outcome::Scheduled { due_ms } => {
                out.frame(|buf| codec::ok_pub_due(buf, room, *due_ms, &publish.key, id));
            }
            Outcome::Cancelled => out.frame(|buf| codec::ok_cancel(buf, room, &publish.key, true, id)),
            Outcome::TooLate => out.frame(|buf| codec::ok_cancel(buf, room, &publish.key, false, id)),
            Outcome::Conflict => {
                let text = "this key was used for other data; choose another";
                refuse(out, ErrorCode::Conflict, text, false, id);
            }
            Outcome::Refused { code, message } => refuse(out, *code, message, false, id),
            Outcome::NotSent => refuse(out, ErrorCode::NotSent, NOT_SENT, true, id),
            Outcome::Unknown => refuse(out, ErrorCode::Unavailable, UNKNOWN, true, id),
        }
    }
}

/// More than [`DELAY_MS_MAX`] ahead.
struct TooFar;

fn later(when: When, wall_ms: i64) -> Result<Option<Later>, TooFar> {
    let ms = |ms: u64| i64::try_from(ms).map_err(|_| TooFar);
    Ok(match when {
        When::Now => None,
        When::In(delay) => Some(Later::In(ms(delay)?)),
        When::At(at) if ms(at)? <= wall_ms.saturating_add(ms(DELAY_MS_MAX)?) => Some(Later::At(ms(at)?)),
        When::At(_) => return Err(TooFar),
    })
}

/// A publish is a frame, which has far fewer bytes than 4 GiB.
fn cost(publish: &Publish) -> u32 {
    u32::try_from(publish.cost()).unwrap_or(u32::MAX)
}
